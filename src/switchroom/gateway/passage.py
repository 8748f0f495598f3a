"""Bringing a client's WebSocket to the media process that is to serve it: an API node carries messages both ways and
keeps nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence

import aiohttp
from aiohttp import WSCloseCode, WSMsgType, web

from switchroom.errors import TimedOut, Unavailable
from switchroom.gateway.services import services
from switchroom.realtime import registry
from switchroom.realtime.door import MAX_MESSAGE, REFUSAL, Ticket, issue, refusal_in
from switchroom.realtime.registry import MediaProcess

__all__ = ["install_passage", "living_process", "pass_on"]

log = logging.getLogger(__name__)

_CONNECT_S = 10.0
_PING_S = 15.0
"""A client that does not answer a ping within half of it is gone."""
_CLOSE_S = 2.0
_HTTP = web.AppKey("passage_http", aiohttp.ClientSession)
_OPEN = web.AppKey("passage_open", set[web.WebSocketResponse])
_ENDED_BADLY = 1011


def install_passage(app: web.Application) -> None:
    """Gives `app` the connections that `pass_on` uses."""
    app[_OPEN] = set[web.WebSocketResponse]()
    app.cleanup_ctx.append(_connections)
    app.on_shutdown.append(_close_all)


async def _connections(app: web.Application) -> AsyncIterator[None]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S)) as http:
        app[_HTTP] = http
        yield


async def _close_all(app: web.Application) -> None:
    # Before aiohttp waits for the requests under way: an open socket would hold it up.
    carried = app[_OPEN]
    closing = [outer.close(code=WSCloseCode.GOING_AWAY, message=b"the server stops") for outer in carried]
    await asyncio.gather(*closing, return_exceptions=True)


async def pass_on(
    request: web.Request, ticket: Ticket, *, process: MediaProcess | None = None, protocols: Sequence[str] = ()
) -> web.WebSocketResponse:
    """Serve the WebSocket handshake in `request` by a media process: `process`, or the emptiest.

    Raises, before the client is answered, what that process refuses with; `Unavailable` without one that has room,
    `TimedOut` where it does not answer. Returns when the socket is closed.
    """
    parts = services(request)
    process = process or await parts.signals.emptiest()
    url = f"{process.door}/{await issue(parts.store, ticket)}"
    try:
        async with asyncio.timeout(_CONNECT_S):
            inner = await request.app[_HTTP].ws_connect(
                url, compress=0, max_msg_size=MAX_MESSAGE, timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_S)
            )
    except aiohttp.WSServerHandshakeError as error:
        refusal = refusal_in(error.headers.get(REFUSAL) if error.headers is not None else None)
        raise refusal or Unavailable(f"the media process answered {error.status}", code="media_refused") from None
    except TimeoutError:
        raise TimedOut("the media process did not answer", code="media_timeout", retry_after_s=2) from None
    except (aiohttp.ClientError, OSError) as error:
        raise Unavailable(
            f"the media process cannot be reached at {process.door}: {type(error).__name__}",
            code="media_unreachable",
            retry_after_s=2,
        ) from None
    outer = web.WebSocketResponse(heartbeat=_PING_S, max_msg_size=MAX_MESSAGE, compress=False, protocols=protocols)
    try:
        await outer.prepare(request)
        request.app[_OPEN].add(outer)
        ways = [asyncio.create_task(_carry(inner, outer)), asyncio.create_task(_carry(outer, inner))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
    finally:
        request.app[_OPEN].discard(outer)
        await inner.close()
        await outer.close()
    return outer


Socket = aiohttp.ClientWebSocketResponse | web.WebSocketResponse


async def _carry(source: Socket, target: Socket) -> None:
    """Messages in one direction until one side closes; a close is passed on with its code and its reason."""
    while True:
        message = await source.receive()
        try:
            if message.type is WSMsgType.TEXT:
                await target.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await target.send_bytes(message.data)
            elif message.type is WSMsgType.CLOSE:
                await target.close(code=message.data or 1000, message=str(message.extra or "").encode())
                return
            else:  # the connection broke, or we closed it
                await target.close(code=_ENDED_BADLY if message.type is WSMsgType.ERROR else 1000)
                return
        except (ConnectionError, aiohttp.ClientError):
            return  # the other way ends by itself


async def living_process(request: web.Request, process_id: str) -> MediaProcess:
    """A media process by its ID. Raises `Unavailable` when it lives no more."""
    process = await registry.look_up(services(request).store, process_id)
    if process is None:
        raise Unavailable("the media process that carries this call is gone", code="media_gone")
    return process
