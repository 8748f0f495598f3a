"""Between the store's flat fields and the queue's values."""

from __future__ import annotations

from typing import Any

import msgspec

from switchroom.queue.model import Call, EndReason, NewCall, QueueEvent, State


class Payload(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a call carries unchanged from enqueue to record, stored as one field."""

    form: dict[str, Any]
    state: dict[str, Any] = {}
    cc: str | None = None
    skills: tuple[str, ...] = ()
    callback: str | None = None


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a call's history: at `at_ms` it came to `state` because of `cause`."""

    at_ms: int = msgspec.field(name="a")
    state: State = msgspec.field(name="s")
    cause: str = msgspec.field(name="e")
    attempt: int = msgspec.field(name="n", default=0)
    owner: str = msgspec.field(name="o", default="")
    reason: str = msgspec.field(name="r", default="")
    detail: str = msgspec.field(name="d", default="")


_payload_decoder = msgspec.json.Decoder(Payload)
_encoder = msgspec.json.Encoder()
_history_decoder = msgspec.json.Decoder(list[Change])


def encode_payload(call: NewCall) -> bytes:
    return _encoder.encode(
        Payload(form=call.form, state=call.state, cc=call.cc_base_url, skills=call.skills, callback=call.callback_url)
    )


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
        priority=int(fields[b"pr"]),
        enqueued_at_ms=int(fields[b"e"]),
        not_before_ms=int(fields[b"nb"]),
        expires_at_ms=int(fields[b"x"]),
        attempt=int(fields[b"n"]),
        max_attempts=int(fields[b"m"]),
        owner=fields.get(b"o", b"").decode(),
        offered_at_ms=int(fields.get(b"of", 0)),
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
    )


def decode_history(fields: dict[bytes, bytes]) -> list[Change]:
    return _history_decoder.decode(b"[" + fields.get(b"h", b"") + b"]")


def decode_event(flow_id: str, event_id: bytes, flat: list[bytes]) -> QueueEvent:
    fields = {name: value.decode() for name, value in pairs(flat).items()}
    return QueueEvent(
        id=event_id.decode(),
        flow_id=flow_id,
        task_id=fields[b"t"],
        caller_id=fields[b"c"],
        at_ms=int(fields[b"a"]),
        state=State(fields[b"s"]),
        previous=State(fields[b"p"]) if fields[b"p"] else None,
        attempt=int(fields[b"n"]),
        owner=fields[b"o"],
        cause=fields[b"e"],
        end_reason=EndReason(fields[b"r"]) if fields[b"r"] else None,
        detail=fields[b"d"],
    )
