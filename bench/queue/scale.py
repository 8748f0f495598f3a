"""What a long line costs: the store's CPU for an enqueue and for a claim, and the bytes of a pending call."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import uvloop
from machine import SERVER_CORE, cpu_s, valkey

sys.path.insert(0, str(Path(__file__).parent / "peers"))

import jobs
import ours

from switchroom.queue import Queue
from switchroom.store import Store

SAMPLE = 3_000
AT_ONCE = 200


@dataclass(frozen=True)
class Cost:
    """CPU of the store in µs, with so many calls pending; bytes of one of them."""

    pending: int
    enqueue_us: float
    claim_us: float
    call_bytes: float


def costs(sizes: list[int]) -> list[Cost]:
    """The same store, filled up from size to size."""
    with valkey() as (port, pid):
        os.sched_setaffinity(0, {SERVER_CORE})
        return uvloop.run(_costs(f"redis://127.0.0.1:{port}", pid, sizes))


async def _costs(url: str, pid: int, sizes: list[int]) -> list[Cost]:
    store = await Store.connect(url)
    # A rewrite of the append-only file in the background would be counted as our work.
    await store.call("CONFIG", "SET", "auto-aof-rewrite-percentage", "0")
    queue = Queue(store)
    await queue.configure(ours.FLOW, ours.RULES)
    numbers = count()
    empty = await _memory(store)
    found = []
    for size in sizes:

        async def put() -> None:
            call = ours.call_of(*jobs.payload(next(numbers)), 0)
            await queue.enqueue(ours.FLOW, call, ours.RULES)

        async def claim() -> None:
            [held] = await queue.claim(ours.FLOW, "bench", answered=True, lease_ms=3_600_000)
            assert held.attempt == 1

        await _many(put, size - (await queue.status(ours.FLOW, limit=1)).pending_count)
        call_bytes = (await _memory(store) - empty) / size
        # In turns, so that the line keeps its length and both see the same moments of a shared machine.
        spent = {put: 0.0, claim: 0.0}
        for _ in range(SAMPLE // AT_ONCE):
            for work in (put, claim):
                before = cpu_s(pid)
                await _many(work, AT_ONCE)
                spent[work] += cpu_s(pid) - before
        found.append(Cost(size, spent[put] / SAMPLE * 1e6, spent[claim] / SAMPLE * 1e6, call_bytes))
    await store.close()
    return found


async def _many(work: Callable[[], Awaitable[None]], times: int) -> None:
    turns: Iterator[int] = iter(range(times))

    async def some() -> None:
        for _ in turns:
            await work()

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))


async def _memory(store: Store) -> int:
    info: bytes = await store.call("INFO", "memory")
    return next(int(line.split(b":")[1]) for line in info.splitlines() if line.startswith(b"used_memory_dataset:"))


if __name__ == "__main__":
    for cost in costs([int(word) for word in sys.argv[1:]] or [1_000, 20_000]):
        print(cost, flush=True)
