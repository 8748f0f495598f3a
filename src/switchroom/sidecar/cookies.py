"""The shared web-cookie file: replaced whole, atomically, 0600, encrypted where a key is set, with a version."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from switchroom.crawler.cookies import Cookie
from switchroom.crawler.jar import Key
from switchroom.errors import Unavailable
from switchroom.store import SealBroken, Sealer

log = logging.getLogger(__name__)

FILE_NAME = "web-cookies.json"
_MAGIC = b"SRCK1\n"


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What the file holds. `version` grows by one with each replacement; `saved_at_ms` is Unix milliseconds."""

    version: int = 0
    saved_at_ms: int = 0
    cookies: tuple[Cookie, ...] = ()


class CookieFile:
    """The file in `folder`. Any number of processes may hold one on the same folder.

    `replace` is durable when it returns: the new content is written beside, synced, renamed over the old, and the
    folder synced. A crash at any byte leaves the old content or the new, never a mix.
    """

    def __init__(self, folder: Path, key: str | None = None) -> None:
        self.path = folder / FILE_NAME
        self._sealer = Sealer(key, _MAGIC)
        self._cached: tuple[tuple[int, int, int], Stored] | None = None
        self._lock = asyncio.Lock()

    @classmethod
    async def open(cls, folder: Path, key: str | None = None) -> CookieFile:
        """The cookie file in `folder`, which is made where it is not there."""
        await asyncio.to_thread(folder.mkdir, mode=0o700, parents=True, exist_ok=True)
        return cls(folder, key)

    async def read(self) -> Stored:
        """The present content; an absent file is version 0 without cookies.

        Raises `Unavailable` (`cookie_file_unreadable`) where the key does not fit or the content is not ours.
        """
        return await asyncio.to_thread(self._read)

    async def replace(self, cookies: list[Cookie]) -> Stored:
        """Put `cookies` in place of all that was there. Returns what is stored now."""
        async with self._lock:
            return await asyncio.to_thread(self._update, None, tuple(cookies))

    async def refresh(self, base_version: int, changes: dict[Key, Cookie | None]) -> Stored | None:
        """Merge what sites set during a crawl, unless the file was replaced since `base_version`: then None."""
        if not changes:
            return None
        async with self._lock:
            return await asyncio.to_thread(self._merge, base_version, changes)

    def _merge(self, base_version: int, changes: dict[Key, Cookie | None]) -> Stored | None:
        held = {cookie.key: cookie for cookie in self._read().cookies}
        for key, cookie in changes.items():
            if cookie is None:
                held.pop(key, None)
            else:
                held[key] = cookie
        return self._update(base_version, tuple(held.values()))

    def _update(self, base_version: int | None, cookies: tuple[Cookie, ...]) -> Stored:
        with self._only_writer():
            self._sweep()
            try:
                before = self._read()
            except Unavailable:
                # A file that cannot be read any more must not keep an operator from putting a good one there.
                log.warning("unreadable cookie file is replaced")
                before = Stored()
            if base_version is not None and before.version != base_version:
                return before
            now_ms = time.time_ns() // 1_000_000
            # A refresh by a crawl is not news for the crawls that wait for a login, so it keeps the version.
            version = before.version + 1 if base_version is None else base_version
            stored = Stored(version=version, saved_at_ms=now_ms, cookies=cookies)
            self._write(msgspec.json.encode(stored))
            return stored

    def _write(self, plain: bytes) -> None:
        folder = self.path.parent
        temporary = folder / f".{FILE_NAME}.{os.getpid()}.{uuid.uuid4().hex}.tmp"
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(self._sealer.seal(plain))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _read(self) -> Stored:
        try:
            with self.path.open("rb") as file:
                state = os.fstat(file.fileno())
                signature = (state.st_ino, state.st_mtime_ns, state.st_size)
                if self._cached is not None and self._cached[0] == signature:
                    return self._cached[1]
                raw = file.read()
        except FileNotFoundError:
            return Stored()
        stored = msgspec.json.decode(self._open_sealed(raw), type=Stored)
        self._cached = (signature, stored)
        return stored

    def _open_sealed(self, raw: bytes) -> bytes:
        if not self._sealer.is_sealed(raw) and raw[:1] != b"{":
            raise Unavailable("The cookie file is damaged; post the cookies again.", code="cookie_file_unreadable")
        try:
            return self._sealer.open(raw)
        except SealBroken as error:
            raise Unavailable(f"The cookie file: {error}.", code="cookie_file_unreadable") from error

    @contextmanager
    def _only_writer(self) -> Iterator[None]:
        handle = os.open(self.path.parent / f".{FILE_NAME}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _sweep(self) -> None:
        """Remove what writers that were killed left behind; the caller holds the lock, so none of them lives."""
        for stale in self.path.parent.glob(f".{FILE_NAME}.*.tmp"):
            stale.unlink(missing_ok=True)


def summary(stored: Stored, now_s: float) -> dict[str, Any]:
    """Counts, domains and expiries, never a name or a value: what `GET /sitemap/web-cookies` answers."""
    domains: dict[str, list[Cookie]] = {}
    for cookie in stored.cookies:
        domains.setdefault(cookie.host, []).append(cookie)
    return {
        "count": len(stored.cookies),
        "version": stored.version,
        "savedAt": rfc3339(stored.saved_at_ms / 1000) if stored.saved_at_ms else None,
        "expiresAt": first_expiry(list(stored.cookies)),
        "domains": [
            {
                "domain": host,
                "count": len(held),
                "session": sum(cookie.expires is None for cookie in held),
                "expired": sum(cookie.expires is not None and cookie.expires <= now_s for cookie in held),
                "expiresAt": first_expiry(held),
            }
            for host, held in sorted(domains.items())
        ],
    }


def first_expiry(cookies: list[Cookie]) -> str | None:
    """The earliest expiry among `cookies`, when a fresh login begins to be needed; None where all last a session."""
    ends = [cookie.expires for cookie in cookies if cookie.expires is not None]
    return rfc3339(min(ends)) if ends else None


def rfc3339(at_s: float) -> str:
    """Unix seconds as RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(int(at_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
