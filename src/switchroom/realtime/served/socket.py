"""A served session over a WebSocket, as a leg of a call. The client plays the sound itself; here the same sound passes
in real time beside it, which is how the record knows what was heard and when."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

from aiohttp import WSMsgType, web

from switchroom.realtime.audio import FRAME_S, SILENCE, Framer, Samples
from switchroom.realtime.playout import Playout
from switchroom.realtime.served.clients import Clients
from switchroom.realtime.voice import Listener

log = logging.getLogger(__name__)

_OUT = 4_096
"""Events that may wait for a slow client: minutes of speech. One that is behind further is closed."""
_MIC_FRAMES = 3_000
"""A client may send a minute faster than it speaks; what is more is heard, but not recorded."""
_RESYNC_S = 0.2
_LAST_EVENTS_S = 2.0
_TRY_AGAIN = 1013
_CODES = {"timeout": 1001, "handed_back": 1001, "failed": 1011}
"""Of the close, by why the call ended: going away, internal error; else normal."""


class SocketClient:
    """One WebSocket: events out in order, events in held up while too much waits."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._out: asyncio.Queue[str | None] = asyncio.Queue(_OUT)
        self._code, self._reason = 1000, ""
        self._overflow = asyncio.Event()

    def send(self, text: str) -> None:
        try:
            self._out.put_nowait(text)
        except asyncio.QueueFull:
            self._overflow.set()

    def end(self, code: int, reason: str) -> None:
        """Close once everything is out."""
        self._code, self._reason = code, reason
        try:
            self._out.put_nowait(None)
        except asyncio.QueueFull:
            self._overflow.set()

    async def serve(self, socket: web.WebSocketResponse) -> None:
        """Until one side closes."""
        loop = asyncio.get_running_loop()
        works = [
            loop.create_task(self._read(socket), name="served-in"),
            loop.create_task(self._write(socket), name="served-out"),
            loop.create_task(self._overflow.wait(), name="served-overflow"),
        ]
        try:
            await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
            if self._overflow.is_set():
                log.warning("a client of a served session takes no events: closed")
                await socket.close(code=_TRY_AGAIN, message=b"events are not taken")
        finally:
            self._clients.leave(self)
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)

    async def _read(self, socket: web.WebSocketResponse) -> None:
        while True:
            message = await socket.receive()
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                return
            await self._clients.came(self, message.data)

    async def _write(self, socket: web.WebSocketResponse) -> None:
        while (text := await self._out.get()) is not None:
            await socket.send_str(text)
        await socket.close(code=self._code, message=self._reason.encode()[:120])


class SocketLeg(SocketClient):
    """See the module, and `voice.Transport`. It is connected once `serve` has a socket."""

    def __init__(self, clients: Clients) -> None:
        super().__init__(clients)
        self.connected = asyncio.Event()
        self.gone = asyncio.Event()
        self.gone_cause: Literal["", "hung_up", "dead", "failed"] = ""
        self._playout: Playout | None = None
        self._listener: Listener | None = None
        self._mic: deque[Samples] = deque()
        self._framer = Framer()
        self._closed = asyncio.Event()
        self.frames_dropped = 0
        self.played: Callable[[Samples], None] = lambda frame: None
        """Told each 20 ms of the agent's side, as it passes."""

    def start(self, playout: Playout, listener: Listener) -> None:
        playout.confirm_all()
        self._playout, self._listener = playout, listener

    def detach(self) -> None:
        self._playout = self._listener = None

    def send_event(self, event: dict[str, Any]) -> None:
        """Ours are not of this protocol; of them the client learns how it ended, by the close."""
        if event.get("type") == "ended":
            self._reason = str(event.get("detail") or event.get("reason") or "")
            self._code = _CODES.get(str(event.get("reason")), 1000)

    def take_mic(self, samples: Samples) -> None:
        """The caller's sound as it came in events, 48 kHz."""
        for frame in self._framer.feed(samples):
            if len(self._mic) < _MIC_FRAMES:
                self._mic.append(frame)
            else:
                self.frames_dropped += 1

    async def serve(self, socket: web.WebSocketResponse) -> None:
        pacing = asyncio.get_running_loop().create_task(self._pace(), name="served-pace")
        self.connected.set()
        try:
            await super().serve(socket)
        finally:
            self._leave("dead" if self._overflow.is_set() else "hung_up")
            pacing.cancel()
            await asyncio.gather(pacing, return_exceptions=True)
            self._closed.set()

    def refuse(self) -> None:
        """There will be no socket."""
        self._leave("failed")
        self._closed.set()

    async def close(self) -> None:
        if not self.connected.is_set():
            self.refuse()
            return
        self.end(self._code, self._reason)
        try:
            async with asyncio.timeout(_LAST_EVENTS_S):
                await self._closed.wait()
        except TimeoutError:
            self._overflow.set()

    def _leave(self, cause: Literal["hung_up", "dead", "failed"]) -> None:
        if not self.gone.is_set():
            self.gone_cause = cause
            self.gone.set()

    async def _pace(self) -> None:
        due = time.monotonic()
        while True:
            if self._playout is not None:
                self.played(self._playout.next_frame())
            if self._listener is not None:
                self._listener.on_frame(self._mic.popleft() if self._mic else SILENCE)
            due += FRAME_S
            now = time.monotonic()
            if now - due > _RESYNC_S:
                due = now
            await asyncio.sleep(max(0.0, due - now))
