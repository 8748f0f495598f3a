"""What a caller hears who waits for a line: a tone or the operator's own audio, and now and then the place in line."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import numpy as np

from switchroom.errors import SwitchroomError
from switchroom.realtime.audio import FRAME, RATE, Samples
from switchroom.realtime.playout import Playout
from switchroom.realtime.talk_settings import TalkSettings
from switchroom.realtime.tts import Voice

log = logging.getLogger(__name__)

_AT_LEAST_S = 8.0
"""Between two announcements, however fast the line moves."""


class HoldLine:
    """One waiting caller's. Without a voice (none is installed here) only the background sounds."""

    def __init__(
        self, playout: Playout, voice: Voice | None, settings: TalkSettings, background: Samples | None = None
    ) -> None:
        self._playout = playout
        self._voice = voice
        self._settings = settings
        self._told_place = 0
        self._told_at: float | None = None
        self._telling: asyncio.Task[None] | None = None
        playout.hold(looped(hold_tone() if background is None else background))

    def place(self, place: int) -> None:
        """The caller's place now, from 1; 0 is unknown. Called again and again while the caller waits."""
        if place < 1 or self._voice is None or (self._telling is not None and not self._telling.done()):
            return
        now = time.monotonic()
        if self._told_at is not None:
            due_s = _AT_LEAST_S if place < self._told_place else self._settings.hold_every_s
            if now - self._told_at < due_s:
                return
        self._told_place, self._told_at = place, now
        text = self._settings.hold_next_text if place == 1 else self._settings.hold_text.replace("{place}", str(place))
        if text:
            self._telling = asyncio.get_running_loop().create_task(self._tell(self._voice, text), name="hold-place")

    async def _tell(self, voice: Voice, text: str) -> None:
        generation = self._playout.generation
        try:
            samples = await voice.say(text)
        except SwitchroomError as error:
            log.warning("a place in line could not be said", extra={"error": error.detail})
            return
        self._playout.say(samples, "", generation=generation)

    async def stop(self) -> None:
        """A line is free: silence, and nothing of this is heard any more."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)
        self._playout.hold(None)
        self._playout.clear()
        self._playout.take_heard()


def hold_tone() -> Samples:
    """A soft double beep every four seconds."""
    beep = (np.sin(2 * np.pi * 440 / RATE * np.arange(RATE // 5)) * 1600).astype(np.int16)
    loop: Samples = np.zeros(RATE * 4, dtype=np.int16)
    loop[: beep.size] = beep
    loop[beep.size * 2 : beep.size * 3] = beep
    return loop


def looped(audio: Samples) -> Callable[[], Samples]:
    """Frame after frame of it, for ever; the end is filled up to a whole frame."""
    whole: Samples = np.concatenate((audio, np.zeros(-audio.size % FRAME, dtype=np.int16)))
    position = 0

    def frame() -> Samples:
        nonlocal position
        piece = whole[position : position + FRAME]
        position = (position + FRAME) % whole.size
        return piece

    return frame
