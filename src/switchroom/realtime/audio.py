"""Audio as the room passes it on: mono int16 numpy arrays; frames of 20 ms at 48 kHz between transport and call."""

from __future__ import annotations

import math
import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.int16]
"""Mono PCM, one dimension."""

RATE = 48_000
FRAME = 960
"""Samples of a 20 ms frame at 48 kHz: the only size that Opus and aiortc take without buffering another frame."""
FRAME_S = FRAME / RATE
SILENCE: Samples = np.zeros(FRAME, dtype=np.int16)
SILENCE.setflags(write=False)
NOTHING: Samples = np.zeros(0, dtype=np.int16)
NOTHING.setflags(write=False)
SILENT_DBFS = -96.0


def to_mono(interleaved: Samples, channels: int) -> Samples:
    """Interleaved PCM of `channels` channels to mono, by averaging."""
    if channels == 1:
        return interleaved
    mixed: Samples = (interleaved.reshape(-1, channels).astype(np.int32).sum(axis=1) // channels).astype(np.int16)
    return mixed


def level_dbfs(samples: Samples) -> float:
    """RMS level in dB relative to full scale; `SILENT_DBFS` for digital silence or an empty array."""
    if samples.size == 0:
        return SILENT_DBFS
    mean_square = float(np.mean(np.square(samples.astype(np.float32))))
    if mean_square < 1e-3:
        return SILENT_DBFS
    return max(SILENT_DBFS, 10.0 * math.log10(mean_square / (32768.0 * 32768.0)))


def resample(samples: Samples, source: int, target: int) -> Samples:
    """Resample a whole piece. CPU work: call it in a thread for anything longer than a frame."""
    if source == target or samples.size == 0:
        return samples
    import soxr  # an extra: only a process that speaks needs it

    out: Samples = np.asarray(soxr.resample(samples, source, target, quality="HQ"), dtype=np.int16)
    return out


class Decimator:
    """48 kHz to a whole fraction of it, as a stream, with half a millisecond of delay.

    A windowed-sinc low-pass (Hamming, 20 taps a phase, -6 dB at 0.45 of the new rate). soxr's stream holds back 25
    to 35 ms at a like quality, which every turn would wait for.
    """

    def __init__(self, rate: int) -> None:
        if RATE % rate:
            raise ValueError(f"{rate} Hz is no whole fraction of {RATE} Hz")
        self._factor = RATE // rate
        taps = 20 * self._factor + 1 if self._factor > 1 else 1
        at = np.arange(taps) - (taps - 1) / 2
        low_pass = np.sinc(0.9 * at / self._factor) * np.hamming(taps)
        self._filter = (low_pass / low_pass.sum()).astype(np.float32)
        self._past: NDArray[np.float32] = np.zeros(taps - 1, dtype=np.float32)
        self._skip = 0

    def feed(self, samples: Samples) -> Samples:
        if self._factor == 1:
            return samples
        joined: NDArray[np.float32] = np.concatenate((self._past, samples.astype(np.float32)))
        filtered = np.convolve(joined, self._filter, mode="valid")[self._skip :: self._factor]
        self._skip = (self._skip - samples.size) % self._factor
        self._past = joined[joined.size - self._past.size :]
        out: Samples = np.clip(np.rint(filtered), -32768, 32767).astype(np.int16)
        return out


class Interpolator:
    """A whole fraction of 48 kHz up to 48 kHz, as a stream: the `Decimator`'s filter the other way, a phase at a time.

    The delay is 10 samples of the lower rate (1.25 ms at 8 kHz).
    """

    _SIDE = 10

    def __init__(self, rate: int) -> None:
        if RATE % rate:
            raise ValueError(f"{rate} Hz is no whole fraction of {RATE} Hz")
        factor = RATE // rate
        taps = 2 * self._SIDE
        at = np.arange(taps * factor) / factor - self._SIDE
        low_pass = (np.sinc(0.9 * at) * np.hamming(taps * factor)).reshape(taps, factor)[::-1]
        self._phases = (low_pass / low_pass.sum(axis=0)).astype(np.float32)
        self._past: NDArray[np.float32] = np.zeros(taps - 1, dtype=np.float32)

    def feed(self, samples: Samples) -> Samples:
        joined: NDArray[np.float32] = np.concatenate((self._past, samples.astype(np.float32)))
        windows = np.lib.stride_tricks.sliding_window_view(joined, self._phases.shape[0])
        self._past = joined[joined.size - self._past.size :]
        out: Samples = np.clip(np.rint(windows @ self._phases), -32768, 32767).astype(np.int16).reshape(-1)
        return out


class Framer:
    """Cuts a stream of any piece sizes into 20 ms frames."""

    def __init__(self) -> None:
        self._rest: Samples = np.zeros(0, dtype=np.int16)

    def feed(self, samples: Samples) -> list[Samples]:
        if self._rest.size == 0 and samples.size == FRAME:
            return [samples]
        joined: Samples = np.concatenate((self._rest, samples))
        whole = joined.size // FRAME
        self._rest = joined[whole * FRAME :]
        return [joined[i * FRAME : (i + 1) * FRAME] for i in range(whole)]


def read_wav(path: Path) -> tuple[Samples, int]:
    """A PCM WAV file as mono samples and its rate. For files that our own programs wrote (16 bit)."""
    with wave.open(str(path), "rb") as wav:
        if wav.getsampwidth() != 2:
            raise ValueError(f"{path.name}: 16-bit PCM expected, got {wav.getsampwidth() * 8} bit")
        data: Samples = np.frombuffer(wav.readframes(wav.getnframes()), dtype="<i2").astype(np.int16)
        return to_mono(data, wav.getnchannels()), wav.getframerate()
