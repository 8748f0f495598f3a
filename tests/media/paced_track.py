"""Audio as aiortc has it: its frames as our samples, and a paced track for a peer that keeps to aiortc's own way, as a
stock client does (ours take `media_path.py`)."""

from __future__ import annotations

import asyncio
import fractions
import time
from collections.abc import Callable

import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame

from switchroom.realtime.audio import FRAME, FRAME_S, RATE, Samples, to_mono

_TIME_BASE = fractions.Fraction(1, RATE)
_RESYNC_S = 0.2


class PacedTrack(MediaStreamTrack):
    """Asks `source` for 960 samples every 20 ms. After a stall of more than 200 ms it does not catch up but goes
    on from now, counting the frames that were `skipped`: a burst would only fill the far jitter buffer."""

    kind = "audio"

    def __init__(self, source: Callable[[], Samples]) -> None:
        super().__init__()
        self._source = source
        self._due: float | None = None
        self._pts = 0
        self.skipped = 0

    async def recv(self) -> AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        now = time.monotonic()
        self._due = now if self._due is None else self._due + FRAME_S
        if self._due > now:
            await asyncio.sleep(self._due - now)
        elif now - self._due > _RESYNC_S:
            late = int((now - self._due) / FRAME_S)
            self.skipped += late
            self._pts += late * FRAME
            self._due = now
        return self._frame()

    def _frame(self) -> AudioFrame:
        frame = AudioFrame.from_ndarray(self._source().reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = RATE
        frame.time_base = _TIME_BASE
        frame.pts = self._pts
        self._pts += FRAME
        return frame


def mono_of(frame: AudioFrame) -> Samples:
    """Decoded packed s16 of any layout as mono samples."""
    packed: Samples = np.asarray(frame.to_ndarray(), dtype=np.int16).reshape(-1)
    return to_mono(packed, len(frame.layout.channels))
