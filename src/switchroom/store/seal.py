"""Secrets at rest: AES-256-GCM under a key that scrypt derives from the operator's words, for files and fields.

Sealed bytes are `magic, salt (16), nonce (12), ciphertext with tag`; magic and salt are authenticated with it.
"""

from __future__ import annotations

import os
from collections import OrderedDict

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

_SALT_BYTES = 16
_NONCE_BYTES = 12
_SCRYPT_N = 2**14  # about 40 ms, once a salt
_KEPT_SALTS = 64


class SealBroken(Exception):
    """Sealed bytes that cannot be opened: no key is set, another key, or they are damaged. The message says which."""


class Sealer:
    """Seals and opens bytes; without a key it passes them on as they are. Both may take 40 ms: call them in a thread.

    Each process seals with the first salt that it made or met, so that a key is derived once.
    """

    def __init__(self, key: str | None, magic: bytes) -> None:
        self._key = key.encode() if key else None
        self._magic = magic
        self._derived: OrderedDict[bytes, AESGCM] = OrderedDict()

    def seal(self, plain: bytes) -> bytes:
        if self._key is None:
            return plain
        if not self._derived:
            self._cipher(os.urandom(_SALT_BYTES))
        salt, cipher = next(reversed(self._derived.items()))
        nonce = os.urandom(_NONCE_BYTES)
        return self._magic + salt + nonce + cipher.encrypt(nonce, plain, self._magic + salt)

    def is_sealed(self, raw: bytes) -> bool:
        return raw.startswith(self._magic)

    def open(self, raw: bytes) -> bytes:
        """What was sealed; bytes without the magic were stored before a key was set and are returned unchanged.

        Raises `SealBroken`.
        """
        if not self.is_sealed(raw):
            return raw
        if self._key is None:
            raise SealBroken("it is encrypted and no key is set")
        start = len(self._magic)
        salt, rest = raw[start : start + _SALT_BYTES], raw[start + _SALT_BYTES :]
        known = self._derived.get(salt)
        cipher = known or self._derive(salt)
        try:
            plain = cipher.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], self._magic + salt)
        except (InvalidTag, ValueError) as error:
            raise SealBroken("it cannot be decrypted with the key that is set") from error
        if known is None:  # only a salt that opened something is used on
            self._remember(salt, cipher)
        return plain

    def _cipher(self, salt: bytes) -> None:
        self._remember(salt, self._derive(salt))

    def _remember(self, salt: bytes, cipher: AESGCM) -> None:
        self._derived[salt] = cipher
        while len(self._derived) > _KEPT_SALTS:
            self._derived.popitem(last=False)

    def _derive(self, salt: bytes) -> AESGCM:
        assert self._key is not None
        return AESGCM(Scrypt(salt=salt, length=32, n=_SCRYPT_N, r=8, p=1).derive(self._key))
