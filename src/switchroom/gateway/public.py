"""Who may chat with a flow: a key, or anybody where it is public; how often; from which pages (calls too)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from switchroom.access import Principal, Scope, presented_key
from switchroom.errors import Forbidden, NotFound, TooMany
from switchroom.gateway.services import PRINCIPAL, Services, services, usable_flow
from switchroom.store import Script, keys

if TYPE_CHECKING:
    from switchroom.engine import Flow

_PUBLIC = Principal("public", "public", frozenset())
_EXTRA_HEADERS = web.RequestKey("chat_headers", dict[str, str])
_CHAT = re.compile(
    r"/api/v1/(?:prediction|public-chatbotConfig|public-chatflows|chatflows-streaming|feedback|attachments"
    r"|chatmessage/abort)/([A-Za-z0-9_-]{1,64})(?:[./].*)?"
)
_CHAT_WITHOUT_FLOW = re.compile(r"/api/v1/(?:leads|node-icon|text-to-speech)(?:/.*)?|/v1/realtime/calls")
_CALLS = re.compile(r"/api/v1/openai-realtime/([A-Za-z0-9_-]{1,64})/calls(?:/(?!token$)[^/]+)?")
"""Where a caller's page joins a call and leaves it. Tokens are made by servers."""
_PREFLIGHT_S = 600
_EXPOSED = "Location, ETag, Link, Accept-Patch, X-Correlation-Id, Retry-After, RateLimit, RateLimit-Policy"

_TAKE = Script("""
-- KEYS: counter. ARGV: window in ms. How often it was taken in this window, and the ms until the window ends.
local taken = redis.call('INCR', KEYS[1])
if taken == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return {taken, redis.call('PTTL', KEYS[1])}
""")


async def chat_flow(request: web.Request, flow_id: str) -> Flow:
    """The flow, if this client may chat with it from where it is.

    Raises `Unauthorized` (a key is needed; also for a flow that is not there, so that nothing is told without a key),
    `NotFound`, and `Forbidden` for a page whose origin the flow does not allow.
    """
    parts = services(request)
    flow = await parts.flows.get(flow_id)
    if flow is not None:
        check_origin(request, flow)
    presented = presented_key(request.headers)
    if flow is not None and flow.settings.chat.public and not flow.settings.protected and presented is None:
        request[PRINCIPAL] = _PUBLIC
        return flow
    request[PRINCIPAL] = await parts.access.check(presented, Scope.RUN)
    return await usable_flow(parts, request[PRINCIPAL], flow_id)


async def take_turn(request: web.Request, flow: Flow) -> None:
    """Counts a turn against the flow's rate limit and puts the RateLimit fields on the answer
    (draft-ietf-httpapi-ratelimit-headers-10). Raises `TooMany`."""
    rate = flow.settings.chat.rate_limit
    if rate is None:
        return
    principal = request[PRINCIPAL]
    named = principal.key_id not in ("public", "open")
    who = principal.key_id if named else f"at {request.remote}"
    counter = keys.chat_rate(flow.id, who)
    taken, left_ms = await services(request).store.run(_TAKE, keys=[counter], args=[rate.window_s * 1000])
    wait_s = max(1, -(-int(left_ms) // 1000))
    _headers(request).update(
        {
            "RateLimit-Policy": f'"flow";q={rate.limit};w={rate.window_s}',
            "RateLimit": f'"flow";r={max(0, rate.limit - taken)};t={wait_s}',
        }
    )
    if taken > rate.limit:
        raise TooMany(rate.message, code="rate_limited", retry_after_s=wait_s)


def install_origins(app: web.Application) -> None:
    """Adds the CORS answers of the chat routes, and the header fields that `chat_flow` and `take_turn` decided."""
    app.middlewares.append(_preflight)
    app.on_response_prepare.append(_stamp)


def check_page(request: web.Request, principal: Principal, flow: Flow) -> None:
    """For a route that takes a key or a secret from any page: one of another origin may use a flow without either only
    where the flow allows it. Raises `Forbidden`; else the page may read the answer."""
    origin = request.headers.get(hdrs.ORIGIN)
    if principal.key_id == "open":
        check_origin(request, flow)
    elif origin is not None:
        _note(request, origin)


async def allow_origin(request: web.Request, flow_id: str) -> None:
    """Lets a page that the flow allows read the answer, also where it is refused; refuses nobody."""
    flow = await services(request).flows.get(flow_id)
    origin = request.headers.get(hdrs.ORIGIN)
    if flow is not None and origin is not None and _allows(flow, origin):
        _note(request, origin)


@web.middleware
async def _preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
    origin = request.headers.get(hdrs.ORIGIN)
    asked = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_METHOD)
    if request.method != hdrs.METH_OPTIONS or origin is None or asked is None:
        return await handler(request)
    found = _CHAT.fullmatch(request.path) or _CALLS.fullmatch(request.path)
    if found is None and not _CHAT_WITHOUT_FLOW.fullmatch(request.path):
        return await handler(request)
    if found is None:
        _note(request, origin)  # the flow stands in the body: the request itself is judged
    else:
        await _note_if_allowed(services(request), request, found[1], origin)
    if request.get(_EXTRA_HEADERS) is None:
        raise Forbidden("This page's origin is not among the flow's allowed origins.", code="origin_not_allowed")
    headers = {
        hdrs.ACCESS_CONTROL_ALLOW_METHODS: "GET, POST, PUT, PATCH, DELETE",
        hdrs.ACCESS_CONTROL_ALLOW_HEADERS: "Authorization, Content-Type, If-Match, X-API-Key, X-Correlation-Id",
        hdrs.ACCESS_CONTROL_MAX_AGE: str(_PREFLIGHT_S),
    }
    return web.Response(status=204, headers=headers)


async def _note_if_allowed(parts: Services, request: web.Request, flow_id: str, origin: str) -> None:
    flow = await parts.flows.get(flow_id)
    if flow is None:
        raise NotFound("There is nothing here for another origin.", code="flow_not_found")
    if _allows(flow, origin):
        _note(request, origin)


def check_origin(request: web.Request, flow: Flow) -> None:
    """Where no key is asked for: raises `Forbidden` for a page of another origin that the flow does not allow."""
    origin = request.headers.get(hdrs.ORIGIN)
    public_url = services(request).public_url
    own = {request.host, urlsplit(public_url).netloc} if public_url else {request.host}
    if origin is None or urlsplit(origin).netloc in own:
        return
    if not _allows(flow, origin):
        # Also where no script could read the answer: a page must not start turns on a server that it can merely reach.
        raise Forbidden(f"Pages of {origin} may not use this flow.", code="origin_not_allowed")
    _note(request, origin)


def _allows(flow: Flow, origin: str) -> bool:
    allowed = flow.settings.chat.allowed_origins
    return "*" in allowed or origin.rstrip("/").lower() in {one.rstrip("/").lower() for one in allowed}


def _note(request: web.Request, origin: str) -> None:
    _headers(request).update(
        {
            hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: origin,
            hdrs.VARY: hdrs.ORIGIN,
            hdrs.ACCESS_CONTROL_EXPOSE_HEADERS: _EXPOSED,
        }
    )


def _headers(request: web.Request) -> dict[str, str]:
    found = request.get(_EXTRA_HEADERS)
    if found is None:
        found = request[_EXTRA_HEADERS] = {}
    return found


async def _stamp(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(request.get(_EXTRA_HEADERS) or {})
