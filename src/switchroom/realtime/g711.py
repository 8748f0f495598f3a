"""G.711, the codec of telephones: one byte a sample at 8 kHz, in two laws (ITU-T G.711, 11/1988).

Both ways are tables: a law has 256 codes, and 16-bit PCM 65,536 values.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from switchroom.realtime.audio import Samples

Law = Literal["ulaw", "alaw"]

G711_RATE = 8_000
_BIAS = 0x84
_CLIP = 32_635


def encode(samples: Samples, law: Law) -> bytes:
    """16-bit mono PCM at 8 kHz to one byte a sample."""
    return _codes(law)[samples.astype(np.uint16)].tobytes()


def decode(data: bytes, law: Law) -> Samples:
    """One byte a sample to 16-bit PCM at 8 kHz."""
    return _values(law)[np.frombuffer(data, dtype=np.uint8)]


@cache
def _values(law: Law) -> Samples:
    """PCM of each code."""
    code = np.arange(256, dtype=np.int32)
    if law == "ulaw":
        code = ~code & 0xFF
        size = ((((code & 0x0F) << 3) + _BIAS) << ((code & 0x70) >> 4)) - _BIAS
        return _pcm(np.where(code & 0x80, -size, size))
    code = code ^ 0x55
    segment = (code & 0x70) >> 4
    size = ((code & 0x0F) << 4) + np.where(segment == 0, 0x008, 0x108)
    size = size << np.maximum(segment - 1, 0)
    return _pcm(np.where(code & 0x80, size, -size))


@cache
def _codes(law: Law) -> NDArray[np.uint8]:
    """The code of each PCM value, by the value as an unsigned 16-bit number."""
    value: NDArray[Any] = np.arange(65_536, dtype=np.uint16).view(np.int16).astype(np.int32)
    if law == "ulaw":
        sign = np.where(value < 0, 0x80, 0)
        size = np.minimum(np.abs(value >> 2 << 2), _CLIP) + _BIAS  # the law takes 14 bits
        segment = np.floor(np.log2(size)).astype(np.int32) - 7
        return _bytes(~(sign | (segment << 4) | ((size >> (segment + 3)) & 0x0F)) & 0xFF)
    sign = np.where(value >= 0, 0xD5, 0x55)
    size = np.where(value >= 0, value, ~value) >> 3
    segment = np.maximum(np.floor(np.log2(np.maximum(size, 1))).astype(np.int32) - 4, 0)
    step = np.where(segment < 2, 1, segment)
    return _bytes(((segment << 4) | ((size >> step) & 0x0F)) ^ sign)


def _pcm(values: NDArray[Any]) -> Samples:
    out: Samples = values.astype(np.int16)
    return out


def _bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    out: NDArray[np.uint8] = values.astype(np.uint8)
    return out
