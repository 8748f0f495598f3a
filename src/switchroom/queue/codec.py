"""Between the store's flat fields and the queue's values."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct
from typing import Any

import msgspec
from msgspec.structs import replace

from switchroom.queue.model import Call, EndReason, NewCall, QueueEvent, State
from switchroom.queue.rules import UNITY


class Payload(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a call carries unchanged from enqueue to record, stored as one field."""

    form: dict[str, Any]
    state: dict[str, Any] = {}
    cc: str | None = None
    skills: tuple[str, ...] = ()
    callback: str | None = None


class Change(msgspec.Struct, frozen=True, array_like=True):
    """One entry of a call's history: at `at_ms` it came to `state` because of `cause`."""

    at_ms: int
    state: State
    cause: str
    attempt: int = 0
    owner: str = ""
    reason: str = ""
    detail: str = ""


_BETWEEN_SKILLS = "\x1f"
_payload_decoder = msgspec.json.Decoder(Payload)
_encoder = msgspec.json.Encoder()
_history_decoder = msgspec.json.Decoder(list[Change])


def encode_payload(call: NewCall) -> str:
    return encode_json(
        Payload(form=call.form, state=call.state, cc=call.cc_base_url, skills=call.skills, callback=call.callback_url)
    )


def encode_json(value: Any) -> str:
    """JSON as the store keeps it; None is the empty string."""
    return "" if value is None else _encoder.encode(value).decode()


def skill_set(skills: Sequence[str]) -> str:
    """Skills as the server-side function compares them: a set has one spelling."""
    return _BETWEEN_SKILLS.join(sorted(set(skills))) if skills else ""


def skills_of(packed: str) -> tuple[str, ...]:
    """The inverse of `skill_set`."""
    return tuple(packed.split(_BETWEEN_SKILLS)) if packed else ()


def needed(call: NewCall) -> str:
    """The skills that a call needs of its holder; one for a Unity client stands in a line of its own."""
    return UNITY if call.cc_base_url else skill_set(call.skills)


def pairs(flat: list[bytes]) -> dict[bytes, bytes]:
    """A flat reply `[name, value, …]` as a mapping."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


class Standing(msgspec.Struct, frozen=True, array_like=True):
    """How a call stands: what calls that were moved together mostly have in common. In the store an array in
    MessagePack, without the places at its end that hold their defaults. The server-side function reads and writes it by
    these very places (`standing_as_lua`): those that most calls set come first. Times are Unix milliseconds, 0 where it
    has not happened."""

    state: State
    most: int
    attempt: int = 0
    token: int = 0
    owner: str = ""
    offered: int = 0
    live: int = 0
    wrapup: int = 0
    ended: int = 0
    reason: str = ""
    detail: str = ""
    outcome: str = ""
    result: str = ""
    priority: int = 0
    need: str = ""
    lane: str = ""
    hook: str = ""
    answer_by: int = 0
    not_before: int = 0
    failures: int = 0
    joined: int = 0
    came_from: str = ""
    came_back: str = ""
    refusals: tuple[str | int, ...] = ()
    """Holders who refused it or did not answer, each with how often."""


class Own(msgspec.Struct, frozen=True, array_like=True):
    """What no other call has. `told` is the place that its caller was told the last time, as `line.lua` keeps it."""

    since: int
    expires: int
    caller: str
    sequence: int
    enqueued: int
    told: str = ""


class Record(msgspec.Struct, frozen=True):
    """A call as it stands in the store. `past` are the lines of its history, each with a comma before it."""

    standing: Standing
    own: Own
    past: bytes = b""


_decode_standing = lru_cache(256)(msgspec.msgpack.Decoder(Standing).decode)
_LENGTH = Struct("<I")
_TIMES_AND_TEXT = Struct("<QQI")


def decode_record(stored: bytes) -> Record:
    """The standing with its length before it, what is its own (see `record.lua: OWN`), and the history."""
    start = 4 + _LENGTH.unpack_from(stored)[0]
    since, expires, length = _TIMES_AND_TEXT.unpack_from(stored, start)
    middle = start + _TIMES_AND_TEXT.size
    caller = stored[middle : middle + length].decode()
    sequence, enqueued, told_length = _TIMES_AND_TEXT.unpack_from(stored, middle + length)
    last = middle + length + _TIMES_AND_TEXT.size
    end = last + told_length
    own = Own(since, expires, caller, sequence, enqueued, stored[last:end].decode())
    return Record(_decode_standing(stored[4:start]), own, stored[end:])


def standing_as_lua() -> str:
    """The places of a standing as Lua constants (`STATE = 1`, …), and their defaults as `DEFAULTS[place]`."""
    names = Standing.__struct_fields__
    places = ",".join(str(place) for place in range(1, len(names) + 1))
    plain = {State: "''", str: "''", int: "0", tuple[str | int, ...]: "{}"}
    defaults = ",".join(plain[field.type] for field in msgspec.structs.fields(Standing))
    return f"local {','.join(name.upper() for name in names)}={places}\nlocal DEFAULTS={{{defaults}}}\n"


def decode_call(flow_id: str, task_id: str, record: bytes, payload: bytes) -> Call:
    stored = decode_record(record)
    return call_of(flow_id, task_id, stored.standing, stored.own, payload)


def call_of(flow_id: str, task_id: str, standing: Standing, own: Own, packed_payload: bytes | str) -> Call:
    payload = _payload_decoder.decode(packed_payload)
    return replace(
        _one_that_stands_so(standing),
        flow_id=flow_id,
        task_id=task_id,
        caller_id=own.caller,
        form=payload.form,
        memory=payload.state,
        enqueued_at_ms=own.enqueued,
        waiting_since_ms=own.since,
        expires_at_ms=own.expires,
        result=msgspec.json.decode(standing.result) if standing.result else None,
        skills=payload.skills,
        cc_base_url=payload.cc,
        callback_url=payload.callback,
    )


@lru_cache(256)
def _one_that_stands_so(standing: Standing) -> Call:
    """A call without what is its own: made once for those of a batch."""
    return Call(
        flow_id="",
        task_id="",
        caller_id="",
        form={},
        memory={},
        state=standing.state,
        priority=standing.priority,
        not_before_ms=standing.not_before,
        attempt=standing.attempt,
        max_attempts=standing.most,
        owner=standing.owner,
        offered_at_ms=standing.offered,
        answer_by_ms=standing.answer_by,
        live_at_ms=standing.live,
        wrapup_at_ms=standing.wrapup,
        ended_at_ms=standing.ended,
        end_reason=EndReason(standing.reason) if standing.reason else None,
        detail=standing.detail,
        outcome=standing.outcome,
        token=standing.token,
        requeued_from=standing.came_from,
        requeued_as=standing.came_back,
    )


def decode_history(record: bytes) -> list[Change]:
    return _history_decoder.decode(b"[" + decode_record(record).past[1:] + b"]")


class _Step(msgspec.Struct, frozen=True, array_like=True):
    state: State
    cause: str
    owner: str
    previous: str
    attempt: int
    reason: str
    detail: str


class _Alike(msgspec.Struct, frozen=True, array_like=True):
    """What became of calls that stood alike, as it stands in the event stream and the outbox."""

    steps: list[_Step]
    """Each of them happened to every call, in this order."""
    calls: list[str]
    """Task and caller of each."""


_changes_decoder = msgspec.msgpack.Decoder(list[_Alike])
_AN_ENTRY = 64
"""Numbers of one stream entry; at most so many changes stand in it."""


def event_order(event_id: str) -> tuple[int, int]:
    """Event IDs of a flow compare as these do."""
    ms, _, number = event_id.partition("-")
    return int(ms), int(number or 0)


def last_event_id(entry_id: str) -> str:
    """The event ID of the last change of a stream entry.

    An entry `ms-n` holds the changes of one run of the function. Each has an ID of the same form and order: those of
    its last changes end with the numbers up to `n * 64 + 63`.
    """
    ms, _, number = entry_id.partition("-")
    return f"{ms}-{int(number) * _AN_ENTRY + _AN_ENTRY - 1}" if (ms, number) != ("0", "0") else "0-0"


def last_of_entry(event_id: str) -> str:
    """The ID of the last change of the stream entry in which an event stands."""
    ms, number = event_order(event_id)
    return f"{ms}-{number | _AN_ENTRY - 1}"


def entry_before(event_id: str) -> str:
    """The stream ID after which the entries stand that hold what came after an event."""
    ms, number = event_order(event_id)
    if entry := number // _AN_ENTRY:
        return f"{ms}-{entry - 1}"
    return f"{ms - 1}-{2**64 - 1}" if ms else "0-0"


def decode_events(flow_id: str, entry_id: bytes, flat: list[bytes]) -> list[QueueEvent]:
    """The changes of an entry of the event stream or the outbox, in order. Their time is that of its ID."""
    changes = [
        (step, task_id, caller_id)
        for alike in _changes_decoder.decode(flat[1])
        for step in alike.steps
        for task_id, caller_id in zip(alike.calls[::2], alike.calls[1::2], strict=True)
    ]
    ms, _, number = entry_id.decode().partition("-")
    first = (int(number) + 1) * _AN_ENTRY - len(changes)
    return [
        QueueEvent(
            id=f"{ms}-{first + i}",
            flow_id=flow_id,
            task_id=task_id,
            caller_id=caller_id,
            at_ms=int(ms),
            state=step.state,
            previous=State(step.previous) if step.previous else None,
            attempt=step.attempt,
            owner=step.owner,
            cause=step.cause,
            end_reason=EndReason(step.reason) if step.reason else None,
            detail=step.detail,
        )
        for i, (step, task_id, caller_id) in enumerate(changes)
    ]
