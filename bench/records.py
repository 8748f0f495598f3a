"""What records and keys cost: rows begun, saved, listed and exported; a stored key checked.

    python bench/records.py [--rows 20000]

Times are of this process's clock and CPU; the store is embedded, with an fsync before each answer. What else ran on the
machine belongs to the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from switchroom.access import Access, Scope
from switchroom.ids import new_uuid
from switchroom.records import Execution, ExecutionFilter, Executions, ExecutionState
from switchroom.store import Blobs, EmbeddedServer, Store

FLOWS = 10
AT_ONCE = 64


def row(number: int) -> Execution:
    now = time.time_ns() // 1_000_000
    nodes = [
        {"node_id": f"n{index}", "label": "Agent", "node_kind": "agent", "output": {"content": "some words " * 10}}
        for index in range(10)
    ]
    return Execution(
        id=new_uuid(), flow_id=f"flow-{number % FLOWS}", session_id=f"s{number % 500}", kind="turn",
        graph_hash="sha256:0", created_ms=now, updated_ms=now, nodes=nodes,
    )  # fmt: skip


async def many(what: Callable[[Execution], Awaitable[object]], rows: list[Execution]) -> tuple[float, float]:
    """Microseconds a row: of the clock, and of this process's CPU."""
    clock, cpu = time.perf_counter(), time.process_time()
    for at in range(0, len(rows), AT_ONCE):
        await asyncio.gather(*(what(one) for one in rows[at : at + AT_ONCE]))
    return (time.perf_counter() - clock) / len(rows) * 1e6, (time.process_time() - cpu) / len(rows) * 1e6


async def median_ms(what: Callable[[], Awaitable[object]], times: int = 30) -> float:
    took = []
    for _ in range(times):
        started = time.perf_counter()
        await what()
        took.append((time.perf_counter() - started) * 1e3)
    return statistics.median(took)


async def measure(folder: Path, count: int) -> None:
    server = EmbeddedServer(folder)
    store = Store(await server.start())
    records = Executions(store, Blobs(folder / "blobs"))
    table = Table("what", "figure")
    rows = [row(number) for number in range(count)]
    for name, work in (("begin", records.begin), ("save, ten nodes", records.save)):
        clock, cpu = await many(work, rows)
        table.add_row(f"{name}, {AT_ONCE} at once", f"{clock:.0f} us, {cpu:.0f} us of our CPU")
    await many(lambda one: records.finish(one, ExecutionState.FINISHED), rows[: count // 2])
    table.add_row("first page", f"{await median_ms(lambda: records.search(ExecutionFilter())):.1f} ms")
    deep = await median_ms(lambda: records.search(ExecutionFilter(), page=1_000), times=5)
    table.add_row("page 1,000", f"{deep:.0f} ms")
    both = ExecutionFilter(session_id="s7", state=ExecutionState.FINISHED)
    table.add_row("two filters", f"{await median_ms(lambda: records.search(both)):.1f} ms")
    started = time.perf_counter()
    exported = len([one async for one in records.export(ExecutionFilter())])
    table.add_row("export", f"{exported / (time.perf_counter() - started):,.0f} rows/s")

    access = Access(store)
    key, _ = await access.create("bench", [Scope.RUN])
    await access.check(key, Scope.RUN)
    started = time.process_time()
    for _ in range(20_000):
        await access.check(key, Scope.RUN)
    table.add_row("a key from the cache", f"{(time.process_time() - started) / 20_000 * 1e6:.1f} us")
    started = time.process_time()
    hashlib.scrypt(b"key", salt=b"salt", n=2**14, r=8, p=1)
    table.add_row("scrypt (n = 2^14), for comparison", f"{(time.process_time() - started) * 1e3:.0f} ms")
    await store.close()
    await server.stop()
    Console().print(f"{count:,} rows in {FLOWS} flows; load {os.getloadavg()[0]:.1f}")
    Console().print(table)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--rows", type=int, default=20_000)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), asked.parse_args().rows))


if __name__ == "__main__":
    main()
