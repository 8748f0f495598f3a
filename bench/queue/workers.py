"""What a holder sees: how fast a call starts on an idle system, how fast a backlog drains, how soon a dead holder's
calls are held again. Library against library: no HTTP."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tools
from machine import LOAD_CORE, SERVER_CORE, START_S, Meter, Program, awake, valkey

HERE = Path(__file__).parent
NAMES = ("switchroom", "bullmq", "saq", "streaq", "taskiq", "arq")
LEASE_S = 5.0


@dataclass(frozen=True)
class Run:
    """One worker's run over so many jobs; CPU in µs a job."""

    jobs_s: float
    worker_us: float
    store_us: float
    p50_ms: float
    p99_ms: float
    foreign: float


def command(name: str, *words: object) -> tuple[list[str], dict[str, str]]:
    """The program of a peer (or ours) with its environment."""
    said = [str(word) for word in words]
    if name == "switchroom":
        return [sys.executable, str(HERE / "ours.py"), *said], {}
    if name == "bullmq":
        home = tools.node_home()
        assert home is not None
        return ["node", str(tools.PEERS / "bullmq_peer.js"), *said], {"NODE_PATH": str(home / "node_modules")}
    return [str(tools.peer_python(name)), str(tools.PEERS / f"{name}_peer.py"), *said], {"PYTHONPATH": ""}


def produce(name: str, port: int, count: int, gap_ms: int) -> None:
    words, environment = command(name, "produce", port, count, gap_ms)
    subprocess.run(
        ["taskset", "-c", str(LOAD_CORE), *words],
        env={**os.environ, **environment},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@contextlib.contextmanager
def worker(name: str, port: int, count: int) -> Iterator[Program]:
    words, environment = command(name, "work", port, count)
    with Program(words, SERVER_CORE, environment, ready="ready") as program:
        yield program


def result(program: Program, timeout_s: float) -> list[float]:
    """The numbers of the worker's `RESULT` line."""
    assert program.process.stdout is not None
    killer = _Killer(program, timeout_s)
    with killer:
        for line in program.process.stdout:
            if line.startswith("RESULT "):
                return [float(word) for word in line.split()[1:]]
    raise RuntimeError(f"{' '.join(program.command)} gave no result within {timeout_s:.0f} s")


class _Killer:
    """Ends a program that takes too long, so that reading its lines ends too."""

    def __init__(self, program: Program, timeout_s: float) -> None:
        import threading

        self._timer = threading.Timer(timeout_s, program.end, (signal.SIGKILL,))

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *error: object) -> None:
        self._timer.cancel()


def latency(name: str, count: int, gap_ms: int = 10, fsync: str = "everysec") -> Run:
    """Enqueue to start, one call at a time, the worker idle before each; no core halts meanwhile."""
    with awake() as spinners, valkey(fsync) as (port, store_pid), worker(name, port, count) as program:
        time.sleep(1.0)
        meter = Meter({"store": store_pid} | {f"spinner {pid}": pid for pid in spinners})
        meter.start()
        produce(name, port, count, gap_ms)
        numbers = result(program, 60)
        meter.stop()
    return _run(numbers, meter)


def drain(name: str, count: int, *, one_core: bool = False, fsync: str = "everysec") -> Run:
    """A backlog of no-op calls through one worker process, from the first start to the last; with `one_core` the store
    shares the worker's core, so that the rate tells what both of them spend."""
    with valkey(fsync, SERVER_CORE if one_core else LOAD_CORE) as (port, store_pid):
        produce(name, port, count, 0)
        meter = Meter({"store": store_pid})
        meter.start()
        with worker(name, port, count) as program:
            numbers = result(program, 180)
            meter.stop()
    return _run(numbers, meter)


def _run(numbers: list[float], meter: Meter) -> Run:
    count, seconds, cpu_s, p50, p99 = numbers
    return Run(
        jobs_s=count / seconds,
        worker_us=cpu_s / count * 1e6,
        store_us=meter.spent_s["store"] / count * 1e6,
        p50_ms=p50,
        p99_ms=p99,
        foreign=meter.foreign,
    )


def crash(name: str = "switchroom", calls: int = 8, limit_s: float = 100.0) -> float | None:
    """Seconds from kill -9 of the only holder until a new one, started at once, holds all its calls again; None where
    it does not within `limit_s`. Every library has the settings that it comes with."""
    with valkey() as (port, _):
        produce(name, port, calls, 0)
        words, environment = command(name, "hold", port, calls)
        with Program(words, SERVER_CORE, environment, ready="ready") as first:
            result(first, START_S)
            time.sleep(2.0)  # it has renewed its leases
            first.process.send_signal(signal.SIGKILL)
            killed_ns = time.monotonic_ns()
            with Program(words, SERVER_CORE, environment, ready="ready") as second:
                try:
                    (held_ns,) = result(second, limit_s)
                except RuntimeError:
                    return None
                return (held_ns - killed_ns) / 1e9


if __name__ == "__main__":
    for chosen in sys.argv[1:] or NAMES:
        print(chosen, "latency", latency(chosen, 200), flush=True)
        print(chosen, "drain", drain(chosen, 4_000), flush=True)
        print(chosen, "crash", crash(chosen), "s", flush=True)
