"""The hearing half of the local engine: frames of the caller in, utterances with their text out.

The last decode starts on the first short silence already; when the caller really has stopped, its text is mostly
there. CPU work runs in threads; the loop only hands pieces over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import msgspec
import numpy as np

from switchroom.realtime.audio import Decimator, Samples
from switchroom.realtime.settings import MediaSettings
from switchroom.realtime.stt import Recogniser
from switchroom.realtime.tts import Voice, load_voice
from switchroom.realtime.vad import VAD_RATE, WINDOW_MS, Cue, Endpointer, Floats, SileroModel, VoiceDetector

log = logging.getLogger(__name__)

_PREROLL_WINDOWS = 10
_MAX_UTTERANCE_S = 30
_BACKLOG_FRAMES = 250
_MIN_VOICED_WINDOWS = 5
"""Less voice than this (160 ms) is no word: the recogniser, asked, would make one up ("You")."""


class SpeechParts:
    """What all calls of a process share: models, and the threads they run in."""

    def __init__(self, silero: SileroModel, recogniser: Recogniser, voice: Voice, pool: ThreadPoolExecutor) -> None:
        self.silero = silero
        self.recogniser = recogniser
        self.voice = voice
        self.pool = pool

    @classmethod
    async def load(cls, settings: MediaSettings) -> SpeechParts:
        """Loads and warms everything. Raises `Unavailable` with what to install."""
        from switchroom.realtime import models

        silero = await asyncio.to_thread(lambda: SileroModel(models.locate(models.SILERO)))
        recogniser = await Recogniser.load()
        await recogniser.transcribe(np.zeros(VAD_RATE, dtype=np.float32))
        voice = await load_voice(timeout_s=settings.clause_timeout_s)
        return cls(silero, recogniser, voice, ThreadPoolExecutor(settings.speech_threads, thread_name_prefix="speech"))

    async def close(self) -> None:
        await self.voice.close()
        await asyncio.to_thread(self.recogniser.close)
        self.pool.shutdown(wait=False, cancel_futures=True)


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """One utterance. Times are monotonic seconds. `text` is empty when there were no words in it."""

    text: str
    started: float
    ended: float
    """When the last voiced window arrived: latencies count from here."""
    endpoint: float
    """When it was decided that the caller stopped."""
    decoded: float


class Listener(Protocol):
    """Who is told. All are called on the loop."""

    def speech_started(self) -> None: ...
    def speech_ended(self) -> None: ...
    def partial(self, text: str, started: float) -> None: ...
    def heard(self, utterance: Heard) -> None: ...


class Ears:
    def __init__(self, parts: SpeechParts, settings: MediaSettings, listener: Listener) -> None:
        self._parts = parts
        self._listener = listener
        self._frames: asyncio.Queue[tuple[float, Samples]] = asyncio.Queue(_BACKLOG_FRAMES)
        self._decimator = Decimator(VAD_RATE)
        self._detector = VoiceDetector(parts.silero)
        self._endpointer = Endpointer(hangover_ms=settings.hangover_ms, speculative_ms=settings.speculative_ms)
        self._preroll: deque[Floats] = deque(maxlen=_PREROLL_WINDOWS)
        self._windows: list[Floats] = []
        self._started = 0.0
        self._voiced = 0
        self._ahead: asyncio.Task[str] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.frames_dropped = 0

    @property
    def caller_speaking(self) -> bool:
        return self._endpointer.speaking

    def feed(self, frame: Samples) -> None:
        try:
            self._frames.put_nowait((time.monotonic(), frame))
        except asyncio.QueueFull:
            self.frames_dropped += 1

    async def run(self) -> None:
        """Listen until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                arrived, frame = await self._frames.get()
                frames = [frame]
                # After a stall: all that waits goes in one hop.
                while not self._frames.empty():
                    arrived, frame = self._frames.get_nowait()
                    frames.append(frame)
                for window, probability in await loop.run_in_executor(self._parts.pool, self._detect, frames):
                    self._window(window, probability, arrived)
        finally:
            for task in (*self._tasks, *([self._ahead] if self._ahead else [])):
                task.cancel()

    def _detect(self, frames: list[Samples]) -> list[tuple[Floats, float]]:
        piece = frames[0] if len(frames) == 1 else np.concatenate(frames)
        return self._detector.feed(self._decimator.feed(piece))

    def _window(self, window: Floats, probability: float, arrived: float) -> None:
        cue = self._endpointer.step(probability)
        if not self._endpointer.speaking and cue is not Cue.ENDED:
            self._preroll.append(window)
            return
        if cue is Cue.STARTED:
            self._windows = [*self._preroll, window]
            self._preroll.clear()
            self._voiced = self._endpointer.onset_windows
            self._started = arrived - (_PREROLL_WINDOWS // 3) * WINDOW_MS / 1000
            self._listener.speech_started()
            return
        self._windows.append(window)
        self._voiced += probability >= self._endpointer.keep_threshold
        if cue is Cue.PAUSED:
            self._decode_ahead()
        elif cue is Cue.RESUMED:
            self._ahead = None
        elif cue is Cue.ENDED:
            self._end(arrived)
        elif len(self._windows) * WINDOW_MS > _MAX_UTTERANCE_S * 1000:
            log.info("an utterance was cut at its longest", extra={"seconds": _MAX_UTTERANCE_S})
            self._ahead = None
            self._end(arrived)

    def _decode_ahead(self) -> None:
        if self._voiced < _MIN_VOICED_WINDOWS:
            return
        started = self._started
        task = asyncio.get_running_loop().create_task(
            self._parts.recogniser.transcribe(np.concatenate(self._windows)), name="decode-ahead"
        )
        self._ahead = task

        def done(finished: asyncio.Task[str]) -> None:
            if finished.cancelled() or finished.exception() is not None:
                return  # the final decode tells
            if self._ahead is finished and finished.result():
                self._listener.partial(finished.result(), started)

        task.add_done_callback(done)

    def _end(self, arrived: float) -> None:
        self._listener.speech_ended()
        silence_s = self._hangover_windows() * WINDOW_MS / 1000
        ahead, self._ahead = self._ahead, None
        audio, self._windows = np.concatenate(self._windows), []
        if self._voiced < _MIN_VOICED_WINDOWS:
            ended = arrived - silence_s
            self._listener.heard(Heard(text="", started=self._started, ended=ended, endpoint=arrived, decoded=arrived))
            return
        task = asyncio.get_running_loop().create_task(
            self._finish(ahead, audio, self._started, arrived - silence_s, arrived), name="decode"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _hangover_windows(self) -> int:
        return self._endpointer.hangover_windows if not self._endpointer.speaking else 0

    async def _finish(
        self, ahead: asyncio.Task[str] | None, audio: Floats, started: float, ended: float, endpoint: float
    ) -> None:
        try:
            text = await (ahead if ahead is not None else self._parts.recogniser.transcribe(audio))
        except Exception:
            log.exception("an utterance could not be decoded")
            text = ""
        self._listener.heard(
            Heard(text=text, started=started, ended=ended, endpoint=endpoint, decoded=time.monotonic())
        )
