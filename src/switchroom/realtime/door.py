"""Where a media process takes WebSockets. A client's socket ends at an API node; that node brings it here, to the
process that carries the call, with a ticket that says what it is about.

A ticket is 256 random bits that name an entry of the store with a short life, and is good once: whoever has no access
to the store cannot make one. A refusal before the socket is open goes back in a header field, since that is all that a
WebSocket client sees of an answer.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from switchroom.errors import SwitchroomError
from switchroom.realtime import registry
from switchroom.realtime.registry import Refusal
from switchroom.store import Store, keys

log = logging.getLogger(__name__)

TICKET_MS = 15_000
REFUSAL = "X-Switchroom-Refusal"
MAX_MESSAGE = 24 << 20
"""The Realtime protocol allows 15 MiB of audio in one event, as base64."""
_SHUTDOWN_S = 2.0


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """`kind` chooses the handler; the rest is for it. `data` is of the kind's own form."""

    kind: str
    flow_id: str = ""
    task_id: str = ""
    call_id: str = ""
    data: bytes = b""


Handler = Callable[[Ticket, web.Request], Awaitable[web.StreamResponse]]
"""Opens the WebSocket itself (`opened`) once it is sure. Raises `SwitchroomError` before that."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Ticket).decode
_refusal = msgspec.json.Decoder(Refusal).decode


async def issue(store: Store, ticket: Ticket) -> str:
    """A name for `ticket`, good once and for 15 s."""
    name = secrets.token_urlsafe(32)
    await store.call("SET", keys.media_ticket(name), _encode(ticket), "PX", TICKET_MS)
    return name


def refusal_in(field: str | None) -> SwitchroomError | None:
    """The error that a door's answer carries, if it carries one."""
    if not field:
        return None
    try:
        return registry.error_of(_refusal(field))
    except msgspec.DecodeError:
        return None


async def opened(request: web.Request) -> web.WebSocketResponse:
    """The WebSocket of a request that was brought here. No pings: the API node watches over the client."""
    socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE, compress=False)
    await socket.prepare(request)
    return socket


class Door:
    """The listening socket. Fill `on` (kind -> handler) before `open`."""

    def __init__(self, store: Store, host: str, port: int, url: str = "") -> None:
        self._store = store
        self._host, self._port = host, port
        self._runner: web.AppRunner | None = None
        self.on: dict[str, Handler] = {}
        self.url = url.rstrip("/")
        """What API nodes are told; known once it is open."""

    async def open(self) -> None:
        app = web.Application()
        app.router.add_get("/{ticket}", self._come_in)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_S, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        host, port = self._runner.addresses[0][:2]
        self.url = self.url or f"http://{f'[{host}]' if ':' in host else host}:{port}"

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _come_in(self, request: web.Request) -> web.StreamResponse:
        raw = await self._store.call("GETDEL", keys.media_ticket(request.match_info["ticket"]))
        if raw is None:
            return web.Response(status=404)
        ticket = _decode(raw)
        try:
            handler = self.on.get(ticket.kind)
            if handler is None:
                raise SwitchroomError(f"this media process takes no socket of the kind {ticket.kind!r}")
            return await handler(ticket, request)
        except SwitchroomError as error:
            log.info("a socket was refused", extra={"kind": ticket.kind, "code": error.code})
            told = msgspec.json.encode(registry.refusal_of(error)).decode()
            return web.Response(status=error.status, headers={REFUSAL: ascii_only(told)})


def ascii_only(text: str) -> str:
    """JSON with whatever a header field cannot carry escaped."""
    return "".join(c if 32 <= ord(c) < 127 else f"\\u{ord(c):04x}" for c in text if ord(c) < 0x10000)
