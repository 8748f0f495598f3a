"""G.711 against FFmpeg's own coder and decoder."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
import pytest

from switchroom.realtime import g711

EVERY = np.arange(-32768, 32768, dtype=np.int32).astype(np.int16)


def by_ffmpeg(name: str, samples: Any) -> bytes:
    coder = av.CodecContext.create(name, "w")
    coder.sample_rate, coder.layout, coder.format = 8000, "mono", "s16"
    frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate = 8000
    return b"".join(bytes(packet) for packet in [*coder.encode(frame), *coder.encode(None)])


@pytest.mark.parametrize(("law", "name"), [("ulaw", "pcm_mulaw"), ("alaw", "pcm_alaw")])
def test_both_laws_are_those_of_ffmpeg(law: Any, name: str) -> None:
    codes = bytes(range(256))
    values = g711.decode(codes, law)
    decoder = av.CodecContext.create(name, "r")
    decoder.sample_rate, decoder.layout = 8000, "mono"
    (frame,) = decoder.decode(av.Packet(codes))
    assert np.array_equal(values, frame.to_ndarray().reshape(-1))
    # Each code comes back, but for the two zeros of the µ-law.
    assert np.array_equal(g711.decode(g711.encode(values, law), law), values)
    # Coders may differ at the border of two steps: what is heard may differ by one step, and rarely.
    ours, theirs = g711.decode(g711.encode(EVERY, law), law), g711.decode(by_ffmpeg(name, EVERY), law)
    assert np.mean(ours != theirs) < 0.02
    assert np.max(np.abs(ours.astype(int) - EVERY) - np.abs(EVERY.astype(int)) / 16) < 16
