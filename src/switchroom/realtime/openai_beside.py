"""A call whose caller talks with a Realtime service directly, from a browser over WebRTC: we hold no sound, and steer
the session from beside, over a second WebSocket that names the call (`?call_id=`).

The service tells when its sound begins, ends, and is cut; in between, what was heard is reckoned by the length of the
words. It interrupts its answer by itself as soon as it hears the caller, a cough too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Literal
from urllib.parse import quote, urlsplit, urlunsplit

import aiohttp
import numpy as np

from switchroom.engine.responder import Responder
from switchroom.engine.session import Session
from switchroom.realtime import openai_wire as wire
from switchroom.realtime.audio import FRAME_S, RATE, Samples
from switchroom.realtime.openai import OpenAiEngine
from switchroom.realtime.openai_link import Link, Listener
from switchroom.realtime.openai_mouth import Mouth
from switchroom.realtime.openai_wire import ServerEvent
from switchroom.realtime.playout import Playout
from switchroom.realtime.settings import MediaSettings
from switchroom.realtime.speaker import RunTurn
from switchroom.realtime.voice import Concluded, Emit
from switchroom.realtime.voice import Listener as LegListener

log = logging.getLogger(__name__)

_CHARS_A_SECOND = 15
_UNTOLD_S = 4.0
"""So long after the words must have been said the service has to tell that they were; else they count as heard."""
_HANG_UP_S = 3.0
_GONE = "model_not_found"
"""What the link makes of a 404: here, that the service knows no such call any more."""


class _BesideLink(Link):
    """The second WebSocket. Its session outlives it: a connection that was lost finds everything as it was."""

    _is_greeted = False

    def __init__(self, settings: MediaSettings, listener: Listener, call_id: str, sound: Callable[[ServerEvent], None]):
        super().__init__(settings, listener)
        self._call_id = call_id
        self._sound = sound
        self._configured = False

    def hear(self, frame: Samples) -> None:
        """The service hears the caller itself."""

    def cut(self, item_id: str, heard_ms: int, session: int) -> None:
        """The service knows what it played, and forgets the rest by itself."""
        if self._up.is_set():
            self._send(wire.clear_output())

    def _where(self) -> dict[str, str]:
        return {"call_id": self._call_id}

    def _open(self) -> None:
        self._out = asyncio.Queue(self._out.maxsize)
        self.session = 1
        if not self._configured:
            self._configured = True
            settings = self._settings
            opening = wire.session_beside(
                instructions=self._instructions,
                tools=self._tools,
                transcriber=settings.openai_transcriber,
                hangover_ms=settings.hangover_ms,
            )
        else:
            opening = wire.session_node(instructions=self._instructions, tools=self._tools)
        self._send(opening)
        self._up.set()

    def _take(self, event: ServerEvent) -> None:
        if event.type.startswith("output_audio_buffer.") or event.type == "conversation.item.truncated":
            self._sound(event)
        else:
            super()._take(event)


class _BesideMouth(Mouth):
    """Words whose sound goes another way: silence of their length takes its place."""

    def words(self, item_id: str, session: int, text: str) -> None:
        super().words(item_id, session, text)
        self._play(self._item(item_id, session), np.zeros(RATE * len(text) // _CHARS_A_SECOND, dtype=np.int16))

    def heard_until(self, item_id: str, heard_ms: int) -> None:
        """The service says how much of an item the caller heard."""
        for item in self._items:
            if item.id == item_id:
                item.left = min(item.came, heard_ms * RATE // 1000)


class BesideEngine(OpenAiEngine):
    """The conversation of such a call: the same graph, responder and turn taking as with sound of our own."""

    def __init__(
        self, bind: Callable[[Responder], RunTurn], session: Session, settings: MediaSettings, call_id: str
    ) -> None:
        self._call_id = call_id
        super().__init__(bind, session, settings)

    def _make_link(self, settings: MediaSettings) -> Link:
        return _BesideLink(settings, self, self._call_id, self._sound)

    def _make_mouth(self) -> Mouth:
        return _BesideMouth(self._link, self._words_leave, self._audio_came)

    async def run(self, playout: Playout, emit: Emit) -> Concluded:
        try:
            concluded = await super().run(playout, emit)
        finally:
            playout.confirm_all()
        if concluded.cause == "failed" and self._link.refused == _GONE:
            return Concluded(cause="finished", detail="the caller hung up")
        return concluded

    def _sound(self, event: ServerEvent) -> None:
        """What the service tells of the sound."""
        playout, mouth = self._playout, self._mouth
        if playout is None or not isinstance(mouth, _BesideMouth):
            return
        match event.type:
            case "output_audio_buffer.stopped":
                played_out(playout)
            case "conversation.item.truncated":
                mouth.heard_until(event.item_id, event.audio_end_ms)
            case "output_audio_buffer.cleared":
                playout.clear()
            case _:
                pass


def played_out(playout: Playout) -> None:
    """All that waits was heard."""
    while playout.waiting:
        playout.next_frame()
    playout.confirm(playout.frames)


class BesideLeg:
    """See `voice.Transport`: a leg that carries nothing. Closing it hangs up at the service."""

    def __init__(self, settings: MediaSettings, call_id: str) -> None:
        self._settings = settings
        self._call_id = call_id
        self._playout: Playout | None = None
        self._closed = False
        self.connected = asyncio.Event()
        self.gone = asyncio.Event()
        self.gone_cause: Literal["", "hung_up", "dead", "failed"] = ""
        self.connected.set()
        self._clock = asyncio.get_running_loop().create_task(self._run(), name="beside-clock")

    def start(self, playout: Playout, listener: LegListener) -> None:
        playout.confirm_all()
        playout.confirmed_by_leg = True
        self._playout = playout

    def detach(self) -> None:
        self._playout = None

    def send_event(self, event: dict[str, Any]) -> None:
        """The caller's client listens to the service, not to us."""

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._clock.cancel()
        await asyncio.gather(self._clock, return_exceptions=True)
        await self._hang_up()
        if not self.gone.is_set():
            self.gone_cause = "hung_up"
            self.gone.set()

    async def _run(self) -> None:
        """Lets the words pass in real time."""
        quiet_since = time.monotonic()
        while True:
            await asyncio.sleep(FRAME_S)
            playout = self._playout
            if playout is None:
                continue
            playout.next_frame()
            if playout.waiting or not playout.unconfirmed:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > _UNTOLD_S:
                log.warning("the voice service does not say when its words were heard")
                playout.confirm(playout.frames)

    async def _hang_up(self) -> None:
        settings = self._settings
        scheme, host, path, _, _ = urlsplit(settings.openai_url)
        target = f"{path.rstrip('/')}/calls/{quote(self._call_id, safe='')}/hangup"
        url = urlunsplit((scheme.replace("ws", "http", 1), host, target, "", ""))
        headers = {}
        if settings.openai_api_key is not None:
            headers["Authorization"] = f"Bearer {settings.openai_api_key.get_secret_value()}"
        try:
            timeout = aiohttp.ClientTimeout(total=_HANG_UP_S)
            async with aiohttp.ClientSession(timeout=timeout) as http, http.post(url, headers=headers) as reply:
                if reply.status not in (200, 404):  # 404: the caller was first
                    log.warning("the voice service did not hang up", extra={"status": reply.status})
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.warning("the voice service could not be told to hang up", extra={"error": type(error).__name__})
