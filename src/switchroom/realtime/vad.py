"""Voice activity: Silero's network on 32 ms windows. What makes utterances of it: `turns/hangover.py`.

The network: https://github.com/snakers4/silero-vad (MIT), 16 kHz, 512 new samples preceded by the last 64, state
(2, 1, 128). 190 µs a window on one core.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from switchroom.realtime.audio import Samples

VAD_RATE = 16_000
WINDOW = 512
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
