"""Sealed recordings: any place can be read while they grow, nothing without the key, no byte changed unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchroom.records.audio_files import AudioFiles, AudioUnreadable
from switchroom.store import Blobs

KEY = "the key of the recordings"


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Blobs:
    return Blobs(tmp_path_factory.mktemp("blobs"))


@pytest.fixture(scope="module")
def sealed(blobs: Blobs) -> AudioFiles:
    """One for all: its key is made of the words once, which takes a moment by design."""
    return AudioFiles(blobs, key=KEY, seal=True)


def written(files: AudioFiles, pieces: list[bytes]) -> str:
    name, writer = files.create("ogg")
    for piece in pieces:
        writer.append(piece)
    assert writer.written == sum(map(len, pieces))
    writer.close()
    return name


_pieces = st.lists(st.binary(min_size=1, max_size=40), max_size=8)


@settings(max_examples=40, deadline=None)
@given(_pieces, st.integers(0, 200), st.integers(0, 200), st.booleans())
def test_every_range(
    blobs: Blobs, sealed: AudioFiles, pieces: list[bytes], start: int, length: int, seal: bool
) -> None:
    files = sealed if seal else AudioFiles(blobs, key=KEY, seal=False)
    reader = files.open(written(files, pieces))
    whole = b"".join(pieces)
    try:
        assert reader.size == len(whole)
        assert reader.read(start, length) == whole[start : start + length]
    finally:
        reader.close()


def test_it_is_read_while_it_grows_and_after_a_tear(sealed: AudioFiles) -> None:
    files = sealed
    name, writer = files.create("ogg")
    path = files.blobs.path(name)
    assert files.open(name).size == 0
    writer.append(b"one")
    before = path.stat().st_size
    writer.append(b"two")
    assert files.open(name).read(0, 10) == b"onetwo"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)
    assert files.open(name).read(0, 10) == b"one"
    with path.open("r+b") as file:
        file.truncate(before + 2)
    assert files.open(name).read(0, 10) == b"one"


def test_a_changed_or_foreign_file_is_refused(blobs: Blobs, sealed: AudioFiles) -> None:
    files = sealed
    name = written(files, [b"first", b"second"])
    path = blobs.path(name)
    whole = path.read_bytes()
    assert b"first" not in whole and files.plain_path(name) is None
    for keyless, words in ((AudioFiles(blobs), "no key is set"), (AudioFiles(blobs, key="another"), "cannot be")):
        with pytest.raises(AudioUnreadable, match=words):
            keyless.open(name)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(AudioUnreadable, match="record 1 of it is damaged"):
        files.open(name).read(0, 100)
    assert files.open(name).read(0, 5) == b"first"
    second = len(whole) - (4 + len(b"second") + 16)
    first = second - (4 + len(b"first") + 16)
    path.write_bytes(whole[:first] + whole[second:] + whole[first:second])  # records in another order
    with pytest.raises(AudioUnreadable):
        files.open(name).read(0, 100)


def test_what_is_in_clear_stays_readable_once_a_key_is_set(blobs: Blobs, tmp_path: Path) -> None:
    name = written(AudioFiles(blobs), [b"in clear"])
    files = AudioFiles(blobs, key=KEY, seal=True)
    assert files.open(name).read(0, 100) == b"in clear"
    assert files.plain_path(name) == blobs.path(name)
    with pytest.raises(ValueError, match="needs a key"):
        AudioFiles(blobs, seal=True)
