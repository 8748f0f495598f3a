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
    """One store, one flow a size; their samples are taken in turns, so that all see the same moments of the machine."""
    with valkey() as (port, pid):
        os.sched_setaffinity(0, {SERVER_CORE})
        return uvloop.run(_costs(f"redis://127.0.0.1:{port}", pid, sizes))


async def _costs(url: str, pid: int, sizes: list[int]) -> list[Cost]:
    store = await Store.connect(url)
    # A rewrite of the append-only file in the background would be counted as our work.
    await store.call("CONFIG", "SET", "auto-aof-rewrite-percentage", "0")
    queue = Queue(store)
    numbers = count()
    call_bytes = {}

    async def put(flow_id: str) -> None:
        await queue.enqueue(flow_id, ours.call_of(*jobs.payload(next(numbers)), 0), ours.RULES)

    async def claim(flow_id: str) -> None:
        [held] = await queue.claim(flow_id, "bench", answered=True, lease_ms=3_600_000)
        assert held.attempt == 1

    for size in sizes:
        await queue.configure(f"line-{size}", ours.RULES)
        before = await _memory(store)
        await _many(put, f"line-{size}", size)
        call_bytes[size] = (await _memory(store) - before) / size
    spent = {(work, size): 0.0 for work in (put, claim) for size in sizes}
    for _ in range(SAMPLE // AT_ONCE):
        for work, size in spent:
            start = cpu_s(pid)
            await _many(work, f"line-{size}", AT_ONCE)
            spent[work, size] += cpu_s(pid) - start
    await store.close()
    return [
        Cost(size, spent[put, size] / SAMPLE * 1e6, spent[claim, size] / SAMPLE * 1e6, call_bytes[size])
        for size in sizes
    ]


async def _many(work: Callable[[str], Awaitable[None]], flow_id: str, times: int) -> None:
    turns: Iterator[int] = iter(range(times))

    async def some() -> None:
        for _ in turns:
            await work(flow_id)

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))


async def _memory(store: Store) -> int:
    info: bytes = await store.call("INFO", "memory")
    return next(int(line.split(b":")[1]) for line in info.splitlines() if line.startswith(b"used_memory_dataset:"))


if __name__ == "__main__":
    for cost in costs([int(word) for word in sys.argv[1:]] or [1_000, 20_000]):
        print(cost, flush=True)
