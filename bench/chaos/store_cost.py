"""What a cluster and `replicas_ack` cost: enqueues of 64 at a time straight into the queue, without HTTP.

`python bench/chaos/store_cost.py`: one server, then a cluster of three primaries with a replica each, on this machine;
each measured in turn, several rounds, medians. CPU is this process's own. Replicas on the same disk and cores as their
primaries are the worst case for the waiting time.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "store"))
from cluster import Cluster

from switchroom.queue import NewCall, Queue, Rules
from switchroom.store import EmbeddedServer, Store

CALLS = 3_000
AT_ONCE = 64
ROUNDS = 5
RULES = Rules(duplicates="allow", cap=0)


async def enqueue(store: Store, flow: str) -> tuple[float, float, float]:
    """µs of CPU a call, calls a second, p99 in ms."""
    queue = Queue(store)
    times: list[float] = []
    left = iter(range(CALLS))

    async def one() -> None:
        for number in left:
            began = time.perf_counter()
            await queue.enqueue(flow, NewCall(form={"ID": f"+{number}", "ticket": "T" * 380}), RULES)
            times.append(time.perf_counter() - began)

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(one() for _ in range(AT_ONCE)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return cpu / CALLS * 1e6, CALLS / wall, statistics.quantiles(times, n=100)[98] * 1e3


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="sr-cost-") as folder:
        server = EmbeddedServer(Path(folder) / "store", fsync="everysec")
        cluster = Cluster(replicas=3)
        await server.start()
        await cluster.start()
        stores = {
            "one server": Store(server.url),
            "cluster": Store(cluster.url),
            "cluster, replicas_ack 1": Store(cluster.url, replicas_ack=1),
        }
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in stores}
        for number in range(ROUNDS):
            for name, store in stores.items():
                found[name].append(await enqueue(store, f"flow{number}{name[-1]}"))
        for name, rows in found.items():
            cpu, rate, p99 = (statistics.median(column) for column in zip(*rows, strict=True))
            print(f"{name:<24} {cpu:6.0f} µs CPU a call  {rate:7,.0f} calls/s  p99 {p99:6.1f} ms")
        print(f"{os.cpu_count()} cores, load {os.getloadavg()}")
        for store in stores.values():
            await store.close()
        await cluster.stop()
        await server.stop()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
