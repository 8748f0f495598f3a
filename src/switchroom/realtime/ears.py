"""The hearing half of the local engine: frames of the caller in, utterances with their text out.

The last decode starts on the first short silence already; when the caller really has stopped, its text is mostly
there. CPU work runs in threads; the loop only hands pieces over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import msgspec
import numpy as np

from switchroom.realtime.audio import Decimator, Samples
from switchroom.realtime.prompt_cache import CachedVoice
from switchroom.realtime.settings import MediaSettings
from switchroom.realtime.spare_voice import SpareVoice
from switchroom.realtime.stt import Recogniser, Spoken, SpokenWord
from switchroom.realtime.tts import FliteVoice, Voice, load_voice
from switchroom.realtime.turns.hangover import WINDOW_MS, Cue, Endpointer
from switchroom.realtime.vad import VAD_RATE, Floats, SileroModel, VoiceDetector
from switchroom.realtime.whisper import WhisperRecogniser

log = logging.getLogger(__name__)

_PREROLL_WINDOWS = 10
_MAX_UTTERANCE_S = 30
_BACKLOG_FRAMES = 250
_MIN_VOICED_WINDOWS = 5
"""Less voice than this (160 ms) is no word: the recogniser, asked, would make one up ("You")."""
_SILENCE_AFTER: Floats = np.zeros(7 * VAD_RATE * WINDOW_MS // 1000, dtype=np.float32)
"""Put behind words that were cut tight. Without a third of a second of silence after it, the recogniser takes half of
all whole sentences for the beginning of a longer one and writes a comma, after which more is waited for."""


class SpeechToText(Protocol):
    """What makes words of an utterance."""

    async def transcribe(self, audio: Floats) -> Spoken:
        """What is said in 16 kHz mono float audio (-1 to 1); no text when nothing was understood."""
        ...

    def close(self) -> None: ...


class SpeechParts:
    """What all calls of a process share: models, and the threads they run in."""

    def __init__(self, silero: SileroModel, recogniser: SpeechToText, voice: Voice, pool: ThreadPoolExecutor) -> None:
        self.silero = silero
        self.recogniser = recogniser
        self.voice = voice
        self.pool = pool

    @classmethod
    async def load(cls, settings: MediaSettings) -> SpeechParts:
        """Loads and warms everything. Raises `Unavailable` with what to install."""
        from switchroom.realtime import models

        silero = await asyncio.to_thread(lambda: SileroModel(models.locate(models.SILERO)))
        recogniser = (
            await WhisperRecogniser.load(
                settings.whisper_model,
                sha256=settings.whisper_sha256,
                language=settings.whisper_language,
                word_times=settings.whisper_word_times,
            )
            if settings.ears == "whisper"
            else await Recogniser.load()
        )
        await recogniser.transcribe(np.zeros(VAD_RATE, dtype=np.float32))
        voice = CachedVoice(await _voice(settings.clause_timeout_s))
        voice.warm(settings.prompts)
        return cls(silero, recogniser, voice, ThreadPoolExecutor(settings.speech_threads, thread_name_prefix="speech"))

    async def close(self) -> None:
        await self.voice.close()
        await asyncio.to_thread(self.recogniser.close)
        self.pool.shutdown(wait=False, cancel_futures=True)


async def _voice(timeout_s: float) -> Voice:
    """The best voice here, with Debian's small one behind it where both are."""
    from switchroom.realtime import models

    voice = await load_voice(timeout_s=timeout_s)
    program = await asyncio.to_thread(models.flite_program)
    if program is None or isinstance(voice, FliteVoice):
        return voice
    return SpareVoice(voice, await asyncio.to_thread(lambda: FliteVoice(program, timeout_s=timeout_s)))


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """One utterance. Times are monotonic seconds. `text` is empty when there were no words in it."""

    text: str
    started: float
    ended: float
    """When the last voiced window arrived: latencies count from here."""
    endpoint: float
    """When it was decided that the caller stopped."""
    decoded: float
    words: tuple[SpokenWord, ...] = ()
    """Where the recogniser tells them apart; `audio_from` is the moment that they count from."""
    audio_from: float = 0.0


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
        self._frames: asyncio.Queue[tuple[float, Samples | bool]] = asyncio.Queue(_BACKLOG_FRAMES)
        """With the time of arrival; True and False are the button, in order with the audio."""
        self._by_hand = settings.turn_end == "push_to_talk"
        self._down = False
        self._decimator = Decimator(VAD_RATE)
        self._detector = VoiceDetector(parts.silero)
        self._endpointer = Endpointer(hangover_ms=settings.hangover_ms, speculative_ms=settings.speculative_ms)
        self._preroll: deque[Floats] = deque(maxlen=_PREROLL_WINDOWS)
        self._windows: list[Floats] = []
        self._started = 0.0
        self._voiced = 0
        self._ahead: asyncio.Task[Spoken] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.frames_dropped = 0

    @property
    def backlog(self) -> int:
        """Frames that were fed and not heard yet."""
        return self._frames.qsize()

    def feed(self, frame: Samples) -> None:
        try:
            self._frames.put_nowait((time.monotonic(), frame))
        except asyncio.QueueFull:
            self.frames_dropped += 1

    def press(self) -> None:
        """With `turn_end` `push_to_talk`: an utterance begins."""
        self._button(True)

    def release(self) -> None:
        """It ends."""
        self._button(False)

    def _button(self, down: bool) -> None:
        try:
            self._frames.put_nowait((time.monotonic(), down))
        except asyncio.QueueFull:
            self.frames_dropped += 1

    async def run(self) -> None:
        """Listen until cancelled."""
        try:
            while True:
                arrived, item = await self._frames.get()
                frames: list[Samples] = []
                arrivals: list[float] = []
                # After a stall: all that waits goes in one hop.
                while not isinstance(item, bool):
                    frames.append(item)
                    arrivals.append(arrived)
                    if self._frames.empty():
                        break
                    arrived, item = self._frames.get_nowait()
                if frames:
                    await self._take(frames, arrivals)
                if isinstance(item, bool):
                    self._turn_button(item, arrived)
        finally:
            for task in (*self._tasks, *([self._ahead] if self._ahead else [])):
                task.cancel()

    async def _take(self, frames: list[Samples], arrivals: list[float]) -> None:
        windows = await asyncio.get_running_loop().run_in_executor(self._parts.pool, self._detect, frames)
        for number, (window, probability) in enumerate(windows, 1):
            # Each at its own time: words keep their place on the record, however late they are looked at.
            self._window(window, probability, arrivals[max(0, number * len(arrivals) // len(windows) - 1)])

    def _turn_button(self, down: bool, arrived: float) -> None:
        if down == self._down or not self._by_hand:
            return
        self._down = down
        if down:
            self._begin(self._preroll, 0, arrived)
        else:
            self._end(arrived, 0.0)

    def _begin(self, lead_in: Iterable[Floats], voiced: int, arrived: float) -> None:
        self._windows = list(lead_in)
        self._preroll.clear()
        self._voiced = voiced
        self._started = arrived - (_PREROLL_WINDOWS // 3) * WINDOW_MS / 1000
        self._listener.speech_started()

    def _detect(self, frames: list[Samples]) -> list[tuple[Floats, float]]:
        piece = frames[0] if len(frames) == 1 else np.concatenate(frames)
        return self._detector.feed(self._decimator.feed(piece))

    def _window(self, window: Floats, probability: float, arrived: float) -> None:
        if self._by_hand:
            self._window_by_hand(window, probability, arrived)
            return
        cue = self._endpointer.step(probability)
        if not self._endpointer.speaking and cue is not Cue.ENDED:
            self._preroll.append(window)
            return
        if cue is Cue.STARTED:
            self._begin((*self._preroll, window), self._endpointer.onset_windows, arrived)
            return
        self._windows.append(window)
        self._voiced += probability >= self._endpointer.keep_threshold
        if cue is Cue.PAUSED:
            self._decode_ahead()
        elif cue is Cue.RESUMED:
            self._forget_ahead()
        elif cue is Cue.ENDED:
            self._end(arrived, self._endpointer.hangover_windows * WINDOW_MS / 1000)
        elif self._too_long():
            self._forget_ahead()
            self._end(arrived, 0.0)

    def _window_by_hand(self, window: Floats, probability: float, arrived: float) -> None:
        if not self._down:
            self._preroll.append(window)
            return
        self._windows.append(window)
        self._voiced += probability >= self._endpointer.keep_threshold
        if self._too_long():
            self._down = False  # the button hangs
            self._end(arrived, 0.0)

    def _too_long(self) -> bool:
        if len(self._windows) * WINDOW_MS <= _MAX_UTTERANCE_S * 1000:
            return False
        log.info("an utterance was cut at its longest", extra={"seconds": _MAX_UTTERANCE_S})
        return True

    def _decode_ahead(self) -> None:
        if self._voiced < _MIN_VOICED_WINDOWS:
            return
        started = self._started
        task = asyncio.get_running_loop().create_task(
            self._parts.recogniser.transcribe(np.concatenate((*self._windows, _SILENCE_AFTER))), name="decode-ahead"
        )
        self._ahead = task

        def done(finished: asyncio.Task[Spoken]) -> None:
            if finished.cancelled() or finished.exception() is not None:
                return  # the final decode tells
            if self._ahead is finished and (text := finished.result().text):
                self._listener.partial(text, started)

        task.add_done_callback(done)

    def _forget_ahead(self) -> None:
        """The caller went on: a decode that has not begun must not keep the next one waiting."""
        if self._ahead is not None:
            self._ahead.cancel()
        self._ahead = None

    def _end(self, arrived: float, silence_s: float) -> None:
        self._listener.speech_ended()
        ahead, self._ahead = self._ahead, None
        windows, self._windows = self._windows, []
        if self._voiced < _MIN_VOICED_WINDOWS:
            ended = arrived - silence_s
            self._listener.heard(Heard(text="", started=self._started, ended=ended, endpoint=arrived, decoded=arrived))
            return
        began = arrived - len(windows) * WINDOW_MS / 1000
        audio = np.concatenate(windows if silence_s else (*windows, _SILENCE_AFTER))
        task = asyncio.get_running_loop().create_task(
            self._finish(ahead, audio, began, self._started, arrived - silence_s, arrived), name="decode"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish(
        self,
        ahead: asyncio.Task[Spoken] | None,
        audio: Floats,
        began: float,
        started: float,
        ended: float,
        endpoint: float,
    ) -> None:
        try:
            spoken = await (ahead if ahead is not None else self._parts.recogniser.transcribe(audio))
        except Exception:
            log.exception("an utterance could not be decoded")
            spoken = Spoken("")
        self._listener.heard(
            Heard(
                text=spoken.text,
                started=started,
                ended=ended,
                endpoint=endpoint,
                decoded=time.monotonic(),
                words=spoken.words,
                audio_from=began,
            )
        )
