"""Dialect: the notify hub at `/ws`: tells build pipelines which assets changed, once a burst of changes is over."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from switchroom.errors import Unauthorized, Unavailable
from switchroom.gateway.broadcast import Broadcast
from switchroom.gateway.operation import operation
from switchroom.gateway.reply import rfc3339
from switchroom.gateway.services import services

log = logging.getLogger(__name__)

CHANGED = "assets-changed"
QUIET_S = 0.25
"""A burst is over when nothing changed for so long,"""
LONGEST_S = 2.0
"""or when it has gone on for so long."""
MIN_SECRET = 32
_WAITING = 100
_HEARTBEAT_S = 30.0
_SEND_S = 10.0
_EVERYTHING = frozenset({"all", "*"})


class AssetsChanged(msgspec.Struct, kw_only=True, tag_field="type", tag="assetsChanged"):
    """The hub's only event. `pipeline` None is of interest to every pipeline; `version` is an RFC 3339 time."""

    pipeline: str | None
    changed: list[str]
    version: str


class NotifyHub:
    """Gathers the changes that any API process announces and sends them to the sockets of this one."""

    def __init__(self, broadcast: Broadcast) -> None:
        self._broadcast = broadcast
        self._changed: dict[str | None, set[str]] = {}
        self._first_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._clients: dict[asyncio.Queue[bytes | None], str] = {}
        broadcast.listen(CHANGED, self._hear)

    async def announce(self, asset: str, pipeline: str | None) -> None:
        """`asset` as `chatflows/<id>`."""
        await self._broadcast.publish(CHANGED, {"asset": asset, "pipeline": pipeline})

    def join(self, pipeline: str) -> asyncio.Queue[bytes | None]:
        """Where a client's messages come; None is the end, for one that reads too slowly or when the hub closes."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(_WAITING)
        self._clients[queue] = pipeline
        return queue

    def leave(self, queue: asyncio.Queue[bytes | None]) -> None:
        self._clients.pop(queue, None)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for queue in list(self._clients):
            self._end(queue)

    def _hear(self, body: dict[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        if not self._changed:
            self._first_at = loop.time()
        self._changed.setdefault(body["pipeline"], set()).add(body["asset"])
        if self._timer is not None:
            self._timer.cancel()
        at = min(loop.time() + QUIET_S, self._first_at + LONGEST_S)
        self._timer = loop.call_at(at, self._tell)

    def _tell(self) -> None:
        self._timer = None
        version = rfc3339(time.time_ns() // 1_000_000) or ""
        changes, self._changed = self._changed, {}
        for pipeline, assets in changes.items():
            message = msgspec.json.encode(AssetsChanged(pipeline=pipeline, changed=sorted(assets), version=version))
            for queue, wanted in list(self._clients.items()):
                if pipeline is None or wanted == pipeline or wanted in _EVERYTHING:
                    if queue.full():
                        log.warning("a notify client reads too slowly", extra={"pipeline": wanted})
                        self._end(queue)
                    else:
                        queue.put_nowait(message)

    def _end(self, queue: asyncio.Queue[bytes | None]) -> None:
        self.leave(queue)
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(None)


HUB = web.AppKey("notify_hub", NotifyHub)


def routes() -> list[web.RouteDef]:
    return [web.get("/ws", notify)]


@operation(
    None,
    "Notify hub (WebSocket): `assetsChanged` events. Asks for the hub's own secret, in `X-Notify-Secret` or the query",
    tag="notify",
    replies={101: None},
    query={
        "pipeline": (str, "Whose changes, `kiosk` unless told; `all` or `*`: everybody's"),
        "clientId": (str, "A name for the log"),
        "secret": (str, "The secret, where a header cannot be sent"),
    },
    errors=(400, 401, 503),
)
async def notify(request: web.Request) -> web.StreamResponse:
    _check_secret(request)
    socket = web.WebSocketResponse(heartbeat=_HEARTBEAT_S, max_msg_size=4_096)
    await socket.prepare(request)
    hub = request.app[HUB]
    queue = hub.join(request.query.get("pipeline") or "kiosk")
    log.info("notify client joined", extra={"client": request.query.get("clientId", "")[:100]})
    telling = asyncio.create_task(_tell_all(socket, queue))
    try:
        # What a client says is not part of the protocol; reading answers its pings and sees its end.
        async for message in socket:
            if message.type is WSMsgType.ERROR:
                break
    finally:
        hub.leave(queue)
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
    return socket


async def _tell_all(socket: web.WebSocketResponse, queue: asyncio.Queue[bytes | None]) -> None:
    try:
        while (message := await queue.get()) is not None:
            async with asyncio.timeout(_SEND_S):
                await socket.send_str(message.decode())
    except TimeoutError:
        log.warning("a notify client takes no messages")
    await socket.close(code=1013, message=b"try again later")


def _check_secret(request: web.Request) -> None:
    parts = services(request)
    if parts.notify_open:
        return
    if parts.notify_secret is None:
        detail = f"The notify hub is off: set SWITCHROOM_NOTIFY_SECRET ({MIN_SECRET} characters or more)."
        raise Unavailable(detail, code="notify_off")
    given = request.headers.get("X-Notify-Secret") or request.query.get("secret", "")
    if not hmac.compare_digest(given.encode(errors="replace"), parts.notify_secret.encode()):
        raise Unauthorized("The notify hub needs its secret: send `X-Notify-Secret`.")
