"""Who opens a Realtime session: an API key, or a client secret that a holder of a key had made for a browser.

A secret is 256 random bits. It opens sessions as they were configured when it was made, until it expires, and does
nothing else.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import hdrs, web

from switchroom.access import Principal, Scope, presented_key
from switchroom.errors import Forbidden, Unauthorized
from switchroom.gateway.services import PRINCIPAL, services
from switchroom.store import Store, keys

_PREFIX = "ek_"
_BY_PROTOCOL = "openai-insecure-api-key."


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """What a client secret opens: the flow, and the configuration that was given with it. `key_id` made it."""

    model: str
    session: dict[str, Any]
    key_id: str
    expires_at: int
    """Unix seconds."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Secret).decode


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks. `protocols` are the WebSocket subprotocols that it offers, without the one that holds a key."""

    principal: Principal
    secret: Secret | None
    protocols: tuple[str, ...]

    def needs_key(self) -> None:
        """Raises `Forbidden` for one that came with a client secret."""
        if self.secret is not None:
            raise Forbidden("A client secret opens sessions and no more: this needs an API key.")


async def caller_of(request: web.Request) -> Caller:
    """Raises `Unauthorized` without a key or secret that is known, `Forbidden` for a key that may not take calls."""
    offered = [part.strip() for part in request.headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL, "").split(",")]
    protocols = tuple(part for part in offered if part and not part.startswith(_BY_PROTOCOL))
    by_protocol = [part.removeprefix(_BY_PROTOCOL) for part in offered if part.startswith(_BY_PROTOCOL)]
    presented = presented_key(request.headers) or (by_protocol[0] if by_protocol else None)
    parts = services(request)
    if presented is not None and presented.startswith(_PREFIX):
        secret = await _known(parts.store, presented)
        principal = Principal(secret.key_id, "client secret", frozenset({Scope.CALLS}))
    else:
        secret, principal = None, await parts.access.check(presented, Scope.CALLS)
    request[PRINCIPAL] = principal
    return Caller(principal=principal, secret=secret, protocols=protocols)


async def make_secret(
    store: Store, principal: Principal, model: str, session: dict[str, Any], seconds: int
) -> tuple[str, int]:
    """A new secret and the Unix second of its end."""
    value = _PREFIX + secrets.token_urlsafe(32)
    expires_at = int(time.time()) + seconds
    secret = Secret(model=model, session=session, key_id=principal.key_id, expires_at=expires_at)
    await store.call("SET", keys.realtime_secret(_digest(value)), _encode(secret), "EX", seconds)
    return value, expires_at


async def _known(store: Store, presented: str) -> Secret:
    raw = await store.call("GET", keys.realtime_secret(_digest(presented)))
    if raw is None:
        raise Unauthorized("This client secret is not known, or has expired.")
    return _decode(raw)


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode(errors="replace")).hexdigest()
