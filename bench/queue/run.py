"""The queue's claims, peers and us in one run on the same Valkey (the wheel's), same fsync policy, same payload.

    python bench/queue/run.py [--quick] [--repeats N] [http durability latency drain crash scale]

Needs wrk and node; the peers are installed once into the user's cache folder. CPU of the measured process comes first:
these machines are shared. `foreign` is what other processes took of the machine meanwhile, in cores. Peers and we
alternate; each figure is the median of the repeats, with the least and the most beside it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import http_enqueue
import scale
import workers
from machine import CORES, LOAD_CORE, SERVER_CORE
from rich.console import Console
from rich.table import Table

console = Console(width=150)


def repeated(names: Iterable[str], repeats: int, measure: Callable[[str], Any]) -> dict[str, list[Any]]:
    """All names in turn, again and again; one that fails is said and left out."""
    found: dict[str, list[Any]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in list(found):
            try:
                found[name].append(measure(name))
            except Exception as error:
                console.print(f"[red]{name}: {error}")
                found.pop(name)
    return found


def median(samples: Sequence[Any], field: str) -> float:
    return statistics.median(getattr(sample, field) for sample in samples)


def spread(samples: Sequence[Any], field: str, digits: int = 0) -> str:
    values = [getattr(sample, field) for sample in samples]
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def http(quick: bool, repeats: int) -> None:
    seconds = 2 if quick else 4
    names = list(http_enqueue.SERVERS)
    found = repeated(names, repeats, lambda name: http_enqueue.sample(name, seconds=seconds))
    us = median(found["switchroom"], "server_us")
    show(
        f"HTTP enqueue, 64 connections, everysec; {repeats} runs of {seconds} s",
        ["server", "CPU µs/request", "against us", "store µs", "requests/s", "p50 ms", "p99 ms", "failed", "foreign"],
        (
            [
                name,
                spread(samples, "server_us"),
                f"{median(samples, 'server_us') / us:.2f}x",
                spread(samples, "store_us"),
                spread(samples, "requests_s"),
                f"{median(samples, 'p50_ms'):.1f}",
                f"{median(samples, 'p99_ms'):.1f}",
                str(sum(sample.failed for sample in samples)),
                spread(samples, "foreign", 1),
            ]
            for name, samples in found.items()
        ),
    )


def durability(quick: bool, repeats: int) -> None:
    modes = [(fsync, connections) for fsync in ("everysec", "always") for connections in (1, 64)]
    rows = []
    for fsync, connections in modes:
        samples = [
            http_enqueue.sample("switchroom", connections=connections, seconds=2, fsync=fsync) for _ in range(repeats)
        ]
        figures = [spread(samples, "requests_s"), spread(samples, "p50_ms", 2), spread(samples, "p99_ms", 2)]
        rows.append([fsync, str(connections), *figures, spread(samples, "server_us"), spread(samples, "foreign", 1)])
    show(
        "Durability: our enqueue",
        ["appendfsync", "connections", "requests/s", "p50 ms", "p99 ms", "CPU µs/request", "foreign"],
        rows,
    )


def latency(quick: bool, repeats: int) -> None:
    count = 150 if quick else 300
    found = repeated(workers.NAMES, repeats, lambda name: workers.latency(name, count))
    rows = [
        [name, spread(runs, "p50_ms", 2), spread(runs, "p99_ms", 2), spread(runs, "foreign", 1)]
        for name, runs in found.items()
    ]
    show(f"Enqueue to start, idle; {repeats} runs of {count} calls", ["library", "p50 ms", "p99 ms", "foreign"], rows)


def drain(quick: bool, repeats: int) -> None:
    count = 4_000 if quick else 20_000
    slow = ("arq", "saq", "streaq")
    for one_core in (False, True):
        names = ("switchroom", "bullmq") if one_core else workers.NAMES
        measure = partial(workers.drain, one_core=one_core)
        found = repeated(names, repeats, lambda name, go=measure: go(name, count // 5 if name in slow else count))
        bull = median(found["bullmq"], "jobs_s") if found.get("bullmq") else float("nan")
        where = "worker and store on one core" if one_core else "worker and store on a core each"
        show(
            f"Drain of {count} no-op calls by one worker process, 64 at once; {where} ({', '.join(slow)}: a fifth)",
            ["library", "calls/s", "against BullMQ", "worker CPU µs", "store CPU µs", "foreign"],
            (
                [
                    name,
                    spread(runs, "jobs_s"),
                    f"{median(runs, 'jobs_s') / bull:.2f}x",
                    spread(runs, "worker_us"),
                    spread(runs, "store_us"),
                    spread(runs, "foreign", 1),
                ]
                for name, runs in found.items()
            ),
        )


def crash(quick: bool, repeats: int) -> None:
    limit_s = 100.0
    rows = []
    for name in ("switchroom", "bullmq") if quick else workers.NAMES:
        # A peer takes a minute or more: once.
        found = [workers.crash(name, limit_s=limit_s) for _ in range(repeats if name == "switchroom" else 1)]
        told = ", ".join(f"not within {limit_s:.0f}" if s is None else f"{s:.1f}" for s in found)
        leases = [s / workers.LEASE_S for s in found if s is not None] if name == "switchroom" else []
        rows.append([name, told, f"{max(leases):.2f}" if leases else ""])
    show(
        f"kill -9 of the only holder with 8 calls, a new one at once (our lease is {workers.LEASE_S:.0f} s)",
        ["library, as it comes", "all held again after s", "leases"],
        rows,
    )


def long_line(quick: bool, repeats: int) -> None:
    sizes = [1_000, 20_000] if quick else [1_000, 100_000, 1_000_000]
    found = scale.costs(sizes)
    first = found[0]
    show(
        "A long line: CPU of the store in µs",
        ["pending", "enqueue", "against 1,000", "claim and answer", "against 1,000", "bytes a pending call"],
        (
            [
                f"{cost.pending:,}",
                f"{cost.enqueue_us:.0f}",
                f"{cost.enqueue_us / first.enqueue_us:.2f}x",
                f"{cost.claim_us:.0f}",
                f"{cost.claim_us / first.claim_us:.2f}x",
                f"{cost.call_bytes:,.0f}",
            ]
            for cost in found
        ),
    )


PARTS = {"http": http, "durability": durability, "latency": latency, "drain": drain, "crash": crash, "scale": long_line}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help="of " + ", ".join(PARTS) + "; all by default")
    parser.add_argument("--quick", action="store_true", help="one short run of each: does it work, not how fast")
    parser.add_argument("--repeats", type=int, help="of each measure (3; with --quick 1); the median is shown")
    chosen = parser.parse_args()
    repeats = chosen.repeats or (1 if chosen.quick else 3)
    console.print(
        f"{len(CORES)} cores, load {os.getloadavg()[0]:.1f}; measured on core {SERVER_CORE}, store and load on "
        f"core {LOAD_CORE}; Python {sys.version.split()[0]}"
    )
    for name in chosen.parts or PARTS:
        PARTS[name](chosen.quick, repeats)
    console.print(f"load at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
