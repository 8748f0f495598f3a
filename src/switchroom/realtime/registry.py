"""Which media processes live, and the envelopes that API nodes and media processes exchange through the store."""

from __future__ import annotations

import msgspec

from switchroom import errors
from switchroom.errors import SwitchroomError
from switchroom.store import Store, keys

HEARTBEAT_S = 1.0
ALIVE_MS = 4000
"""A media process that did not renew its sign for so long is taken for dead."""
OWNER_PREFIX = "media:"


class MediaProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A media process's sign of life."""

    id: str
    legs: int
    max_legs: int
    loop_lag_ms: float
    draining: bool = False
    overloaded: bool = False
    door: str = ""
    """Where API nodes bring it WebSockets: `http://host:port`."""

    @property
    def has_room(self) -> bool:
        return not self.draining and not self.overloaded and self.legs < self.max_legs


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """To a media process. `expires_at_ms` is Unix time: a request that nobody waits for any more is not served."""

    id: str
    kind: str
    expires_at_ms: int
    flow_id: str = ""
    task_id: str = ""
    call_id: str = ""
    sdp: str = ""
    tag: str = ""
    """Of the ICE session that a `trickle` belongs to; "" for any."""
    data: bytes = b""
    """Of the kind's own form."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """One of our errors on its way between processes."""

    status: int
    code: str
    detail: str
    retry_after_s: int | None = None


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    call_id: str = ""
    sdp: str = ""
    data: bytes = b""
    refusal: Refusal | None = None


encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode
_decode_process = msgspec.msgpack.Decoder(MediaProcess).decode

_CLASSES: dict[int, type[SwitchroomError]] = {
    kind.status: kind
    for kind in (
        errors.BadInput,
        errors.NotFound,
        errors.Conflict,
        errors.PreconditionFailed,
        errors.Unprocessable,
        errors.TooMany,
        errors.Unavailable,
        errors.TimedOut,
    )
}


def refusal_of(error: SwitchroomError) -> Refusal:
    return Refusal(status=error.status, code=error.code, detail=error.detail, retry_after_s=error.retry_after_s)


def error_of(refusal: Refusal) -> SwitchroomError:
    kind = _CLASSES.get(refusal.status, SwitchroomError)
    return kind(refusal.detail, code=refusal.code, retry_after_s=refusal.retry_after_s)


def owner_name(process_id: str) -> str:
    """The name under which a media process holds calls."""
    return OWNER_PREFIX + process_id


def process_of(owner: str) -> str | None:
    """The media process of an owner's name; None when it is somebody else (a kiosk, an operator)."""
    return owner.removeprefix(OWNER_PREFIX) if owner.startswith(OWNER_PREFIX) else None


async def announce(store: Store, process: MediaProcess) -> None:
    """Say that a process lives."""
    await store.call("SADD", keys.media_processes(), process.id)
    await store.call("SET", keys.media_process(process.id), encode(process), "PX", ALIVE_MS)


async def withdraw(store: Store, process_id: str) -> None:
    await store.call("DEL", keys.media_process(process_id))
    await store.call("SREM", keys.media_processes(), process_id)


async def look_up(store: Store, process_id: str) -> MediaProcess | None:
    """A media process, if it lives."""
    data = await store.call("GET", keys.media_process(process_id))
    return _decode_process(data) if data is not None else None


async def living(store: Store) -> list[MediaProcess]:
    """The media processes that live; names of dead ones are forgotten on the way."""
    found: list[MediaProcess] = []
    for raw in await store.call("SMEMBERS", keys.media_processes()):
        process_id = raw.decode()
        process = await look_up(store, process_id)
        if process is None:
            await store.call("SREM", keys.media_processes(), process_id)
        else:
            found.append(process)
    return found
