"""Between the store's flat fields and the queue's values."""

from __future__ import annotations

from collections.abc import Iterable
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


def encode_payload(call: NewCall) -> bytes:
    return _encoder.encode(
        Payload(form=call.form, state=call.state, cc=call.cc_base_url, skills=call.skills, callback=call.callback_url)
    )


def skill_set(skills: Iterable[str]) -> str:
    """Skills as the scripts compare them: a set has one spelling."""
    return "\x1f".join(sorted(set(skills)))


def needed(call: NewCall) -> str:
    """The skills that a call needs of its holder; one for a Unity client stands in a line of its own."""
    return UNITY if call.cc_base_url else skill_set(call.skills)


def pairs(flat: list[bytes]) -> dict[bytes, bytes]:
    """A flat reply `[name, value, …]` as a mapping."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def decode_call(flow_id: str, task_id: str, fields: dict[bytes, bytes]) -> Call:
    payload = _payload_decoder.decode(fields[b"p"])
    result = fields.get(b"rs")
    return Call(
        flow_id=flow_id,
        task_id=task_id,
        caller_id=fields[b"id"].decode(),
        state=State(fields[b"s"].decode()),
        form=payload.form,
        memory=payload.state,
        priority=int(fields.get(b"pr", 0)),
        enqueued_at_ms=int(fields[b"e"]),
        waiting_since_ms=int(fields.get(b"ws", fields[b"e"])),
        not_before_ms=int(fields.get(b"nb", 0)),
        expires_at_ms=int(fields.get(b"x", 0)),
        attempt=int(fields[b"n"]),
        max_attempts=int(fields[b"m"]),
        owner=fields.get(b"o", b"").decode(),
        offered_at_ms=int(fields.get(b"of", 0)),
        answer_by_ms=int(fields.get(b"od", 0)),
        live_at_ms=int(fields.get(b"li", 0)),
        wrapup_at_ms=int(fields.get(b"w", 0)),
        ended_at_ms=int(fields.get(b"en", 0)),
        end_reason=EndReason(fields[b"r"].decode()) if fields.get(b"r") else None,
        detail=fields.get(b"d", b"").decode(),
        outcome=fields.get(b"oc", b"").decode(),
        result=msgspec.json.decode(result) if result else None,
        skills=payload.skills,
        cc_base_url=payload.cc,
        callback_url=payload.callback,
        token=int(fields.get(b"t") or 0),
        requeued_from=fields.get(b"ro", b"").decode(),
        requeued_as=fields.get(b"rq", b"").decode(),
    )


def decode_history(fields: dict[bytes, bytes]) -> list[Change]:
    return _history_decoder.decode(b"[" + fields.get(b"h", b"") + b"]")


def decode_event(flow_id: str, event_id: bytes, flat: list[bytes]) -> QueueEvent:
    """An entry of the event stream or the outbox. What is empty is left out there; its time is that of its ID."""
    fields = {name: value.decode() for name, value in pairs(flat).items()}
    previous, reason = fields.get(b"p"), fields.get(b"r")
    return QueueEvent(
        id=event_id.decode(),
        flow_id=flow_id,
        task_id=fields[b"t"],
        caller_id=fields[b"c"],
        at_ms=int(event_id.partition(b"-")[0]),
        state=State(fields[b"s"]),
        previous=State(previous) if previous else None,
        attempt=int(fields[b"n"]),
        owner=fields.get(b"o", ""),
        cause=fields[b"e"],
        end_reason=EndReason(reason) if reason else None,
        detail=fields.get(b"d", ""),
    )
