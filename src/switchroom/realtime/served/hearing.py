"""The input audio buffer of a served session, and the utterances that voice detection finds in it.

Everything counts by the samples that came, not by the clock: a client may send faster than it speaks. Places are
milliseconds of the session's input audio.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

import numpy as np

from switchroom.realtime.audio import Decimator, Samples
from switchroom.realtime.ears import SpeechParts
from switchroom.realtime.served.config import TurnDetection
from switchroom.realtime.served.protocol import new_id
from switchroom.realtime.turns.hangover import WINDOW_MS, Cue, Endpointer
from switchroom.realtime.turns.transcript import hangs
from switchroom.realtime.vad import VAD_RATE, WINDOW, Floats, VoiceDetector

MIN_COMMIT_MS = 100
_MAX_UTTERANCE_S = 30
_MAX_BUFFER_S = 15 * 60
_PIECE_S = 25
_MIN_VOICED = 5
"""Fewer voiced windows (160 ms) are no word: the recogniser, asked, would make one up."""
_HANGOVER_MS = {"low": 640, "medium": 448, "auto": 448, "high": 320}
"""Semantic turn detection: the silence after which it is asked whether the words are complete, by eagerness."""
_PATIENCE_MS = {"low": 4000, "medium": 2000, "auto": 2000, "high": 1000}
"""How much longer words that hang in the air may wait for their end."""


class Utterance:
    """What was committed. Times are monotonic seconds."""

    def __init__(
        self, item_id: str, windows: list[Floats], voiced: int, *, started_at: float, silence_s: float = 0.0
    ) -> None:
        self.item_id = item_id
        self.audio: Floats = np.concatenate(windows) if windows else np.zeros(0, dtype=np.float32)
        self.voiced = voiced
        self.started_at = started_at
        self.endpoint_at = time.monotonic()
        self.ended_at = max(started_at, self.endpoint_at - silence_s)
        """A client that sends faster than it speaks has no silence of its own."""
        self.ahead: asyncio.Task[str] | None = None
        """The decode that was begun at the first pause."""

    @property
    def seconds(self) -> float:
        return self.audio.size / VAD_RATE

    def samples(self) -> Samples:
        """16 kHz PCM."""
        out: Samples = np.clip(self.audio * 32767, -32768, 32767).astype(np.int16)
        return out


class Hearer(Protocol):
    """Who is told."""

    def speech_started(self, item_id: str, audio_start_ms: int) -> None: ...
    def speech_stopped(self, item_id: str, audio_end_ms: int) -> None: ...
    def uttered(self, utterance: Utterance) -> None: ...


class Hearing:
    """One session's input. `detection` None: the client commits by hand."""

    def __init__(self, parts: SpeechParts, hearer: Hearer, detection: TurnDetection | None) -> None:
        self._parts = parts
        self._hearer = hearer
        self._decimator = Decimator(VAD_RATE)
        self._detector = VoiceDetector(parts.silero)
        self._windows: list[Floats] = []
        self._voiced = 0
        self._preroll: deque[Floats] = deque(maxlen=1)
        self._heard_windows = 0
        self._item_id = ""
        self._started_at = 0.0
        self._ahead: asyncio.Task[str] | None = None
        self._held_until_ms = 0
        """Words hang in the air: until this place they may go on as the same utterance; 0 where none do."""
        self._detection: TurnDetection | None = None
        self._endpointer = Endpointer()
        self.detect(detection)

    @property
    def now_ms(self) -> int:
        """The end of the audio so far."""
        return self._heard_windows * WINDOW_MS

    @property
    def speaking(self) -> bool:
        return self._detection is not None and (self._endpointer.speaking or self._held_until_ms > 0)

    @property
    def buffered_ms(self) -> int:
        return (len(self._windows) or len(self._preroll)) * WINDOW_MS

    def detect(self, detection: TurnDetection | None) -> None:
        """Another way to find turns from now on; an utterance under way is forgotten when it changes."""
        if detection == self._detection and self._heard_windows:
            return
        self._detection = detection
        self.clear()
        if detection is None:
            return
        semantic = detection.type == "semantic_vad"
        self._preroll = deque(maxlen=max(1, -(-detection.prefix_padding_ms // WINDOW_MS)))
        self._endpointer = Endpointer(
            hangover_ms=_HANGOVER_MS[detection.eagerness] if semantic else detection.silence_duration_ms,
            threshold=max(0.2, detection.threshold),
        )

    def clear(self) -> None:
        """Forget what is in the buffer."""
        self._windows.clear()
        self._preroll.clear()
        self._voiced = 0
        self._item_id = ""
        self._endpointer.speaking = False
        self._held_until_ms = 0
        self._drop_ahead()

    async def feed(self, samples: Samples) -> None:
        """48 kHz of the caller, of any length."""
        loop = asyncio.get_running_loop()
        for window, probability in await loop.run_in_executor(self._parts.pool, self._detect, samples):
            self._heard_windows += 1
            if self._detection is None:
                self._started_at = self._started_at if self._windows else time.monotonic()
                self._windows.append(window)
                self._voiced += probability >= 0.5
                if len(self._windows) * WINDOW_MS > _MAX_BUFFER_S * 1000:
                    self._windows.pop(0)
            else:
                await self._window(window, probability)

    def _detect(self, samples: Samples) -> list[tuple[Floats, float]]:
        return self._detector.feed(self._decimator.feed(samples))

    async def _window(self, window: Floats, probability: float) -> None:
        cue = self._endpointer.step(probability)
        if self._held_until_ms:
            self._windows.append(window)
            if cue is Cue.STARTED:  # the sentence goes on
                self._held_until_ms = 0
                self._voiced += self._endpointer.onset_windows
                self._drop_ahead()
            elif self.now_ms >= self._held_until_ms:
                self._stop()
            return
        if cue is Cue.STARTED:
            onset = self._endpointer.onset_windows
            self._windows = [*self._preroll, window]
            self._preroll.clear()
            self._voiced = onset
            self._item_id = new_id("item")
            self._started_at = time.monotonic() - onset * WINDOW_MS / 1000
            self._hearer.speech_started(self._item_id, max(0, self.now_ms - len(self._windows) * WINDOW_MS))
            return
        if not self._endpointer.speaking and cue is not Cue.ENDED:
            self._preroll.append(window)
            return
        self._windows.append(window)
        self._voiced += probability >= self._endpointer.keep_threshold
        if cue is Cue.PAUSED and self._voiced >= _MIN_VOICED:
            self._drop_ahead()
            self._ahead = asyncio.get_running_loop().create_task(self._decode(np.concatenate(self._windows)))
        elif cue is Cue.RESUMED:
            self._drop_ahead()
        elif cue is Cue.ENDED and await self._hangs():
            assert self._detection is not None
            self._held_until_ms = self.now_ms + _PATIENCE_MS[self._detection.eagerness]
        elif cue is Cue.ENDED or len(self._windows) * WINDOW_MS > _MAX_UTTERANCE_S * 1000:
            self._stop()

    async def _hangs(self) -> bool:
        """Whether more must follow what was said, where the session listens to that."""
        if self._detection is None or self._detection.type != "semantic_vad" or self._ahead is None:
            return False
        return hangs(await self._ahead)

    def _stop(self) -> None:
        """The utterance is over."""
        silence_s = 0.0 if self._endpointer.speaking else self._endpointer.hangover_windows * WINDOW_MS / 1000
        self._endpointer.speaking = False
        self._held_until_ms = 0
        self._hearer.speech_stopped(self._item_id, self.now_ms)
        self._hearer.uttered(self._take(silence_s))

    def commit(self) -> Utterance | None:
        """What is in the buffer, by the client's wish; None when it is too little."""
        if self.buffered_ms < MIN_COMMIT_MS:
            return None
        if not self._windows:
            self._windows = list(self._preroll)
            self._preroll.clear()
            self._voiced = _MIN_VOICED  # the client says that there is something
            self._started_at = time.monotonic() - self.buffered_ms / 1000
        self._endpointer.speaking = False
        self._held_until_ms = 0
        return self._take(0.0)

    def _take(self, silence_s: float) -> Utterance:
        utterance = Utterance(
            self._item_id or new_id("item"),
            self._windows,
            self._voiced,
            started_at=self._started_at,
            silence_s=silence_s,
        )
        utterance.ahead, self._ahead = self._ahead, None
        self._windows = []
        self._voiced = 0
        self._item_id = ""
        return utterance

    def _drop_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead.cancel()
            self._ahead = None

    async def words(self, utterance: Utterance) -> str:
        """The words of an utterance; "" for a noise."""
        if utterance.voiced < _MIN_VOICED:
            return ""
        if utterance.ahead is not None:
            return await utterance.ahead
        return await self._decode(utterance.audio)

    def words_of(self, samples: Callable[[], Samples]) -> asyncio.Future[str]:
        """The words of a piece of sound (48 kHz, made in a thread) that is not in the buffer."""

        async def decode() -> str:
            lower = await asyncio.to_thread(lambda: Decimator(VAD_RATE).feed(samples()))
            return await self._decode(lower.astype(np.float32) / np.float32(32768.0))

        return asyncio.get_running_loop().create_task(decode(), name="item-words")

    async def _decode(self, audio: Floats) -> str:
        step = _PIECE_S * VAD_RATE
        pieces = [audio[at : at + step] for at in range(0, audio.size, step)]
        texts = [(await self._parts.recogniser.transcribe(piece)).text for piece in pieces]
        return " ".join(text for text in texts if text).strip()


assert WINDOW * 1000 == WINDOW_MS * VAD_RATE
