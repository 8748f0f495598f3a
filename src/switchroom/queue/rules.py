"""A flow's own settings of its queue, and how they stand in the store."""

from __future__ import annotations

from typing import Protocol

import msgspec

from switchroom.hours import OpeningHours, offset_ms, spans

LEASE_MS = 5_000
"""How long a machine's hold lasts without a heartbeat."""
OFFER_MS = 20_000
"""How long a holder may take to answer an offer, however often it says that it lives."""
WRAPUP_MS = 15_000
"""How long a holder may take to close a call's record after the call is over."""
UNITY = "@cc"
"""The skill of those, and only those, who take calls with a `ccBaseUrl`. No other skill begins with `@`."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What an owner sets for a flow's queue.

    `lines`: calls that may be held at once. `duplicates`: what an enqueue of an ID that has not ended does. `cap`: most
    calls waiting (0: no bound). `service_level_ms`: a call answered within it counts as in time. `short_abandon_ms`: a
    caller who leaves before does not count against the service level. `rest_ms`: how long a line and its holder stay
    busy after a call. `retry_delay_ms`: how long a call waits after an attempt that failed. `refuse_backoff_ms`: how
    long a refused call is not offered to the same holder, doubling. `max_wait_ms`: a call that names no `expires_at_ms`
    expires when its caller has waited so long (0: never). `relax_after_s`: after each of these seconds a
    waiting call needs one skill less, the last of its list first. `stats_days`: how long a day's figures are kept.
    """

    lines: int = 4
    duplicates: str = "join"
    max_attempts: int = 3
    cap: int = 100_000
    service_level_ms: int = 20_000
    short_abandon_ms: int = 5_000
    rest_ms: int = 0
    retry_delay_ms: int = 0
    refuse_backoff_ms: int = 5_000
    max_wait_ms: int = 0
    relax_after_s: tuple[int, ...] = ()
    stats_days: int = 400
    hours: OpeningHours | None = None


class Admission(Protocol):
    """What taking a call in asks of a flow's settings; `Rules` says what they mean."""

    @property
    def duplicates(self) -> str: ...

    @property
    def max_attempts(self) -> int: ...

    @property
    def cap(self) -> int: ...


Field = str | int | bytes
"""Of a flat list of names and values."""


def stored_rules(rules: Rules, now_ms: int) -> list[Field]:
    """The flat fields of a flow's settings as the server-side function reads them. Works out times: not for an event
    loop."""
    settings = {
        "lines": rules.lines,
        "sl_ms": rules.service_level_ms,
        "short_ms": rules.short_abandon_ms,
        "wrap_ms": rules.rest_ms,
        "retry_ms": rules.retry_delay_ms,
        "backoff_ms": rules.refuse_backoff_ms,
        "max_wait_ms": rules.max_wait_ms,
        "relax": ",".join(str(after_s) for after_s in sorted(rules.relax_after_s)),
        "days": rules.stats_days,
    }
    flat: list[Field] = ["rules", msgspec.msgpack.encode(settings)]
    if rules.hours is None:
        return [*flat, "hours", "", "open", "", "tz_ms", 0]
    return [*flat, "hours", msgspec.json.encode(rules.hours).decode(), *stored_hours(rules.hours, now_ms)]


def stored_hours(hours: OpeningHours, now_ms: int) -> list[Field]:
    """The coming open spans, as far ahead as they are written at once, and the place's offset. A flow that never opens
    again gets one span that is over."""
    coming = spans(hours, now_ms) or [(0, 1)]
    return ["open", ",".join(f"{start}-{end}" for start, end in coming), "tz_ms", offset_ms(hours.timezone, now_ms)]
