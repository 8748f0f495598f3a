"""Between the store's flat fields and the queue's values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

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
    return "\x1f".join(sorted(set(skills))) if skills else ""


def needed(call: NewCall) -> str:
    """The skills that a call needs of its holder; one for a Unity client stands in a line of its own."""
    return UNITY if call.cc_base_url else skill_set(call.skills)


def pairs(flat: list[bytes]) -> dict[bytes, bytes]:
    """A flat reply `[name, value, …]` as a mapping."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


class Record(msgspec.Struct, frozen=True, array_like=True):
    """A call as it stands in the store: an array in MessagePack, without the places at its end that hold their
    defaults. The server-side function reads and writes it by these very places (`record_as_lua`): those that every call
    sets come first. Times are Unix milliseconds, 0 where it has not happened."""

    state: str
    caller: str
    sequence: int
    enqueued: int
    most: int
    past: str = ""
    attempt: int = 0
    lane: str = ""
    told: str = ""
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
    hook: str = ""
    answer_by: int = 0
    since: int = 0
    expires: int = 0
    not_before: int = 0
    failures: int = 0
    joined: int = 0
    came_from: str = ""
    came_back: str = ""
    refusals: list[str | int] = []
    """Holders who refused it or did not answer, each with how often."""


decode_record = msgspec.msgpack.Decoder(Record).decode
encode_record = msgspec.msgpack.Encoder().encode


def record_as_lua() -> str:
    """The places of a record as Lua constants (`STATE = 1`, …), and their defaults as `DEFAULTS[place]`."""
    names = Record.__struct_fields__
    places = ",".join(str(place) for place in range(1, len(names) + 1))
    plain = {str: "''", int: "0", list[str | int]: "{}"}
    defaults = ",".join(plain[field.type] for field in msgspec.structs.fields(Record))
    return f"local {','.join(name.upper() for name in names)}={places}\nlocal DEFAULTS={{{defaults}}}\n"


def decode_call(flow_id: str, task_id: str, record: bytes, payload: bytes) -> Call:
    return call_of(flow_id, task_id, decode_record(record), payload)


def call_of(flow_id: str, task_id: str, stored: Record, packed_payload: bytes | str) -> Call:
    payload = _payload_decoder.decode(packed_payload)
    return Call(
        flow_id=flow_id,
        task_id=task_id,
        caller_id=stored.caller,
        state=State(stored.state),
        form=payload.form,
        memory=payload.state,
        priority=stored.priority,
        enqueued_at_ms=stored.enqueued,
        waiting_since_ms=stored.since or stored.enqueued,
        not_before_ms=stored.not_before,
        expires_at_ms=stored.expires,
        attempt=stored.attempt,
        max_attempts=stored.most,
        owner=stored.owner,
        offered_at_ms=stored.offered,
        answer_by_ms=stored.answer_by,
        live_at_ms=stored.live,
        wrapup_at_ms=stored.wrapup,
        ended_at_ms=stored.ended,
        end_reason=EndReason(stored.reason) if stored.reason else None,
        detail=stored.detail,
        outcome=stored.outcome,
        result=msgspec.json.decode(stored.result) if stored.result else None,
        skills=payload.skills,
        cc_base_url=payload.cc,
        callback_url=payload.callback,
        token=stored.token,
        requeued_from=stored.came_from,
        requeued_as=stored.came_back,
    )


def decode_history(record: bytes) -> list[Change]:
    return _history_decoder.decode(f"[{decode_record(record).past}]")


class _Alike(msgspec.Struct, frozen=True, array_like=True):
    """Changes that differ in their call alone, as they stand in the event stream and the outbox."""

    state: State
    cause: str
    owner: str
    previous: str
    attempt: int
    reason: str
    detail: str
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
        (alike, task_id, caller_id)
        for alike in _changes_decoder.decode(flat[1])
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
            state=alike.state,
            previous=State(alike.previous) if alike.previous else None,
            attempt=alike.attempt,
            owner=alike.owner,
            cause=alike.cause,
            end_reason=EndReason(alike.reason) if alike.reason else None,
            detail=alike.detail,
        )
        for i, (alike, task_id, caller_id) in enumerate(changes)
    ]
