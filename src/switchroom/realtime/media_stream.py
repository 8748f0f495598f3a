"""A telephone leg: a provider's Media Streams, JSON over a WebSocket, G.711 µ-law at 8 kHz both ways.

Frames of the provider: `connected`, `start`, `media`, `dtmf`, `mark`, `stop`. Ours: `media`, `mark`, `clear`.
(Protocol: Twilio, "Media Streams - WebSocket Messages", bidirectional streams; others speak it too.)

The provider buffers what it is sent. So audio goes out in real time, two frames ahead of the clock; a mark after every
fifth frame of speech comes back when it was played, which is how much the caller has heard; `clear` empties the buffer
when the caller interrupts.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Literal, Protocol

import msgspec
from aiohttp import WSMsgType

from switchroom.errors import BadInput, TimedOut
from switchroom.realtime.audio import FRAME_S, SILENCE, Decimator, Framer, Interpolator
from switchroom.realtime.g711 import G711_RATE, decode, encode
from switchroom.realtime.playout import Playout
from switchroom.realtime.settings import MediaSettings
from switchroom.realtime.voice import DTMF_KEYS, Listener

log = logging.getLogger(__name__)

_START_S = 10.0
_LEAD_FRAMES = 2
_RESYNC_S = 0.2
_MARK_EVERY = 5
_MARK_LOST_S = 3.0
"""A mark that is not back by then never comes: from now on what left counts as heard."""
_MAX_FRAME = 64 * 1024


class Socket(Protocol):
    """What the leg needs of a WebSocket (aiohttp's, on either side)."""

    async def receive(self, timeout: float | None = None) -> Any: ...
    async def send_str(self, data: str) -> None: ...
    async def close(self, *, code: int = 1000, message: bytes = b"") -> Any: ...


class MediaFormat(msgspec.Struct, rename="camel"):
    """What the provider sends: only `audio/x-mulaw` at 8000 Hz, one channel, is spoken here."""

    encoding: str = "audio/x-mulaw"
    sample_rate: int = G711_RATE
    channels: int = 1


class Started(msgspec.Struct, rename="camel"):
    """The `start` of a stream: who calls, and the parameters of the TwiML's `<Stream>`."""

    stream_sid: str
    call_sid: str = ""
    account_sid: str = ""
    media_format: MediaFormat = msgspec.field(default_factory=MediaFormat)
    custom_parameters: dict[str, str] = {}


class _Media(msgspec.Struct):
    payload: str
    track: str = "inbound"


class _Key(msgspec.Struct):
    digit: str


class _Mark(msgspec.Struct):
    name: str


class _Frame(msgspec.Struct):
    event: str
    start: Started | None = None
    media: _Media | None = None
    dtmf: _Key | None = None
    mark: _Mark | None = None


_decode = msgspec.json.Decoder(_Frame).decode
_encode = msgspec.json.Encoder().encode


async def started(socket: Socket) -> Started:
    """The stream's `start`, within 10 s of its opening. Raises `BadInput` for what is no Media Stream or another
    codec, `TimedOut` when nothing comes."""
    try:
        async with asyncio.timeout(_START_S):
            while True:
                message = await socket.receive()
                if message.type is not WSMsgType.TEXT:
                    raise BadInput("the socket closed before its `start` frame", code="no_start")
                frame = _decode(message.data)
                if frame.event == "start" and frame.start is not None:
                    break
                if frame.event != "connected":
                    raise BadInput("a Media Stream begins with `connected` and `start`", code="no_start")
    except TimeoutError:
        raise TimedOut("no `start` frame came within 10 s", code="no_start") from None
    except msgspec.DecodeError as error:
        raise BadInput(f"this is no Media Stream: {error}", code="no_start") from error
    given = frame.start.media_format
    if (given.encoding, given.sample_rate, given.channels) != ("audio/x-mulaw", G711_RATE, 1):
        raise BadInput(
            f"audio/x-mulaw, 8000 Hz, one channel is spoken here, not {given.encoding}, {given.sample_rate} Hz, "
            f"{given.channels} channels",
            code="bad_media_format",
        )
    return frame.start


class MediaStreamLeg:
    """One telephone call. `run` reads the socket until the leg is over; `close` always. See `voice.Transport`."""

    def __init__(
        self,
        settings: MediaSettings,
        socket: Socket,
        stream: Started,
        on_transfer: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """`on_transfer` is told the number at which the caller is to go on, before the stream closes."""
        self._settings = settings
        self._on_transfer = on_transfer
        self._transfer: asyncio.Future[None] | None = None
        self._socket = socket
        self._sid = stream.stream_sid
        self._playout: Playout | None = None
        self._listener: Listener | None = None
        self._framer = Framer()
        self._up = Interpolator(G711_RATE)
        self._down = Decimator(G711_RATE)
        self._marks: deque[tuple[int, float]] = deque()
        """Marks that are not back: frame number, when they were sent."""
        self._marked = 0
        self._clearing = False
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False
        self._sign_of_life = time.monotonic()
        self.connected = asyncio.Event()
        self.connected.set()
        self.gone = asyncio.Event()
        self.gone_cause: Literal["", "hung_up", "dead", "failed"] = ""
        self.frames_received = 0
        self.frames_skipped = 0
        self.frames_broken = 0

    async def run(self) -> None:
        """Read until the provider stops the stream, the socket closes, or the line falls silent."""
        try:
            await self._read()
        finally:
            self._leave("hung_up" if self._closed else "dead")

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._send(), name="leg-send"),
            loop.create_task(self._watch(), name="leg-watch"),
        ]
        for task in self._tasks:
            task.add_done_callback(self._broke)
        while not self.gone.is_set():
            message = await self._socket.receive()
            if message.type is not WSMsgType.TEXT:
                if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
                    return
                continue
            self._sign_of_life = time.monotonic()
            try:
                if len(message.data) > _MAX_FRAME:
                    raise ValueError("too long")
                self._take(_decode(message.data))
            except (msgspec.DecodeError, ValueError):
                self.frames_broken += 1

    def start(self, playout: Playout, listener: Listener) -> None:
        playout.confirm_all()
        playout.confirmed_by_leg = True
        playout.on_clear = self._clear
        self._playout, self._listener = playout, listener

    def detach(self) -> None:
        self._playout = self._listener = None

    def send_event(self, event: dict[str, Any]) -> None:
        """A telephone has no side channel; where it is to go on is told to the provider."""
        if event.get("type") == "transfer" and self._on_transfer is not None:
            self._transfer = asyncio.ensure_future(self._on_transfer(str(event.get("number", ""))))

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._leave("hung_up")
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        others: list[asyncio.Future[None]] = [task for task in self._tasks if task is not current]
        if self._transfer is not None:
            others.append(self._transfer)
        for result in await asyncio.gather(*others, return_exceptions=True):
            if isinstance(result, Exception) and not isinstance(result, ConnectionError):
                log.warning("a telephone leg did not end as it should", exc_info=result)
        await self._socket.close()

    # --- from the provider ---------------------------------------------------------------------------------------

    def _take(self, frame: _Frame) -> None:
        if frame.media is not None and frame.event == "media":
            if frame.media.track == "inbound":
                self._hear(base64.b64decode(frame.media.payload, validate=True))
        elif frame.mark is not None and frame.event == "mark":
            self._played(frame.mark.name)
        elif frame.dtmf is not None and frame.event == "dtmf":
            if self._listener is not None and frame.dtmf.digit in DTMF_KEYS:
                self._listener.on_dtmf(frame.dtmf.digit)
        elif frame.event == "stop":
            self._leave("hung_up")

    def _hear(self, payload: bytes) -> None:
        for piece in self._framer.feed(self._up.feed(decode(payload, "ulaw"))):
            self.frames_received += 1
            if self._listener is not None:
                self._listener.on_frame(piece)

    def _played(self, name: str) -> None:
        if not name.isdecimal():
            return
        number = int(name)
        while self._marks and self._marks[0][0] <= number:
            self._marks.popleft()
        if self._playout is not None:
            self._playout.confirm(number)

    # --- to the provider -----------------------------------------------------------------------------------------

    async def _send(self) -> None:
        """One frame every 20 ms by the monotonic clock, a little ahead of it."""
        due = time.monotonic() - _LEAD_FRAMES * FRAME_S
        while True:
            now = time.monotonic()
            if self._clearing:
                self._clearing = False
                await self._socket.send_str(self._text("clear"))
                due = now - _LEAD_FRAMES * FRAME_S  # the lead is gone with what was cleared
            elif due > now:
                try:
                    async with asyncio.timeout(due - now):
                        await self._wake.wait()
                        self._wake.clear()
                except TimeoutError:
                    pass
                continue
            elif now - due > _RESYNC_S:
                late = int((now - due) / FRAME_S)
                self.frames_skipped += late
                due += late * FRAME_S
            due += FRAME_S
            playout = self._playout
            frame = playout.next_frame() if playout is not None else SILENCE
            payload = base64.b64encode(encode(self._down.feed(frame), "ulaw")).decode()
            await self._socket.send_str(self._text("media", media={"payload": payload}))
            if playout is not None and playout.confirmed_by_leg:
                await self._mark(playout)

    async def _mark(self, playout: Playout) -> None:
        """Ask to be told when what has left by now was played: every fifth frame, and after the last word."""
        if playout.unconfirmed > self._marked and (playout.frames >= self._marked + _MARK_EVERY or not playout.waiting):
            self._marked = playout.frames
            self._marks.append((playout.frames, time.monotonic()))
            await self._socket.send_str(self._text("mark", mark={"name": str(playout.frames)}))
        if self._marks and time.monotonic() - self._marks[0][1] > _MARK_LOST_S:
            log.warning("the provider sends no marks back: what was sent counts as heard")
            self._marks.clear()
            playout.confirmed_by_leg = False

    def _clear(self) -> None:
        self._clearing = True
        self._marks.clear()
        self._wake.set()

    def _text(self, event: str, **body: dict[str, str]) -> str:
        return _encode({"event": event, "streamSid": self._sid, **body}).decode()

    # --- its end -------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            left_s = self._sign_of_life + self._settings.dead_peer_s - time.monotonic()
            if left_s <= 0:
                break
            await asyncio.sleep(left_s)
        self._leave("dead")
        await self._socket.close(code=1001, message=b"no media came")

    def _broke(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not isinstance(error, ConnectionError | RuntimeError):
            log.error("a telephone leg broke", exc_info=error)
        self._leave("dead")

    def _leave(self, cause: Literal["hung_up", "dead"]) -> None:
        if not self.gone.is_set():
            self.gone_cause = cause
            self.gone.set()
