"""A run of the whole product under faults: kill -9, pauses, dropped connections, with seeded chance."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "serve"))
import ledger
from running import COMMAND, ROOT, Server, environment, http, serving

from switchroom.errors import Unavailable
from switchroom.queue import Queue
from switchroom.store import Store

HERE = Path(__file__).resolve().parent
FLOW = "line"
FAULTS = {"kill -9 a holder": 5, "pause a holder beyond its lease": 3, "kill -9 an API process": 3}


class Actor:
    """A process of ours, started again whenever it was killed; each life has its own name and its own ledger."""

    def __init__(self, kind: str, number: int, command: list[str]) -> None:
        self.name = f"{kind}-{number}"
        self.life = 0
        self._command = command
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.life += 1
        words = [word.replace("NAME", f"{self.name}-{self.life}") for word in self._command]
        self.process = subprocess.Popen([sys.executable, *words], env=environment(**_ack()))

    def send(self, how: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(how)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def end(self, patience_s: float) -> None:
        """In good order. Raises when it failed by itself."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.send_signal(signal.SIGCONT)
        code = self.process.wait(patience_s)
        assert code == 0, f"{self.name} ended with {code}"


def _ack() -> dict[str, str]:
    return {name: os.environ[name] for name in ("CHAOS_REPLICAS_ACK",) if name in os.environ}


class Harm(Protocol):
    """A store that the product runs on, and what can happen to it."""

    url: str
    faults: dict[str, int]
    settings: dict[str, str]

    def do(self, kind: str, rng: random.Random, server: Server, lease_s: float) -> bool:
        """Does it; False where it cannot be done just now."""


class EmbeddedHarm:
    """The store that `serve` starts and starts again."""

    def __init__(self, data: Path) -> None:
        self.url = f"unix://{data}/store/valkey.sock"
        self.settings: dict[str, str] = {}
        self.faults = {"kill -9 the store": 1, "pause the store": 1, "drop every connection to the store": 2}

    def do(self, kind: str, rng: random.Random, server: Server, lease_s: float) -> bool:
        if kind.startswith("drop"):
            asyncio.run(_drop_connections(self.url))
            return True
        pid = _descendant(server, "valkey-server")
        if pid is None:  # it is just being started again
            return False
        if kind.startswith("kill"):
            os.kill(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(rng.uniform(1.2, 2.0) * lease_s)
            os.kill(pid, signal.SIGCONT)
        return True


class Run:
    """One run in `folder`. `faults` counts what was done."""

    def __init__(
        self, folder: Path, *, seed: str, seconds: float, lease_ms: int = 1_000, enqueuers: int = 3, holders: int = 3,
        rate: float = 25.0, gap_s: tuple[float, float] = (0.4, 1.6), harm: Harm | None = None,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.data = folder / "data"
        self.seed = seed
        self.seconds = seconds
        self.lease_ms = lease_ms
        self.rate = rate
        self.gap_s = gap_s
        self.harm: Harm = harm or EmbeddedHarm(self.data)
        self.faults: Counter[str] = Counter()
        self._counts = (enqueuers, holders)
        self._rng = random.Random(seed)

    def run(self) -> ledger.Audit:
        url = self.harm.url
        settings = {"SWITCHROOM_MEDIA_PROCESSES": "0", **self.harm.settings}
        with serving(self.data, **settings) as server, _second_api(self.data, url, settings) as api:
            self._make_flow(server)
            actors = str(HERE / "actors.py")
            follower = Actor("follow", 1, [actors, "follow", str(self.folder / "events.jsonl"), FLOW, url])
            hold = [actors, "hold", f"{self.folder}/hold-NAME.jsonl", "NAME", self.seed, FLOW, str(self.lease_ms), url]
            holders = [Actor("holder", number, hold) for number in range(self._counts[1])]
            put = [actors, "enqueue", f"{self.folder}/enqueue-NAME.jsonl", "NAME", self.seed, FLOW, str(self.rate)]
            enqueuers = [Actor("caller", n, [*put, server.url, api.url]) for n in range(self._counts[0])]
            everyone = (follower, *holders, *enqueuers)
            for actor in everyone:
                actor.start()
            try:
                self._do_harm(server, api, holders)
                for actor in enqueuers:
                    actor.end(90)
                asyncio.run(_drained(url))
                for actor in (*holders, follower):
                    actor.end(60)
                return ledger.audit(self.folder, url, FLOW)
            finally:
                for actor in everyone:
                    if actor.process is not None and actor.process.poll() is None:
                        actor.kill()

    def _make_flow(self, server: Server) -> None:
        canvas = json.loads((ROOT / "examples" / "support-line.json").read_text())
        settings = {"lines": 1_000, "maxAttempts": 100, "duplicates": "allow"}
        status, body = http(
            server.url, "POST", "/api/v1/chatflows", {"id": FLOW, "flowData": canvas, "settings": settings}
        )
        assert status < 300, body

    def _do_harm(self, server: Server, api: SecondApi, holders: list[Actor]) -> None:
        """The faults, one after the other, drawn from the seed: each kind once first, then by its weight."""
        rng = self._rng
        kinds = FAULTS | self.harm.faults
        deck = sorted(kinds)
        rng.shuffle(deck)
        end = time.monotonic() + self.seconds
        paused: list[tuple[float, Actor]] = []
        while time.monotonic() < end:
            time.sleep(rng.uniform(*self.gap_s))
            for until, actor in [one for one in paused if one[0] <= time.monotonic()]:
                actor.send(signal.SIGCONT)
                paused.remove((until, actor))
            kind = deck[-1] if deck else rng.choices(list(kinds), list(kinds.values()))[0]
            victim = rng.choice(holders)
            lease_s = self.lease_ms / 1000
            length_s = rng.uniform(1.5, 3.0) * lease_s
            ours = rng.random() < 0.5
            if kind in self.harm.faults:
                if not self.harm.do(kind, rng, server, lease_s):
                    continue
            elif kind == "kill -9 an API process":
                if ours:
                    api.kill()
                elif pid := _descendant(server, "--role", "api"):
                    os.kill(pid, signal.SIGKILL)
                else:
                    continue
            elif any(victim is actor for _, actor in paused):
                continue
            elif kind == "kill -9 a holder":
                victim.kill()
                victim.start()
            else:
                victim.send(signal.SIGSTOP)
                paused.append((time.monotonic() + length_s, victim))
            self.faults[kind] += 1
            if deck:
                deck.pop()
        for _, actor in paused:
            actor.send(signal.SIGCONT)


class SecondApi:
    """An API process beside the supervised one, on the same store; started again on its port when killed."""

    def __init__(self, data: Path, store_url: str, settings: dict[str, str]) -> None:
        self.url = ""
        self._port = "0"
        self._command = [*COMMAND, "serve", "--role", "api", "--data", str(data)]
        self._environment = environment(**settings | {"SWITCHROOM_STORE_URL": store_url})
        self._log = data / "api-2.log"
        self._start()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()
        self._start(wait=False)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(40)
        assert self.process.stdout
        self.process.stdout.close()

    def _start(self, *, wait: bool = True) -> None:
        with self._log.open("ab") as errors:
            self.process = subprocess.Popen(
                [*self._command, "--port", self._port], stdout=subprocess.PIPE, stderr=errors, env=self._environment
            )
        if wait:
            assert self.process.stdout
            line = self.process.stdout.readline().decode()
            assert line.startswith("ready api http://"), self._log.read_text()
            self.url = line.split()[2]
            self._port = self.url.rpartition(":")[2]


@contextlib.contextmanager
def _second_api(data: Path, store_url: str, settings: dict[str, str]) -> Iterator[SecondApi]:
    api = SecondApi(data, store_url, settings)
    try:
        yield api
    finally:
        api.stop()


def _descendant(server: Server, *words: str) -> int | None:
    """The PID of the server's descendant whose command line holds these words."""
    for pid in server.pids():
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            if pid != server.process.pid and all(word in line for word in words):
                return pid
    return None


async def _drop_connections(store_url: str) -> None:
    store = Store(store_url)
    with contextlib.suppress(Unavailable):  # it may be away just now
        await store.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await store.close()


async def _drained(store_url: str, patience_s: float = 90.0) -> None:
    """Waits until every call has ended."""
    store = Store(store_url)
    queue = Queue(store)
    async with asyncio.timeout(patience_s):
        while True:
            status = await queue.status(FLOW)
            if not (status.pending_count or status.scheduled_count or status.active):
                break
            await asyncio.sleep(0.2)
    await store.close()


def report(run: Run, found: ledger.Audit) -> str:
    lines = [f"seed {run.seed}, {run.seconds:g} s of faults, lease {run.lease_ms} ms"]
    lines += [f"  {count:>4} x {kind}" for kind, count in sorted(run.faults.items())]
    return "\n".join([*lines, "", found.table()])


def short_folder() -> Path:
    """A socket's path must be short."""
    return Path(tempfile.mkdtemp(prefix="sr-chaos-"))
