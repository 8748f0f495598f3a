"""Who may speak in a call: an API key with the scope `calls`, or a token for that one call, which a browser or a kiosk
may hold. A token is made by somebody with a key; only its digest is stored."""

from __future__ import annotations

import hashlib
import secrets

import msgspec
from aiohttp import web

from switchroom.access import Principal, Scope, presented_key
from switchroom.errors import Forbidden, Unauthorized
from switchroom.gateway.public import allow_origin, check_origin
from switchroom.gateway.services import PRINCIPAL, services, usable_flow
from switchroom.store import Store, keys

PREFIX = "call_"
MAX_TOKEN_S = 24 * 3600


class _Right(msgspec.Struct, frozen=True):
    """What a token opens."""

    flow_id: str
    task_id: str


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Right).decode


async def issue(store: Store, flow_id: str, task_id: str, life_s: int) -> str:
    """A token with which this one call can be joined, more than once, for `life_s` seconds."""
    token = PREFIX + secrets.token_urlsafe(32)
    await store.call("SET", keys.call_token(_digest(token)), _encode(_Right(flow_id, task_id)), "EX", life_s)
    return token


async def admit(request: web.Request, flow_id: str, *, task_id: str | None = None, call_id: str | None = None) -> None:
    """Lets the request pass, or raises `Unauthorized` or `Forbidden`. The caller's page may be of another origin that
    the flow allows (`allowedOrigins`); where no key is asked for, it must be. `call_id`: a leg, which a token opens
    only where it was joined with it (`bind`)."""
    parts = services(request)
    await allow_origin(request, flow_id)
    key = presented_key(request.headers)
    if key is None or not key.startswith(PREFIX):
        principal = await parts.access.check(key, Scope.CALLS)
    else:
        raw = await parts.store.call("GET", keys.call_token(_digest(key)))
        if raw is None:
            raise Unauthorized("This token is not known any more: ask for a new one.", code="call_token_expired")
        right = _decode(raw)
        bound = await parts.store.call("GET", keys.call_leg(call_id)) if call_id is not None else None
        leg_fits = call_id is None or (bound is not None and bound.decode() == _digest(key))
        if right.flow_id != flow_id or (task_id is not None and right.task_id != task_id) or not leg_fits:
            raise Forbidden("This token is for another call.", code="other_call")
        principal = Principal("call-token", "a token for one call", frozenset({Scope.CALLS}))
    request[PRINCIPAL] = principal
    flow = await usable_flow(parts, principal, flow_id)
    if principal.key_id == "open":
        check_origin(request, flow)


async def bind(request: web.Request, call_id: str) -> None:
    """The leg was joined by this request: its token may hang it up."""
    key = presented_key(request.headers)
    if key is not None and key.startswith(PREFIX):
        await services(request).store.call("SET", keys.call_leg(call_id), _digest(key), "EX", MAX_TOKEN_S)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
