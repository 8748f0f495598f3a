"""Recordings on disk: in clear, or sealed so that any place of one can be read while it is still being written.

A sealed file is a header and records. The header is a data key of the file's own, sealed under the operator's key (see
`store.seal`). Each record is the length of its ciphertext (4 bytes, big endian) and AES-256-GCM under the data key, its
nonce being the record's number. A record is one flush: a crash tears at most the last one, and the rest opens. That a
file was cut at a record's end cannot be told: a recording that grows looks the same.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from switchroom.store import Blobs, SealBroken, Sealer

MAGIC = b"SWAUDIO1"
_KEY_BYTES = 32
_TAG_BYTES = 16
_LENGTH = struct.Struct(">I")
_NONCE = struct.Struct(">IQ")
_MAX_RECORD = 1 << 24


class AudioUnreadable(Exception):
    """A recording that cannot be opened: it is sealed and no key is set, another key is, or it is damaged."""


class AudioWriter(Protocol):
    """A recording that grows. Blocking: lives in a thread."""

    written: int
    """Bytes of audio so far, without what sealing adds."""

    def append(self, data: bytes) -> None: ...

    def close(self) -> None:
        """Makes it durable."""
        ...


class AudioReader(Protocol):
    """A recording as it is at this moment. Blocking."""

    size: int

    def read(self, start: int, length: int) -> bytes:
        """At most `length` bytes from `start`. Raises `AudioUnreadable`."""
        ...

    def close(self) -> None: ...


class AudioFiles:
    """The recordings of a `Blobs` folder. With `seal` new ones are encrypted, which needs a `key`; a sealed one is read
    wherever the key is known, whatever is set now. All calls block: use them in a thread."""

    def __init__(self, blobs: Blobs, *, key: str | None = None, seal: bool = False) -> None:
        if seal and not key:
            raise ValueError("sealing recordings needs a key")
        self.blobs = blobs
        self._sealer = Sealer(key, MAGIC)
        self._seal = seal

    def create(self, suffix: str) -> tuple[str, AudioWriter]:
        """A new, empty recording: its blob's name and what writes it."""
        name, path = self.blobs.new(suffix)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        return name, _Sealed(fd, self._sealer) if self._seal else _Clear(fd)

    def open(self, name: str) -> AudioReader:
        """Raises `FileNotFoundError`, `NotFound` for a name that is none of ours, `AudioUnreadable`."""
        path = self.blobs.path(name)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.pread(fd, len(MAGIC), 0) == MAGIC:
                return _SealedReader(fd, self._sealer)
            return _ClearReader(fd)
        except BaseException:
            os.close(fd)
            raise

    def plain_path(self, name: str) -> Path | None:
        """Where a recording in clear lies; None when it is sealed. Raises as `open`."""
        path = self.blobs.path(name)
        with path.open("rb") as file:
            return None if file.read(len(MAGIC)) == MAGIC else path


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class _Clear:
    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.written = 0

    def append(self, data: bytes) -> None:
        _write_all(self._fd, data)
        self.written += len(data)

    def close(self) -> None:
        os.fsync(self._fd)
        os.close(self._fd)


class _Sealed:
    def __init__(self, fd: int, sealer: Sealer) -> None:
        self._fd = fd
        data_key = os.urandom(_KEY_BYTES)
        self._cipher = AESGCM(data_key)
        self._number = 0
        self.written = 0
        _write_all(fd, sealer.seal(data_key))

    def append(self, data: bytes) -> None:
        sealed = self._cipher.encrypt(_NONCE.pack(0, self._number), data, None)
        self._number += 1
        _write_all(self._fd, _LENGTH.pack(len(sealed)) + sealed)
        self.written += len(data)

    def close(self) -> None:
        os.fsync(self._fd)
        os.close(self._fd)


class _ClearReader:
    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.size = os.fstat(fd).st_size

    def read(self, start: int, length: int) -> bytes:
        return os.pread(self._fd, max(0, min(length, self.size - start)), start)

    def close(self) -> None:
        os.close(self._fd)


class _SealedReader:
    def __init__(self, fd: int, sealer: Sealer) -> None:
        self._fd = fd
        header_bytes = sealed_size(_KEY_BYTES)
        try:
            self._cipher = AESGCM(sealer.open(os.pread(fd, header_bytes, 0)))
        except SealBroken as error:
            raise AudioUnreadable(str(error)) from error
        self._starts: list[int] = []
        """Where each record begins in the audio, and below in the file."""
        self._places: list[tuple[int, int]] = []
        self.size = 0
        self._walk(header_bytes, os.fstat(fd).st_size)

    def _walk(self, place: int, end: int) -> None:
        """One small read a record, two a second of audio; a torn record at the end is left out."""
        while place + _LENGTH.size <= end:
            (length,) = _LENGTH.unpack(os.pread(self._fd, _LENGTH.size, place))
            place += _LENGTH.size
            if not _TAG_BYTES < length <= _MAX_RECORD or place + length > end:
                return
            self._starts.append(self.size)
            self._places.append((place, length))
            self.size += length - _TAG_BYTES
            place += length

    def read(self, start: int, length: int) -> bytes:
        end = min(start + length, self.size)
        parts: list[bytes] = []
        number = max(0, bisect_right(self._starts, start) - 1)
        while start < end:
            plain = self._open(number)
            offset = start - self._starts[number]
            piece = plain[offset : offset + end - start]
            parts.append(piece)
            start += len(piece)
            number += 1
        return b"".join(parts)

    def _open(self, number: int) -> bytes:
        place, length = self._places[number]
        try:
            return self._cipher.decrypt(_NONCE.pack(0, number), os.pread(self._fd, length, place), None)
        except InvalidTag as error:
            raise AudioUnreadable(f"record {number} of it is damaged") from error

    def close(self) -> None:
        os.close(self._fd)


def sealed_size(plain: int) -> int:
    """Bytes of `plain` bytes once `Sealer` has sealed them: magic, salt, nonce, tag."""
    return len(MAGIC) + 16 + 12 + plain + _TAG_BYTES
