"""What one API process tells all of them, itself included: one stream in the store, one blocking read a process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from switchroom.errors import Unavailable
from switchroom.store import Store, keys

log = logging.getLogger(__name__)

_KEPT = 10_000
_BLOCK_MS = 10_000
_AGAIN_S = 0.5

Listener = Callable[[dict[str, Any]], None]


class Broadcast:
    """`publish` reaches the listeners of every process that runs `run`; a process that starts later hears nothing of
    what was before."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._listeners: dict[str, list[Listener]] = {}
        self._last = "0-0"

    def listen(self, kind: str, listener: Listener) -> None:
        """`listener` is called on the event loop and must not wait."""
        self._listeners.setdefault(kind, []).append(listener)

    async def publish(self, kind: str, body: dict[str, Any]) -> None:
        await self._store.call(
            "XADD", keys.broadcast(), "MAXLEN", "~", _KEPT, "*", "k", kind, "d", msgspec.json.encode(body)
        )

    async def start(self) -> None:
        """Finds where the stream stands: whatever is published after this returns is heard."""
        newest = await self._store.call("XREVRANGE", keys.broadcast(), "+", "-", "COUNT", 1)
        if newest:
            self._last = newest[0][0].decode()

    async def run(self) -> None:
        """Until cancelled. A store that is away is waited for."""
        while True:
            try:
                reply = await self._store.blocking(
                    "XREAD",
                    "COUNT",
                    1_000,
                    "BLOCK",
                    _BLOCK_MS,
                    "STREAMS",
                    keys.broadcast(),
                    self._last,
                    timeout_s=_BLOCK_MS / 1000 + 5,
                )
            except Unavailable as error:
                log.warning("broadcast lost the store", extra={"detail": str(error)})
                await asyncio.sleep(_AGAIN_S)
                continue
            for event_id, fields in reply[0][1] if reply else ():
                self._last = event_id.decode()
                self._hear(fields)

    def _hear(self, fields: list[bytes]) -> None:
        members = dict(zip(fields[::2], fields[1::2], strict=True))
        kind, body = members[b"k"].decode(), msgspec.json.decode(members[b"d"])
        for listener in self._listeners.get(kind, ()):
            try:
                listener(body)
            except Exception:
                # One listener's fault must not end the reading for the others.
                log.exception("a listener failed", extra={"kind": kind})


BROADCAST = web.AppKey("broadcast", Broadcast)
