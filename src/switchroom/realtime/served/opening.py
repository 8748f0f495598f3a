"""How a served session begins, as an API node hands it to a media process."""

from __future__ import annotations

from typing import Any

import msgspec

from switchroom.errors import BadInput
from switchroom.realtime.served.config import defaults, updated
from switchroom.realtime.served.protocol import WireError, new_id

SESSION = "realtime"
"""Kind of a ticket: a session over a WebSocket."""
SIDEBAND = "realtime-sideband"
"""Kind of a ticket: a second WebSocket to a session that runs (`call_id`)."""


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """How a session begins: `model` as the client named the flow, and the configuration that came with it."""

    model: str
    session: dict[str, Any] = {}


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Opening).decode


def configured(opening: Opening) -> dict[str, Any]:
    """The configuration that a session of `opening` begins with. Raises `BadInput`, which names the field."""
    kind = str(opening.session.get("type", "realtime"))
    if kind not in ("realtime", "transcription"):
        raise BadInput("'session.type' must be realtime or transcription.", extra={"param": "session.type"})
    begun = defaults(new_id("sess"), opening.model, 0, kind=kind)
    try:
        session, _ = updated(begun, {**opening.session, "type": kind})
    except WireError as error:
        raise BadInput(error.message, code=error.code, extra={"param": error.param}) from None
    return session


def packed(opening: Opening) -> bytes:
    """For a ticket, or a request to a media process. Raises `BadInput` as `configured` does."""
    configured(opening)
    return _encode(opening)


def unpacked(data: bytes) -> Opening:
    return _decode(data)
