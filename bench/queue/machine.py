"""The machine under the bench: processes pinned to a core, the CPU time each one spent, and what else ran."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from switchroom.store.embedded import SERVER_ENVIRONMENT, server_binary

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]
"""The process that is measured has a core alone; the store and the load share another one."""
START_S = 60.0
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """CPU seconds that the living threads of a process have spent (Linux schedstat, ns)."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def _machine_busy_s() -> float:
    words = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(word) for word in words[:8])
    return (user + nice + system + irq + softirq + steal) * _TICK_S


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Program:
    """One child process on one core; `line` is the line by which it said that it is ready."""

    command: Sequence[str]
    core: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    ready: str | None = None
    log: Path | None = None
    line: str = ""
    process: subprocess.Popen[str] = field(init=False)

    def __enter__(self) -> Self:
        pinned = ["taskset", "-c", str(self.core)] if self.core is not None else []
        self.process = subprocess.Popen(
            [*pinned, *self.command],
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE if self.ready is not None else subprocess.DEVNULL,
            stderr=self.log.open("a") if self.log else subprocess.DEVNULL,
            text=True,
            # A group, to be ended as one, but no session: the kernel shares a core among sessions (autogroups), and
            # one that runs only where nothing else wants to (`awake`) would get its half.
            process_group=0,
        )
        if self.ready is not None:
            self._wait_ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(signal.SIGTERM)

    @property
    def pid(self) -> int:
        return self.process.pid

    def end(self, how: signal.Signals) -> None:
        """Ends the process and whatever it started."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, how)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def _wait_ready(self) -> None:
        assert self.process.stdout is not None and self.ready is not None
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            self.line = self.process.stdout.readline().strip()
            if self.line.startswith(self.ready):
                return
            if not self.line and self.process.poll() is not None:
                break
        detail = self.log.read_text()[-2_000:] if self.log and self.log.exists() else ""
        raise RuntimeError(f"{' '.join(self.command)} did not start: {detail}")


@contextlib.contextmanager
def valkey(fsync: str = "everysec", core: int | None = LOAD_CORE) -> Iterator[tuple[int, int]]:
    """A fresh server of the wheel on loopback, with the settings of our embedded one. Yields its port and PID."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bench-valkey-", ignore_cleanup_errors=True) as folder:
        options = {
            "port": str(port),
            "bind": "127.0.0.1",
            "dir": folder,
            "save": "",
            "appendonly": "yes",
            "appendfsync": fsync,
            "auto-aof-rewrite-percentage": "100",
            "auto-aof-rewrite-min-size": "64mb",
            "maxmemory-policy": "noeviction",
            "hash-max-listpack-value": "4096",
            "hash-max-listpack-entries": "64",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        with Program([str(server_binary()), *words], core, SERVER_ENVIRONMENT) as server:
            deadline = time.monotonic() + START_S
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as probe:
                    probe.sendall(b"PING\r\n")
                    if probe.recv(16).startswith(b"+PONG"):
                        break
                if time.monotonic() > deadline:
                    raise RuntimeError("valkey did not start")
                time.sleep(0.02)
            yield port, server.pid


@contextlib.contextmanager
def awake() -> Iterator[list[int]]:
    """Keeps every core from halting, by processes that run only where nothing else wants to. A virtual machine may need
    milliseconds to wake a halted core: without this a latency is the hypervisor's. Yields their PIDs."""
    spin = "import os; os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nwhile True: pass"
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Program([sys.executable, "-c", spin], core)).pid for core in CORES]


@dataclass
class Meter:
    """What some processes and everything else spent between `start` and `stop`."""

    pids: Mapping[str, int]
    wall_s: float = 0.0
    spent_s: dict[str, float] = field(default_factory=dict)
    foreign: float = 0.0
    """Cores that processes outside the run kept busy."""
    load: float = 0.0

    def start(self) -> None:
        self._before = {name: cpu_s(pid) for name, pid in self.pids.items()}
        self._children = sum(os.times()[2:4])
        self._busy, self._own, self._wall = _machine_busy_s(), time.process_time(), time.monotonic()

    def stop(self) -> None:
        self.wall_s = time.monotonic() - self._wall
        busy = _machine_busy_s() - self._busy
        self.spent_s = {name: cpu_s(pid) - self._before[name] for name, pid in self.pids.items()}
        ours = sum(self.spent_s.values()) + (time.process_time() - self._own)
        ours += sum(os.times()[2:4]) - self._children
        self.foreign = max(0.0, busy - ours) / self.wall_s
        self.load = os.getloadavg()[0]
