"""Opus (RFC 6716) by libopus itself: 20 ms of 48 kHz mono a packet.

The library is the one that PyAV ships, or the system's. FFmpeg's wrapper, which aiortc uses, encodes in stereo at the
highest complexity (250 µs a frame) and cannot conceal a lost packet; this costs 75 µs, and conceals.

Calls keep the interpreter's lock: they take less time than giving it up and waiting for another thread to return it.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import av
import numpy as np

from switchroom.errors import Unavailable
from switchroom.realtime.audio import FRAME, RATE, Samples

MAX_PACKET = 1_275
MAX_SAMPLES = 5_760
"""120 ms, the longest packet there is."""

_LOW_DELAY, _VOIP = 2_051, 2_048
_SET_BITRATE, _SET_COMPLEXITY, _SET_FEC, _SET_LOSS = 4_002, 4_010, 4_012, 4_014
_CLEAN_BPS, _LOSSY_BPS = 48_000, 32_000
_CLEAN_COMPLEXITY, _LOSSY_COMPLEXITY = 5, 1
_LOSSY_PERCENT = 2
"""From this loss on, each packet carries a coarse copy of the one before it."""


@cache
def _library() -> ctypes.PyDLL:
    shipped = sorted(Path(av.__file__).parent.parent.glob("av.libs/libopus-*"))
    for name in (*map(str, shipped), "libopus.so.0"):
        try:
            lib = ctypes.PyDLL(name)
        except OSError:
            continue
        pointer, number = ctypes.c_void_p, ctypes.c_int
        for function, result, arguments in (
            ("opus_encoder_create", pointer, (number, number, number, ctypes.POINTER(number))),
            ("opus_encoder_ctl", number, (pointer, number, number)),
            ("opus_encode", number, (pointer, pointer, number, pointer, number)),
            ("opus_encoder_destroy", None, (pointer,)),
            ("opus_decoder_create", pointer, (number, number, ctypes.POINTER(number))),
            ("opus_decode", number, (pointer, ctypes.c_char_p, number, pointer, number, number)),
            ("opus_decoder_destroy", None, (pointer,)),
            ("opus_packet_get_nb_samples", number, (ctypes.c_char_p, number, number)),
        ):
            bound = getattr(lib, function)
            bound.restype, bound.argtypes = result, arguments
        return lib
    raise Unavailable("libopus is not installed: install PyAV's wheel (pip install av) or Debian's libopus0")


def load() -> None:
    """Find the library, once a process; reads folders, so it belongs in a thread. Raises `Unavailable`."""
    _library()


def samples_of(packet: bytes) -> int:
    """How long a packet is, in samples of 48 kHz; 0 for what is no Opus packet."""
    return max(0, int(_library().opus_packet_get_nb_samples(packet, len(packet), RATE)))


class Encoder:
    """Frames of 960 samples to packets. On a clean path CELT at 48 kbit/s, which adds 2.5 ms; `expect_loss` changes to
    a mode that repeats the packet before in each packet."""

    def __init__(self) -> None:
        self._lib = _library()
        self._state: int | None = None
        self._frame = np.empty(FRAME, dtype=np.int16)
        self._frame_at = self._frame.ctypes.data
        self._packet = ctypes.create_string_buffer(MAX_PACKET)
        self._packet_at = ctypes.addressof(self._packet)
        self._loss = 0
        self._open()

    @property
    def repeats(self) -> bool:
        """Whether packets carry copies of those before them."""
        return self._loss >= _LOSSY_PERCENT

    def encode(self, frame: Samples) -> bytes:
        self._frame[:] = frame
        size = self._lib.opus_encode(self._state, self._frame_at, FRAME, self._packet_at, MAX_PACKET)
        if size < 0:
            raise RuntimeError(f"libopus cannot encode: error {size}")
        return ctypes.string_at(self._packet_at, size)

    def expect_loss(self, percent: int) -> None:
        """How much of what is sent does not arrive, as the other side reports it."""
        percent = min(100, max(0, percent))
        if percent == self._loss:
            return
        before, self._loss = self.repeats, percent
        if self.repeats != before:
            self._open()
        elif self.repeats:
            self._lib.opus_encoder_ctl(self._state, _SET_LOSS, percent)

    def close(self) -> None:
        state, self._state = self._state, None
        if state is not None:
            self._lib.opus_encoder_destroy(state)

    def _open(self) -> None:
        self.close()
        error = ctypes.c_int()
        self._state = self._lib.opus_encoder_create(RATE, 1, _VOIP if self.repeats else _LOW_DELAY, ctypes.byref(error))
        if not self._state:
            raise RuntimeError(f"libopus gives no encoder: error {error.value}")
        settings = {
            _SET_BITRATE: _LOSSY_BPS if self.repeats else _CLEAN_BPS,
            _SET_COMPLEXITY: _LOSSY_COMPLEXITY if self.repeats else _CLEAN_COMPLEXITY,
            _SET_FEC: int(self.repeats),
            _SET_LOSS: self._loss if self.repeats else 0,
        }
        for name, value in settings.items():
            self._lib.opus_encoder_ctl(self._state, name, value)


class Decoder:
    """Packets to samples, whatever the sender's channels."""

    def __init__(self) -> None:
        self._lib = _library()
        error = ctypes.c_int()
        self._state: int | None = self._lib.opus_decoder_create(RATE, 1, ctypes.byref(error))
        if not self._state:
            raise RuntimeError(f"libopus gives no decoder: error {error.value}")
        self._pcm = np.empty(MAX_SAMPLES, dtype=np.int16)
        self._pcm_at = self._pcm.ctypes.data

    def decode(self, packet: bytes) -> Samples | None:
        """The samples of a packet; None for a broken one."""
        return self._take(self._lib.opus_decode(self._state, packet, len(packet), self._pcm_at, MAX_SAMPLES, 0))

    def conceal(self, samples: int, following: bytes | None = None) -> Samples | None:
        """Instead of a lost packet of so many samples: its copy in the packet that followed, where there is one, else
        what the decoder thinks went on."""
        data, size = (following, len(following)) if following is not None else (None, 0)
        return self._take(self._lib.opus_decode(self._state, data, size, self._pcm_at, samples, int(size > 0)))

    def close(self) -> None:
        state, self._state = self._state, None
        if state is not None:
            self._lib.opus_decoder_destroy(state)

    def _take(self, count: int) -> Samples | None:
        return self._pcm[:count].copy() if count > 0 else None
