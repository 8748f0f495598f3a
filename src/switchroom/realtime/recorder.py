"""A call on disk: stereo WAV, the caller left, the agent as it was played out right.

Written in flushes of half a second. After each the sizes in the header are set to what is there, so that the file
plays at any moment, also after a kill -9. (WAV: RIFF chunk, `fmt ` of 16 bytes, `data`; sizes at byte 4 and 40.)
"""

from __future__ import annotations

import asyncio
import logging
import os
import struct
from pathlib import Path

import numpy as np

from switchroom.realtime.audio import SILENCE, Decimator, Samples
from switchroom.records.model import Recording
from switchroom.store import Blobs

log = logging.getLogger(__name__)

HEADER = 44
_FLUSH_FRAMES = 25
_LATE_FRAMES = 10
"""The caller's channel may lag so many frames behind before silence is put in its place."""
_BACKLOG_FRAMES = 1500
"""Unwritten audio that may wait for a slow disk: 30 s."""


def wav_header(data_bytes: int, rate: int, channels: int = 2) -> bytes:
    """The 44 bytes of a 16-bit PCM WAV file with `data_bytes` of audio."""
    align = channels * 2
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        36 + data_bytes,
        b"WAVE",
        b"fmt ",
        16,
        1,
        channels,
        rate,
        rate * align,
        align,
        16,
        b"data",
        data_bytes,
    )


class WavWriter:
    """The file. Blocking: lives in a thread."""

    def __init__(self, path: Path, rate: int, channels: int = 2) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._rate = rate
        self._channels = channels
        self.data_bytes = 0
        os.pwrite(self._fd, wav_header(0, rate, channels), 0)

    def append(self, pcm: bytes) -> None:
        """Audio first, then the sizes: a cut between the two leaves a playable file with a tail that is not counted."""
        os.pwrite(self._fd, pcm, HEADER + self.data_bytes)
        self.data_bytes += len(pcm)
        os.pwrite(self._fd, wav_header(self.data_bytes, self._rate, self._channels), 0)

    def close(self) -> None:
        os.fsync(self._fd)
        os.close(self._fd)


class Recorder:
    """Takes 20 ms frames of both sides on the loop, writes them in a thread.

    `agent` is the clock: it is called for each frame that leaves, every 20 ms. The caller's frames are put beside it;
    what is missing of them becomes silence.
    """

    def __init__(self, blob: str, path: Path, rate: int = 16_000) -> None:
        self.blob = blob
        self._path = path
        self._rate = rate
        self._writer: WavWriter | None = None
        self._left = Decimator(rate)
        self._right = Decimator(rate)
        self._agent: list[Samples] = []
        self._caller: list[Samples] = []
        self._flushing: asyncio.Task[None] | None = None
        self._closed = False
        self._failed = False
        self.frames_dropped = 0

    @classmethod
    async def open(cls, blobs: Blobs, rate: int = 16_000) -> Recorder:
        blob, path = await asyncio.to_thread(blobs.new, "wav")
        return cls(blob, path, rate)

    def caller(self, frame: Samples) -> None:
        if self._closed:
            return
        if len(self._caller) > len(self._agent) + _LATE_FRAMES:
            self.frames_dropped += 1  # a burst after a stall: keep the sides aligned
            return
        self._caller.append(frame)

    def agent(self, frame: Samples) -> None:
        if self._closed:
            return
        if len(self._agent) >= _BACKLOG_FRAMES:
            self.frames_dropped += 1
            return
        self._agent.append(frame)
        while len(self._caller) < len(self._agent) - _LATE_FRAMES:
            self._caller.append(SILENCE)
        ready = min(len(self._agent), len(self._caller))
        if ready >= _FLUSH_FRAMES and not self._failed and (self._flushing is None or self._flushing.done()):
            self._flushing = asyncio.get_running_loop().create_task(self._flush(ready), name="recorder-flush")

    async def _flush(self, count: int) -> None:
        caller, self._caller = self._caller[:count], self._caller[count:]
        agent, self._agent = self._agent[:count], self._agent[count:]
        try:
            await asyncio.to_thread(self._write, caller, agent)
        except OSError as error:
            self._failed = True
            log.error("the recording cannot be written", extra={"blob": self.blob, "error": str(error)})

    def _write(self, caller: list[Samples], agent: list[Samples]) -> None:
        if self._writer is None:
            self._writer = WavWriter(self._path, self._rate)
        left = self._left.feed(np.concatenate(caller))
        right = self._right.feed(np.concatenate(agent))
        length = min(left.size, right.size)  # equal: both streams had the same lengths all the way
        stereo = np.empty(length * 2, dtype="<i2")
        stereo[0::2] = left[:length]
        stereo[1::2] = right[:length]
        self._writer.append(stereo.tobytes())

    def so_far(self) -> Recording:
        """The file as it is now."""
        data_bytes = self._writer.data_bytes if self._writer is not None else 0
        return Recording(
            blob=self.blob,
            format="wav",
            sample_rate=self._rate,
            channels=2,
            duration_ms=data_bytes // 4 * 1000 // self._rate,
            bytes=HEADER + data_bytes,
        )

    async def close(self) -> Recording | None:
        """Write what waits and describe the file; None when there is no audio. Idempotent in effect."""
        self._closed = True
        if self._flushing is not None:
            await self._flushing
        missing = len(self._agent) - len(self._caller)
        self._caller.extend([SILENCE] * max(0, missing))
        if self._agent and not self._failed:
            await self._flush(len(self._agent))
            self._agent.clear()
        if self._writer is None:
            await asyncio.to_thread(self._path.unlink, missing_ok=True)
            return None
        recording = self.so_far()
        writer, self._writer = self._writer, None
        await asyncio.to_thread(writer.close)
        return recording
