"""Waiting for a flow's queue to change: one blocking read a flow and process, however many wait on it."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from switchroom.errors import Unavailable
from switchroom.store import Store, keys

log = logging.getLogger(__name__)

_BLOCK_MS = 10_000
_IDLE_READS = 3
"""Empty reads without anybody waiting after which a flow is not followed any more."""


class Feed:
    """Follows the event streams of the flows that somebody waits on."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._last: dict[str, str] = {}
        self._changed: dict[str, asyncio.Condition] = {}
        self._waiting: dict[str, int] = {}
        self._readers: dict[str, asyncio.Task[None]] = {}

    async def wait(self, flow_id: str, after: str, timeout_s: float) -> str:
        """Returns the newest event ID of the flow once it differs from `after`, or after `timeout_s` what it is."""
        self._follow(flow_id, after)
        self._waiting[flow_id] = self._waiting.get(flow_id, 0) + 1
        condition = self._changed[flow_id]
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s), condition:
                    await condition.wait_for(lambda: _newer(self._last[flow_id], after))
            return max(self._last.get(flow_id, after), after, key=_parts)
        finally:
            self._waiting[flow_id] -= 1

    async def close(self) -> None:
        readers = list(self._readers.values())
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)

    def _follow(self, flow_id: str, after: str) -> None:
        if flow_id in self._readers:
            # An older wish than what we read from: look again from there, the stream has it.
            if _newer(after, self._last[flow_id]):
                self._last[flow_id] = after
            return
        self._last[flow_id] = after
        self._changed[flow_id] = asyncio.Condition()
        self._readers[flow_id] = asyncio.create_task(self._read(flow_id), name=f"queue-feed-{flow_id}")

    async def _read(self, flow_id: str) -> None:
        idle = 0
        try:
            while idle < _IDLE_READS or self._waiting.get(flow_id):
                try:
                    reply = await self._store.blocking(
                        "XREAD",
                        "COUNT",
                        1_000,
                        "BLOCK",
                        _BLOCK_MS,
                        "STREAMS",
                        keys.queue_events(flow_id),
                        self._last[flow_id],
                        timeout_s=_BLOCK_MS / 1000 + 5,
                    )
                except Unavailable as error:
                    log.warning("queue feed lost the store", extra={"detail": str(error)})
                    await asyncio.sleep(0.5)
                    continue
                if not reply:
                    idle += 1
                    continue
                idle = 0
                newest = reply[0][1][-1][0].decode()
                async with self._changed[flow_id]:
                    self._last[flow_id] = newest
                    self._changed[flow_id].notify_all()
        finally:
            del self._readers[flow_id]


def _parts(event_id: str) -> tuple[int, int]:
    time, _, number = event_id.partition("-")
    return int(time), int(number or 0)


def _newer(event_id: str, than: str) -> bool:
    return _parts(event_id) > _parts(than)
