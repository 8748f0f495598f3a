"""Waking holders that wait: one blocking read a flow and process, however many holders wait in it."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterable

from switchroom.errors import Unavailable
from switchroom.store import Store, keys

log = logging.getLogger(__name__)

_BLOCK_S = 5


class Waiter:
    """One holder that waits in some flows of this process."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._woken: set[str] = set()

    def wake(self, flow_id: str) -> None:
        self._woken.add(flow_id)
        self._event.set()

    async def woken(self) -> None:
        await self._event.wait()

    def take(self) -> set[str]:
        """The flows that woke it since it asked the last time: it owes each of them a look, or a wake for another."""
        woken, self._woken = self._woken, set()
        self._event.clear()
        return woken


class Wakes:
    """The inbox of this process. A script that makes a call available puts the name of the holder that is to take it
    there; `mend` is called with the flow for a holder that has left meanwhile, so that another one is woken."""

    def __init__(self, store: Store, mend: Callable[[str], Awaitable[object]]) -> None:
        self.inbox = uuid.uuid4().hex
        self._store = store
        self._mend = mend
        self._waiters: dict[str, dict[str, Waiter]] = {}
        self._readers: dict[str, asyncio.Task[None]] = {}

    def expect(self, owner: str, flow_ids: Iterable[str]) -> Waiter:
        """Whom a wake for this holder in any of these flows reaches."""
        waiter = Waiter()
        for flow_id in flow_ids:
            self._waiters.setdefault(flow_id, {})[owner] = waiter
            if flow_id not in self._readers:
                self._readers[flow_id] = asyncio.create_task(self._read(flow_id), name=f"queue-wakes-{flow_id}")
        return waiter

    def forget(self, owner: str, flow_ids: Iterable[str], waiter: Waiter) -> None:
        for flow_id in flow_ids:
            if self._waiters.get(flow_id, {}).get(owner) is waiter:
                del self._waiters[flow_id][owner]

    async def close(self) -> None:
        readers = list(self._readers.values())
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)

    async def _read(self, flow_id: str) -> None:
        key = keys.queue_inbox(flow_id, self.inbox)
        try:
            while self._waiters[flow_id]:
                try:
                    reply = await self._store.blocking("BZPOPMIN", key, _BLOCK_S, timeout_s=_BLOCK_S + 5)
                except Unavailable as error:
                    log.warning("waiting holders lost the store", extra={"detail": str(error)})
                    await asyncio.sleep(0.2)
                    continue
                if not reply:
                    continue
                waiter = self._waiters[flow_id].get(reply[1].decode())
                if waiter is not None:
                    waiter.wake(flow_id)
                else:
                    await self.pass_on(flow_id)
        finally:
            del self._readers[flow_id]
            if not self._waiters.get(flow_id):
                self._waiters.pop(flow_id, None)

    async def pass_on(self, flow_id: str) -> None:
        """Wakes another holder for what the one that was woken did not look at."""
        try:
            await self._mend(flow_id)
        except Unavailable as error:  # the timer of housekeeping mends it too
            log.warning("a wake could not be passed on", extra={"detail": str(error)})
