"""Secrets at rest."""

from __future__ import annotations

import pytest

from switchroom.store import SealBroken, Sealer

MAGIC = b"TEST1\n"


def test_what_was_sealed_opens_with_the_key_alone() -> None:
    sealed = Sealer("key", MAGIC).seal(b"secret")
    assert sealed.startswith(MAGIC)
    assert b"secret" not in sealed
    assert Sealer("key", MAGIC).open(sealed) == b"secret"
    for other in (Sealer("other", MAGIC), Sealer(None, MAGIC)):
        with pytest.raises(SealBroken):
            other.open(sealed)


def test_each_byte_counts() -> None:
    sealer = Sealer("key", MAGIC)
    sealed = sealer.seal(b"secret")
    # one in each part: salt, nonce, text, tag
    for place in (len(MAGIC), len(MAGIC) + 16, len(MAGIC) + 28, len(sealed) - 1):
        damaged = bytearray(sealed)
        damaged[place] ^= 1
        with pytest.raises(SealBroken):
            sealer.open(bytes(damaged))
    for cut in range(len(MAGIC), len(MAGIC) + 28, 9):
        with pytest.raises(SealBroken):
            sealer.open(sealed[:cut])


def test_the_same_is_never_sealed_the_same() -> None:
    sealer = Sealer("key", MAGIC)
    assert len({sealer.seal(b"secret") for _ in range(50)}) == 50


def test_without_a_key_nothing_is_changed_and_what_was_clear_stays_readable() -> None:
    assert Sealer(None, MAGIC).seal(b"secret") == b"secret"
    assert Sealer("key", MAGIC).open(b"secret") == b"secret"


def test_a_process_goes_on_with_the_salt_that_it_met() -> None:
    first, second = Sealer("key", MAGIC), Sealer("key", MAGIC)
    sealed = first.seal(b"one")
    second.open(sealed)
    assert second.seal(b"two")[len(MAGIC) :][:16] == sealed[len(MAGIC) :][:16]
