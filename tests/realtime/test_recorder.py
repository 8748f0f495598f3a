"""The recording plays at every moment at which the program may be cut off, and its times are those of the call."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest

from switchroom.realtime.audio import FRAME, FRAME_S, Samples
from switchroom.realtime.recorder import OpusWriter, Recorder
from switchroom.records.audio_files import AudioFiles
from switchroom.store import Blobs

RATE = 48_000
TONE: Samples = (np.sin(2 * np.pi * 480 / RATE * np.arange(FRAME)) * 8000).astype(np.int16)
QUIET: Samples = np.zeros(FRAME, dtype=np.int16)


@pytest.fixture
def files(blobs: Blobs) -> AudioFiles:
    return AudioFiles(blobs)


def channels(audio: bytes) -> tuple[Samples, Samples]:
    """What a player hears, left and right."""
    with av.open(io.BytesIO(audio)) as container:
        (stream,) = container.streams
        assert (stream.codec_context.name, stream.codec_context.rate) == ("opus", RATE)
        assert stream.codec_context.layout.name == "stereo"
        resampler = av.AudioResampler(format="s16p", layout="stereo", rate=RATE)
        planes = [piece.to_ndarray() for frame in container.decode(audio=0) for piece in resampler.resample(frame)]
    left, right = np.concatenate(planes, axis=1)
    return left, right


def begins_ms(side: Samples) -> float:
    return float(np.argmax(np.abs(side) > 2000)) * 1000 / RATE


async def settle(recorder: Recorder) -> None:
    if recorder._flushing is not None:
        await recorder._flushing


class Clock:
    """Time as the call sees it."""

    def __init__(self) -> None:
        self.frames = 0

    def __call__(self) -> float:
        return self.frames * FRAME_S


async def opened(files: AudioFiles, clock: Clock) -> Recorder:
    blob, writer = await asyncio.to_thread(files.create, "ogg")
    return Recorder(files, blob, writer, 64, clock)


async def test_both_sides_are_there_apart_and_aligned(files: AudioFiles) -> None:
    recorder = await Recorder.open(files)
    for i in range(100):
        recorder.caller(TONE if 40 <= i < 60 else QUIET)
        recorder.agent(TONE if i >= 70 else QUIET)
        await settle(recorder)
    recording = await recorder.close()
    assert recording is not None and (recording.format, recording.channels) == ("ogg", 2)
    assert recording.duration_ms == pytest.approx(2000, abs=5)
    path = files.blobs.path(recording.blob)
    assert path.stat().st_size == recording.bytes
    assert path.stat().st_mode & 0o777 == 0o600
    left, right = channels(path.read_bytes())
    assert left.size == pytest.approx(2 * RATE, abs=RATE // 100)
    assert (begins_ms(left), begins_ms(right)) == (pytest.approx(800, abs=10), pytest.approx(1400, abs=10))
    assert np.abs(right[: int(1.3 * RATE)]).max() < 20  # nothing of the caller is heard on the agent's side
    assert recording.bytes < 64_000 / 8 * 2 * 1.3


def test_a_closed_file_leaves_no_thread_of_its_encoder(files: AudioFiles) -> None:
    threads = len(list(Path("/proc/self/task").iterdir()))
    kept = [OpusWriter(files.create("ogg")[1], 64) for _ in range(3)]
    for writer in kept:
        writer.append(TONE, QUIET)
        writer.close()
    assert len(list(Path("/proc/self/task").iterdir())) <= threads, "threads live as long as somebody knows the writer"


async def test_a_silent_caller_does_not_stop_the_clock(files: AudioFiles) -> None:
    recorder = await Recorder.open(files)
    for i in range(60):
        if i < 10:
            recorder.caller(TONE)
        recorder.agent(QUIET)
        await settle(recorder)
    for _ in range(40):
        recorder.caller(TONE)  # a burst after the gap: does not shift what follows
    recording = await recorder.close()
    assert recording is not None and recording.duration_ms == pytest.approx(1200, abs=5)
    assert recorder.frames_dropped > 0


async def test_a_lost_leg_leaves_silence_of_its_length(files: AudioFiles) -> None:
    clock = Clock()
    recorder = await opened(files, clock)
    for _ in range(50):
        recorder.caller(QUIET)
        recorder.agent(QUIET)
        clock.frames += 1
        await settle(recorder)
    clock.frames += 2000  # 40 s without a leg: more than may wait for a slow disk
    for _ in range(50):
        recorder.caller(TONE)
        recorder.agent(TONE)
        clock.frames += 1
        await settle(recorder)
    recording = await recorder.close()
    assert recording is not None and recording.duration_ms == pytest.approx(42_000, abs=30)
    left, right = channels(files.blobs.path(recording.blob).read_bytes())
    assert begins_ms(left) == pytest.approx(41_000, abs=30) and begins_ms(right) == pytest.approx(41_000, abs=30)


async def test_nothing_recorded_leaves_no_file(files: AudioFiles) -> None:
    recorder = await Recorder.open(files)
    path = files.blobs.path(recorder.blob)
    assert await recorder.close() is None
    assert not path.exists()


@pytest.mark.parametrize("seal", [False, True])
async def test_cut_at_any_byte(blobs: Blobs, seal: bool) -> None:
    """What a crash leaves is a prefix of our writes: each plays, with or without a torn tail, sealed or not."""
    files = AudioFiles(blobs, key="the key of the recordings", seal=seal)
    recorder = await Recorder.open(files)
    path = blobs.path(recorder.blob)
    sizes: list[int] = []
    for i in range(150):
        recorder.caller(TONE)
        recorder.agent(TONE)
        await settle(recorder)
        if i % 25 == 24:
            sizes.append(path.stat().st_size)
            assert recorder.so_far().duration_ms >= (i + 1) * 20 - 520  # at most a flush behind
    whole = path.read_bytes()
    assert (b"OggS" in whole) is not seal
    seconds = []
    for cut in (*sizes, *(size + torn for size in sizes[1:-1] for torn in (1, 3, 200))):
        path.write_bytes(whole[:cut])
        reader = files.open(recorder.blob)
        left, right = channels(reader.read(0, reader.size))
        reader.close()
        seconds.append(left.size / RATE)
        assert np.abs(right[RATE // 10 :]).max() > 7000
    assert seconds[: len(sizes)] == sorted(seconds[: len(sizes)]) and seconds[len(sizes) - 1] > 2.4
    path.write_bytes(whole)
    await recorder.close()


_WRITER = """
import asyncio, sys
from pathlib import Path
import numpy as np
from switchroom.realtime.recorder import Recorder
from switchroom.records.audio_files import AudioFiles
from switchroom.store import Blobs
async def main():
    recorder = await Recorder.open(AudioFiles(Blobs(Path(sys.argv[1]))))
    print(recorder.blob, flush=True)
    while True:
        recorder.caller(np.full(960, 300, dtype=np.int16))
        recorder.agent(np.full(960, 300, dtype=np.int16))
        if recorder.so_far().duration_ms > 600:
            print("written", flush=True)
        await asyncio.sleep(0.002)
asyncio.run(main())
"""


def test_playable_after_kill_9(data_dir: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", _WRITER, str(data_dir / "blobs")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    blob = process.stdout.readline().decode().strip()
    assert process.stdout.readline()
    time.sleep(0.1)
    process.kill()
    process.wait()
    process.stdout.close()
    left, right = channels(Blobs(data_dir / "blobs").path(blob).read_bytes())
    assert left.size == right.size >= RATE // 2
