"""Holders that wait: one blocking read a flow and process, however many holders wait in it."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Coroutine, Iterable
from typing import Any, Protocol

import msgspec

from switchroom.errors import SwitchroomError
from switchroom.queue.codec import Own, Standing
from switchroom.store import Store, keys

log = logging.getLogger(__name__)

_BLOCK_S = 5
_AT_ONCE = 64


class Given(msgspec.Struct, frozen=True, array_like=True):
    """What a run puts into the inbox: a holder that is to look, or one with the call that it now holds."""

    owner: str
    task_id: str = ""
    token: int = 0
    standing: Standing | None = None
    own: Own | None = None
    payload: str = ""


_decode = msgspec.msgpack.Decoder(Given).decode


class Arrivals(Protocol):
    """What is told the store of what came out of the inbox."""

    async def took(self, flow_id: str, given: Given, lease_ms: int) -> None:
        """The call arrived: its lease is the full one from here on."""

    async def hand_back(self, flow_id: str, given: Given) -> None:
        """Nobody is there for it any more."""

    async def pass_on(self, flow_id: str) -> None:
        """The holder that was to look has left: another one is to."""


class Waiter:
    """One holder that waits in some flows of this process. `lease_ms` is that of the calls it is given."""

    def __init__(self, lease_ms: int) -> None:
        self.lease_ms = lease_ms
        self._event = asyncio.Event()
        self._woken: set[str] = set()
        self._given: list[Given] = []

    def wake(self, flow_id: str) -> None:
        self._woken.add(flow_id)
        self._event.set()

    def give(self, given: Given) -> None:
        self._given.append(given)
        self._event.set()

    async def woken(self) -> None:
        await self._event.wait()

    def take(self) -> tuple[set[str], list[Given]]:
        """The flows that woke it since it asked the last time: it owes each of them a look, or a wake for another; and
        the calls that it was given."""
        woken, self._woken = self._woken, set()
        given, self._given = self._given, []
        self._event.clear()
        return woken, given


class Inbox:
    """The inbox of this process. A run that makes a call available puts there which holder is to look, or the call that
    a holder was given."""

    def __init__(self, store: Store, arrivals: Arrivals) -> None:
        self.name = uuid.uuid4().hex
        self._store = store
        self._arrivals = arrivals
        self._waiters: dict[str, dict[str, Waiter]] = {}
        self._readers: dict[str, asyncio.Task[None]] = {}
        self._telling: set[asyncio.Task[None]] = set()

    def expect(self, owner: str, flow_ids: Iterable[str], lease_ms: int) -> Waiter:
        """Whom a wake for this holder in any of these flows reaches."""
        waiter = Waiter(lease_ms)
        for flow_id in flow_ids:
            self._waiters.setdefault(flow_id, {})[owner] = waiter
            if flow_id not in self._readers:
                self._readers[flow_id] = asyncio.create_task(self._read(flow_id), name=f"queue-inbox-{flow_id}")
        return waiter

    def forget(self, owner: str, flow_ids: Iterable[str], waiter: Waiter) -> None:
        for flow_id in flow_ids:
            if self._waiters.get(flow_id, {}).get(owner) is waiter:
                del self._waiters[flow_id][owner]

    async def close(self) -> None:
        tasks = [*self._readers.values(), *self._telling]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, flow_id: str) -> None:
        key = keys.queue_inbox(flow_id, self.name)
        try:
            while self._waiters[flow_id]:
                try:
                    reply = await self._store.blocking(
                        "BLMPOP", _BLOCK_S, 1, key, "LEFT", "COUNT", _AT_ONCE, timeout_s=_BLOCK_S + 5
                    )
                except SwitchroomError as error:
                    log.warning("waiting holders lost the store", extra={"detail": error.detail})
                    await asyncio.sleep(0.2)
                    continue
                for message in reply[1] if reply else ():
                    self._arrived(flow_id, _decode(message))
        finally:
            del self._readers[flow_id]
            if not self._waiters.get(flow_id):
                self._waiters.pop(flow_id, None)

    def _arrived(self, flow_id: str, given: Given) -> None:
        waiter = self._waiters[flow_id].get(given.owner)
        if waiter is None:
            self.tell(self._arrivals.hand_back(flow_id, given) if given.task_id else self._arrivals.pass_on(flow_id))
        elif given.task_id:
            waiter.give(given)
            self.tell(self._arrivals.took(flow_id, given, waiter.lease_ms))
        else:
            waiter.wake(flow_id)

    def tell(self, word: Coroutine[Any, Any, None]) -> None:
        """Says it beside what goes on. What is lost of it the timer of housekeeping mends."""
        task = asyncio.create_task(self._told(word))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    @staticmethod
    async def _told(word: Coroutine[Any, Any, None]) -> None:
        try:
            await word
        except SwitchroomError as error:
            log.warning("the store was not told what became of a call", extra={"detail": error.detail})
