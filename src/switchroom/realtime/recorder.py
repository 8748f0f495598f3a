"""A call on disk: Ogg Opus in stereo, the caller left, the agent as it was played out right (RFC 7845).

Written in flushes of half a second, in pages of a quarter (the muxer keeps the last one back): what a crash leaves is a
prefix of pages, which plays. The agent's frames are the clock, held against the monotonic one: while no leg pulls any
(the caller's leg is lost), silence takes their place, so that a place in the file stays a place in the transcript.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import av
import numpy as np

from switchroom import metrics
from switchroom.realtime.audio import FRAME, FRAME_S, RATE, SILENCE, Samples
from switchroom.records.audio_files import AudioFiles, AudioWriter
from switchroom.records.model import Recording

log = logging.getLogger(__name__)

FORMAT = "ogg"
_FLUSH_FRAMES = 25
_PAGE_MS = 240
_LATE_FRAMES = 10
"""The caller's channel may lag so many frames behind before silence is put in its place; and the agent's behind the
clock."""
_BACKLOG_FRAMES = 1500
"""Unwritten audio that may wait for a slow disk: 30 s."""
_PRE_SKIP = 120
"""Samples at the start that a player leaves out: libopus's delay in `lowdelay` mode, as its header says."""


class _Pages:
    """Where the muxer writes: hands whole pages on, and knows how much of the call they hold."""

    def __init__(self, writer: AudioWriter) -> None:
        self._writer = writer
        self._rest = b""
        self.samples = 0
        """The last page's granule position: 48 kHz samples, the encoder's delay included (RFC 7845 §4)."""

    def write(self, data: bytes) -> int:
        self._rest += data
        whole = 0
        while (page := _page_length(self._rest, whole)) is not None:
            position = int.from_bytes(self._rest[whole + 6 : whole + 14], "little", signed=True)
            self.samples = max(self.samples, position)
            whole += page
        if whole:
            self._writer.append(self._rest[:whole])
            self._rest = self._rest[whole:]
        return len(data)


def _page_length(data: bytes, at: int) -> int | None:
    """Bytes of the Ogg page at `at` (RFC 3533 §6); None while it is not whole."""
    if len(data) < at + 27:
        return None
    segments = data[at + 26]
    if len(data) < at + 27 + segments:
        return None
    length = 27 + segments + sum(data[at + 27 : at + 27 + segments])
    return length if len(data) >= at + length else None


class OpusWriter:
    """The encoder and the file. Blocking: lives in a thread.

    Without the predictor for speech (`lowdelay`) and at the lowest effort, stereo costs 77 µs a frame of 20 ms; from
    48 kbit/s on nothing of one side is heard on the other.
    """

    def __init__(self, writer: AudioWriter, kbps: int) -> None:
        self._writer = writer
        self._pages = _Pages(writer)
        options = {"page_duration": str(_PAGE_MS * 1000), "flush_packets": "1"}
        self._container: Any = av.open(self._pages, "w", format=FORMAT, options=options)
        self._stream: Any = self._container.add_stream("libopus", rate=RATE)
        self._stream.layout = "stereo"
        self._stream.bit_rate = kbps * 1000
        self._stream.codec_context.options = {"application": "lowdelay", "compression_level": "0"}
        self._pts = 0

    @property
    def bytes(self) -> int:
        return self._writer.written

    @property
    def duration_ms(self) -> int:
        return max(0, self._pages.samples - _PRE_SKIP) * 1000 // RATE

    def append(self, caller: Samples, agent: Samples) -> None:
        """One 20 ms frame of each side."""
        stereo = np.empty((1, FRAME * 2), dtype=np.int16)
        stereo[0, 0::2] = caller
        stereo[0, 1::2] = agent
        frame = av.AudioFrame.from_ndarray(stereo, format="s16", layout="stereo")
        frame.sample_rate = RATE
        frame.pts = self._pts
        self._pts += FRAME
        self._mux(frame)

    def _mux(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def close(self) -> None:
        try:
            self._mux(None)
            self._container.close()
        finally:
            # PyAV's encoder holds a filter graph with threads, which end with the last reference to it: now, and not
            # when the call that still knows this writer is collected one day.
            self._container = self._stream = None
            self._writer.close()


class Recorder:
    """Takes 20 ms frames of both sides on the loop, writes them in a thread.

    `agent` is called for each frame that leaves, every 20 ms. The caller's frames are put beside it; what is missing of
    either becomes silence.
    """

    def __init__(
        self, files: AudioFiles, blob: str, writer: AudioWriter, kbps: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.blob = blob
        self._files = files
        self._file = writer
        self._kbps = kbps
        self._clock = clock
        self._writer: OpusWriter | None = None
        self._began: float | None = None
        self._taken = 0
        self._agent: list[Samples] = []
        self._caller: list[Samples] = []
        self._flushing: asyncio.Task[None] | None = None
        self._closed = False
        self._failed = False
        self.frames_dropped = 0

    @classmethod
    async def open(cls, files: AudioFiles, kbps: int = 64) -> Recorder:
        blob, writer = await asyncio.to_thread(files.create, FORMAT)
        return cls(files, blob, writer, kbps)

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
        self._keep_time()
        self._taken += 1
        if len(self._agent) >= _BACKLOG_FRAMES:
            self.frames_dropped += 1
            frame = SILENCE  # one array for all of them: time goes on, memory does not grow
        self._agent.append(frame)
        while len(self._caller) < len(self._agent) - _LATE_FRAMES:
            self._caller.append(SILENCE)
        ready = min(len(self._agent), len(self._caller))
        if ready >= _FLUSH_FRAMES and not self._failed and (self._flushing is None or self._flushing.done()):
            self._flushing = asyncio.get_running_loop().create_task(self._flush(ready), name="recorder-flush")

    def _keep_time(self) -> None:
        """Silence for the frames that nobody pulled."""
        now = self._clock()
        if self._began is None:
            self._began = now
        missing = int((now - self._began) / FRAME_S) - self._taken
        if missing > _LATE_FRAMES:
            self._taken += missing
            self._caller = self._caller[: len(self._agent)]  # what came before the gap
            self._caller.extend([SILENCE] * (len(self._agent) + missing - len(self._caller)))
            self._agent.extend([SILENCE] * missing)

    async def _flush(self, count: int) -> None:
        caller, self._caller = self._caller[:count], self._caller[count:]
        agent, self._agent = self._agent[:count], self._agent[count:]
        try:
            await asyncio.to_thread(self._write, caller, agent)
        except (OSError, av.FFmpegError) as error:
            self._failed = True
            metrics.RECORDING_FAILED.inc()
            log.error("the recording cannot be written", extra={"blob": self.blob, "error": str(error)})

    def _write(self, caller: list[Samples], agent: list[Samples]) -> None:
        if self._writer is None:
            self._writer = OpusWriter(self._file, self._kbps)
        for left, right in zip(caller, agent, strict=True):
            self._writer.append(left, right)

    def so_far(self) -> Recording:
        """The file as it is now."""
        return Recording(
            blob=self.blob,
            format=FORMAT,
            sample_rate=RATE,
            channels=2,
            duration_ms=self._writer.duration_ms if self._writer is not None else 0,
            bytes=self._writer.bytes if self._writer is not None else 0,
        )

    async def close(self) -> Recording | None:
        """Write what waits and describe the file; None when there is no audio, and then no file. Idempotent in
        effect."""
        if self._closed:
            return None
        self._closed = True
        metrics.RECORDING_DROPPED.inc(self.frames_dropped)
        if self._flushing is not None:
            await self._flushing
        self._caller = self._caller[: len(self._agent)]
        self._caller.extend([SILENCE] * (len(self._agent) - len(self._caller)))
        if self._agent and not self._failed:
            await self._flush(len(self._agent))
        self._agent.clear()
        self._caller.clear()
        return await asyncio.to_thread(self._end)

    def _end(self) -> Recording | None:
        if self._writer is None:
            self._file.close()
            self._files.blobs.delete(self.blob)
            return None
        try:
            self._writer.close()
        except (OSError, av.FFmpegError) as error:
            log.error("the recording could not be closed", extra={"blob": self.blob, "error": str(error)})
        return self.so_far()
