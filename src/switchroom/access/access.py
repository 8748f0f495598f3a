"""Who asks, and may they: API keys from the settings and stored ones, checked in microseconds and constant time.

A stored key is 256 random bits, so one SHA-256 of it is as hard to undo as any slow hash; slow hashes are for
passwords that people choose. Keys from the settings are held as digests too, in memory only.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
from pydantic import SecretStr

from switchroom.errors import Forbidden, NotFound, Unauthorized
from switchroom.scopes import ALL_SCOPES, Scope
from switchroom.store import Store, keys

CACHE_S = 2.0
"""How long a checked stored key is believed: a revoked one is refused by every process after at most this."""

_CACHED_KEYS = 4096
_PREFIX = "swr_"
_STORED = re.compile(r"swr_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")


class Principal(NamedTuple):
    """Who was recognised. `key_id` is `settings-1`, … for a key of the settings, `open` where none is asked for."""

    key_id: str
    name: str
    scopes: frozenset[Scope]

    def may(self, scope: Scope) -> bool:
        return Scope.ALL in self.scopes or scope in self.scopes


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A stored key without the key. `digest` is its SHA-256; times are Unix milliseconds."""

    id: str
    name: str
    digest: bytes
    scopes: tuple[Scope, ...]
    created_ms: int


_decode = msgspec.msgpack.Decoder(KeyRecord).decode


class Access:
    """Checks keys. With `allow_open` (set only on loopback) and no key anywhere, everybody may do everything."""

    def __init__(self, store: Store, configured: Sequence[SecretStr] = (), *, allow_open: bool = False) -> None:
        self._store = store
        self._configured = [
            (_digest(key.get_secret_value()), Principal(f"settings-{number}", f"settings-{number}", ALL_SCOPES))
            for number, key in enumerate(configured, 1)
        ]
        self._allow_open = allow_open and not self._configured
        # Cached under a keyed hash: nobody outside can aim at a bucket, and the cache holds no key.
        self._salt = os.urandom(32)
        self._cache: dict[bytes, tuple[float, Principal]] = {}
        self._open_until = 0.0

    async def check(self, presented: str | None, scope: Scope) -> Principal:
        """The principal behind a key that may do `scope`.

        Raises `Unauthorized` for no or an unknown key, `Forbidden` for a known one that may not.
        """
        principal = await self.identify(presented)
        if principal is None:
            if presented:
                raise Unauthorized("This API key is not known.")
            raise Unauthorized("An API key is needed: send `Authorization: Bearer KEY` or `X-API-Key: KEY`.")
        if not principal.may(scope):
            raise Forbidden(f"This key may not do that: it lacks the scope `{scope}`.", extra={"scope": str(scope)})
        return principal

    async def identify(self, presented: str | None) -> Principal | None:
        """The principal behind a key; None for no or an unknown key (unless access is open)."""
        now = time.monotonic()
        if self._allow_open and await self._is_open(now):
            return Principal("open", "open", ALL_SCOPES)
        if not presented or len(presented) > 512:
            return None
        place = hashlib.blake2b(presented.encode(errors="replace"), key=self._salt, digest_size=32).digest()
        cached = self._cache.get(place)
        if cached is not None and cached[0] > now:
            return cached[1]
        principal, believed_until = self._configured_key(presented), float("inf")
        if principal is None:
            principal, believed_until = await self._stored_key(presented), now + CACHE_S
        if principal is not None:
            if len(self._cache) >= _CACHED_KEYS:
                self._cache.clear()
            self._cache[place] = (believed_until, principal)
        return principal

    async def create(self, name: str, scopes: Sequence[Scope] = (Scope.ALL,)) -> tuple[str, KeyRecord]:
        """Make and store a key. The key itself is in the reply only: it cannot be shown again."""
        key_id = secrets.token_hex(6)
        key = f"{_PREFIX}{key_id}_{secrets.token_urlsafe(32)}"
        record = KeyRecord(
            id=key_id, name=name, digest=_digest(key), scopes=tuple(scopes), created_ms=time.time_ns() // 1_000_000
        )
        await self._store.call("HSET", keys.access_keys(), key_id, msgspec.msgpack.encode(record))
        self._open_until = 0.0
        return key, record

    async def stored(self) -> list[KeyRecord]:
        """The stored keys' records, oldest first."""
        rows = await self._store.call("HVALS", keys.access_keys())
        return sorted((_decode(row) for row in rows), key=lambda record: (record.created_ms, record.id))

    async def revoke(self, key_id: str) -> None:
        """Forget a stored key; `NotFound` if there is none of this ID."""
        if not await self._store.call("HDEL", keys.access_keys(), key_id):
            raise NotFound(f"There is no stored key {key_id!r}.")
        self._cache.clear()

    def _configured_key(self, presented: str) -> Principal | None:
        digest = _digest(presented)
        found: Principal | None = None
        for known, principal in self._configured:  # all of them, so that the time tells nothing
            if hmac.compare_digest(known, digest):
                found = principal
        return found

    async def _stored_key(self, presented: str) -> Principal | None:
        shape = _STORED.fullmatch(presented)
        if shape is None:
            return None
        row = await self._store.call("HGET", keys.access_keys(), shape[1])
        if row is None:
            return None
        record = _decode(row)
        if not hmac.compare_digest(record.digest, _digest(presented)):
            return None
        return Principal(record.id, record.name, frozenset(record.scopes))

    async def _is_open(self, now: float) -> bool:
        if now >= self._open_until:
            if await self._store.call("HLEN", keys.access_keys()):
                return False
            self._open_until = now + CACHE_S
        return True


def presented_key(headers: Mapping[str, str]) -> str | None:
    """The key in `Authorization: Bearer KEY`, else in `X-API-Key`; None if neither is there. Names match in any case
    (the mapping is aiohttp's)."""
    kind, _, value = headers.get("Authorization", "").partition(" ")
    if kind.lower() == "bearer" and value.strip():
        return value.strip()
    return headers.get("X-API-Key", "").strip() or None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="replace")).digest()
