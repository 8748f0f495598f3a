"""Voice activity: Silero's network on 32 ms windows, and the rule that makes utterances of its probabilities.

The network: https://github.com/snakers4/silero-vad (MIT), 16 kHz, 512 new samples preceded by the last 64, state
(2, 1, 128). 190 µs a window on one core.
"""

from __future__ import annotations

from enum import Enum, auto
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from switchroom.realtime.audio import Samples

VAD_RATE = 16_000
WINDOW = 512
WINDOW_MS = 32
_CONTEXT = 64
Floats = NDArray[np.float32]


class SileroModel:
    """The network, shared by all calls of a process (onnxruntime sessions may be used by several threads)."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.inter_op_num_threads = 1
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(self, window: Floats, state: Any) -> tuple[float, Any]:
        out, state = self._session.run(
            None, {"input": window, "state": state, "sr": np.array(VAD_RATE, dtype=np.int64)}
        )
        return float(out[0, 0]), state


class VoiceDetector:
    """One caller's detector: keeps the network's state and the samples that do not fill a window yet."""

    def __init__(self, model: SileroModel) -> None:
        self._model = model
        self._state: Any = np.zeros((2, 1, 128), dtype=np.float32)
        self._context: Floats = np.zeros(_CONTEXT, dtype=np.float32)
        self._rest: Floats = np.zeros(0, dtype=np.float32)

    def feed(self, samples: Samples) -> list[tuple[Floats, float]]:
        """16 kHz PCM in, whole windows with their speech probability out. CPU work: call it in a thread."""
        fresh: Floats = samples.astype(np.float32) / np.float32(32768.0)
        joined: Floats = np.concatenate((self._rest, fresh))
        windows: list[tuple[Floats, float]] = []
        whole = joined.size // WINDOW
        for i in range(whole):
            window = joined[i * WINDOW : (i + 1) * WINDOW]
            probability, self._state = self._model.run(
                np.concatenate((self._context, window)).reshape(1, -1), self._state
            )
            self._context = window[-_CONTEXT:]
            windows.append((window, probability))
        self._rest = joined[whole * WINDOW :]
        return windows


class Cue(Enum):
    """What a window meant for the conversation."""

    NONE = auto()
    STARTED = auto()
    """The caller speaks: enough voiced windows in a row."""
    PAUSED = auto()
    """A short silence: a good moment to decode ahead."""
    RESUMED = auto()
    """It was only a pause."""
    ENDED = auto()
    """The utterance is over."""


class Endpointer:
    """Turns probabilities into utterances: onset, pause, hangover. Pure: no clock, no I/O.

    `onset_ms` of voice starts an utterance, so that a click does not; `speculative_ms` of silence is a pause,
    `hangover_ms` of silence ends it. The threshold to go on speaking is lower than the one to start (Silero's own
    advice: 0.15 less).
    """

    def __init__(
        self, *, hangover_ms: int = 320, speculative_ms: int = 96, onset_ms: int = 96, threshold: float = 0.5
    ) -> None:
        self.hangover_windows = max(1, round(hangover_ms / WINDOW_MS))
        self._pause = max(1, round(speculative_ms / WINDOW_MS))
        self.onset_windows = max(1, round(onset_ms / WINDOW_MS))
        self._threshold = threshold
        self.keep_threshold = threshold - 0.15
        self._voiced = 0
        self._silent = 0
        self.speaking = False

    def step(self, probability: float) -> Cue:
        voiced = probability >= (self.keep_threshold if self.speaking else self._threshold)
        if not self.speaking:
            self._voiced = self._voiced + 1 if voiced else 0
            if self._voiced < self.onset_windows:
                return Cue.NONE
            self.speaking = True
            self._voiced = 0
            self._silent = 0
            return Cue.STARTED
        if voiced:
            paused = self._silent >= self._pause
            self._silent = 0
            return Cue.RESUMED if paused else Cue.NONE
        self._silent += 1
        if self._silent >= self.hangover_windows:
            self.speaking = False
            self._silent = 0
            return Cue.ENDED
        return Cue.PAUSED if self._silent == self._pause else Cue.NONE
