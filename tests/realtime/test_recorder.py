"""The recording is playable at every byte at which the program may be cut off."""

from __future__ import annotations

import subprocess
import sys
import time
import wave
from pathlib import Path

import numpy as np
import pytest

from switchroom.realtime.audio import FRAME, Samples
from switchroom.realtime.recorder import HEADER, Recorder, wav_header
from switchroom.store import Blobs


def frame(value: int) -> Samples:
    return np.full(FRAME, value, dtype=np.int16)


def channels(path: Path) -> tuple[Samples, Samples]:
    with wave.open(str(path), "rb") as wav:
        assert (wav.getnchannels(), wav.getframerate(), wav.getsampwidth()) == (2, 16000, 2)
        data = np.frombuffer(wav.readframes(wav.getnframes()), dtype="<i2")
    return data[0::2], data[1::2]


async def settle(recorder: Recorder) -> None:
    if recorder._flushing is not None:
        await recorder._flushing


async def test_both_sides_are_there_and_aligned(blobs: Blobs) -> None:
    recorder = await Recorder.open(blobs)
    for i in range(100):
        recorder.caller(frame(1000 if 40 <= i < 60 else 0))
        recorder.agent(frame(2000 if i >= 40 else 0))
        await settle(recorder)
    recording = await recorder.close()
    assert recording is not None
    assert recording.duration_ms == pytest.approx(2000, abs=20)
    path = blobs.path(recording.blob)
    assert path.stat().st_size == recording.bytes
    assert path.stat().st_mode & 0o777 == 0o600
    left, right = channels(path)
    begins = [int(np.argmax(np.abs(side) > 500)) for side in (left, right)]
    assert begins[0] == pytest.approx(0.8 * 16000, abs=160)
    assert abs(begins[0] - begins[1]) < 32
    assert np.abs(left[int(1.3 * 16000) :]).max() < 100


async def test_a_silent_caller_does_not_stop_the_clock(blobs: Blobs) -> None:
    recorder = await Recorder.open(blobs)
    for i in range(60):
        if i < 10:
            recorder.caller(frame(1000))
        recorder.agent(frame(500))
        await settle(recorder)
    for _ in range(40):
        recorder.caller(frame(700))  # a burst after the gap: does not shift what follows
    recording = await recorder.close()
    assert recording is not None and recording.duration_ms == pytest.approx(1200, abs=20)
    assert recorder.frames_dropped > 0


async def test_nothing_recorded_leaves_no_file(blobs: Blobs) -> None:
    recorder = await Recorder.open(blobs)
    path = blobs.path(recorder.blob)
    assert await recorder.close() is None
    assert not path.exists()


async def test_cut_at_any_byte(data_dir: Path, blobs: Blobs) -> None:
    """What a crash leaves is a prefix of our writes: the file of each moment plays, with or without a torn tail."""
    recorder = await Recorder.open(blobs)
    path = blobs.path(recorder.blob)
    for i in range(50):
        recorder.caller(frame(i))
        recorder.agent(frame(i))
        await settle(recorder)
    whole = path.read_bytes()
    kept = len(whole) - HEADER
    assert kept > 0
    tail = b"\x01\x02" * 700
    for cut in (*range(60), len(tail) - 1, len(tail)):
        torn = data_dir / "torn.wav"
        torn.write_bytes(whole + tail[:cut])  # audio was appended, the sizes were not set yet
        left, _ = channels(torn)
        assert left.size == kept // 4
    assert whole[:HEADER] == wav_header(kept, 16000)
    await recorder.close()


_WRITER = """
import asyncio, sys
from pathlib import Path
import numpy as np
from switchroom.realtime.recorder import Recorder
from switchroom.store import Blobs
async def main():
    recorder = await Recorder.open(Blobs(Path(sys.argv[1])))
    print(recorder.blob, flush=True)
    while True:
        recorder.caller(np.full(960, 300, dtype=np.int16))
        recorder.agent(np.full(960, 300, dtype=np.int16))
        await asyncio.sleep(0.002)
asyncio.run(main())
"""


def test_playable_after_kill_9(data_dir: Path) -> None:
    def run() -> str:
        process = subprocess.Popen([sys.executable, "-c", _WRITER, str(data_dir / "blobs")], stdout=subprocess.PIPE)
        assert process.stdout is not None
        blob = process.stdout.readline().decode().strip()
        time.sleep(0.9)
        process.kill()
        process.wait()
        process.stdout.close()
        return blob

    blob = run()
    left, right = channels(Blobs(data_dir / "blobs").path(blob))
    assert left.size == right.size > 16000 // 2
