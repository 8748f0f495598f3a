"""Waiting for a flow's queue to change: one blocking read a flow and process, however many wait on it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Iterable
from itertools import islice

from redis.exceptions import ResponseError

from switchroom.errors import Unavailable
from switchroom.queue.codec import decode_events, entry_before, event_order, last_event_id, last_of_entry, pairs
from switchroom.queue.model import QueueEvent
from switchroom.store import Store, keys

log = logging.getLogger(__name__)

_BLOCK_MS = 10_000
_IDLE_READS = 3
"""Empty reads without anybody waiting after which a flow is not followed any more."""
_KEPT = 1_000
"""The newest changes of a followed flow that are kept here; whoever is further behind reads them from the store."""


async def events_after(store: Store, flow_id: str, after: str, limit: int) -> list[QueueEvent]:
    """The changes after an event ID, oldest first; of at most `limit` stream entries."""
    rows = await store.call("XRANGE", keys.queue_events(flow_id), f"({entry_before(after)}", "+", "COUNT", limit)
    return [event for event in _decode(flow_id, rows) if _newer(event.id, after)]


class Feed:
    """Follows the event streams of the flows that somebody waits on."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._followed: dict[str, _Followed] = {}

    async def wait(self, flow_id: str, after: str, timeout_s: float) -> str:
        """Returns the newest event ID of the flow once it differs from `after`, or after `timeout_s` what it is."""
        followed = await self._beyond(flow_id, after, timeout_s)
        return max(followed.last, after, key=event_order)

    async def changes(self, flow_id: str, after: str, *, timeout_s: float, limit: int = _KEPT) -> list[QueueEvent]:
        """The flow's changes after an event ID, oldest first, at most `limit`; none after `timeout_s` without any.

        What the stream does not keep any more is left out: ask `position` about it.
        """
        followed = await self._beyond(flow_id, after, timeout_s)
        if not _newer(followed.last, after):
            return []
        if not _newer(followed.since, after):
            return list(islice((event for event in followed.kept if _newer(event.id, after)), limit))
        return (await events_after(self._store, flow_id, after, limit))[:limit]

    async def position(self, flow_id: str, after: str = "0-0") -> tuple[str, bool]:
        """The flow's newest event ID, and whether changes after `after` may have left the stream already."""
        try:
            stream = pairs(await self._store.call("XINFO", "STREAM", keys.queue_events(flow_id)))
        except ResponseError:  # the flow never had a call: no stream, and nothing lost
            return "0-0", False
        trimmed = stream[b"entries-added"] > stream[b"length"]
        oldest = last_event_id(stream[b"recorded-first-entry-id"].decode())
        newest = last_event_id(stream[b"last-generated-id"].decode())
        return newest, trimmed and _newer(oldest, last_of_entry(after))

    async def close(self) -> None:
        readers = [followed.reader for followed in self._followed.values()]
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)

    async def _beyond(self, flow_id: str, after: str, timeout_s: float) -> _Followed:
        """The flow's follower, once it knows a change after `after` or the time is over."""
        followed = self._followed.get(flow_id)
        if followed is None:
            followed = self._followed[flow_id] = _Followed(after)
            followed.reader = asyncio.create_task(self._read(flow_id, followed), name=f"queue-feed-{flow_id}")
        followed.waiting += 1
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s), followed.changed:
                    # Known already, or read next: an ID that another process saw is in the stream.
                    await followed.changed.wait_for(lambda: _newer(followed.last, after))
            return followed
        finally:
            followed.waiting -= 1

    async def _read(self, flow_id: str, followed: _Followed) -> None:
        idle = 0
        try:
            while idle < _IDLE_READS or followed.waiting:
                try:
                    reply = await self._store.blocking(
                        "XREAD",
                        "COUNT",
                        _KEPT,
                        "BLOCK",
                        _BLOCK_MS,
                        "STREAMS",
                        keys.queue_events(flow_id),
                        followed.entry,
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
                rows = reply[0][1]
                events = _decode(flow_id, rows)
                async with followed.changed:
                    followed.entry = rows[-1][0].decode()
                    followed.take(events)
                    followed.changed.notify_all()
        finally:
            del self._followed[flow_id]


class _Followed:
    """What this process knows of one flow's stream: everything after `since`, up to `last`."""

    reader: asyncio.Task[None]

    def __init__(self, after: str) -> None:
        self.since = after
        self.last = after
        self.entry = entry_before(after)
        """The stream entry after which it reads on."""
        self.kept: deque[QueueEvent] = deque()
        self.changed = asyncio.Condition()
        self.waiting = 0

    def take(self, events: list[QueueEvent]) -> None:
        self.kept.extend(event for event in events if _newer(event.id, self.last))
        self.last = max(self.last, events[-1].id, key=event_order)
        while len(self.kept) > _KEPT:
            self.since = self.kept.popleft().id


def _decode(flow_id: str, rows: Iterable[tuple[bytes, list[bytes]]]) -> list[QueueEvent]:
    return [event for entry_id, fields in rows for event in decode_events(flow_id, entry_id, fields)]


def _newer(event_id: str, than: str) -> bool:
    return event_order(event_id) > event_order(than)
