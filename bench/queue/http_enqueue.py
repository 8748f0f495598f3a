"""HTTP enqueue: CPU of the serving process a request, at 64 connections (and 1), on a fresh store each time.

Ours is the product as an operator starts it (`switchroom serve --role api`): key, validation, idempotency key, event.
The peers do less: no key, no idempotency, no event.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tools
from machine import LOAD_CORE, SERVER_CORE, Meter, Program, valkey

HERE = Path(__file__).parent
KEY = "bench-key-0123456789abcdef"
FLOW = HERE.parents[1] / "examples" / "support-line.json"
WARM_S = 1


@dataclass(frozen=True)
class Sample:
    """One window of load on one server."""

    requests_s: float
    server_us: float
    store_us: float
    p50_ms: float
    p99_ms: float
    failed: int
    foreign: float


@contextlib.contextmanager
def ours(port: int) -> Iterator[tuple[int, str]]:
    with tempfile.TemporaryDirectory(prefix="bench-data-") as data:
        environment = {"SWITCHROOM_STORE_URL": f"redis://127.0.0.1:{port}", "SWITCHROOM_API_KEYS": KEY}
        command = [sys.executable, "-m", "switchroom", "serve", "--role", "api", "--port", "0", "--data", data]
        log = Path(data) / "log"
        with Program(command, SERVER_CORE, environment, ready="ready api ", log=log) as server:
            url = server.line.removeprefix("ready api ")
            canvas = json.loads(FLOW.read_text())
            body = {"id": "line", "name": "line", "type": "REALTIME", "flowData": json.dumps(canvas)}
            request = urllib.request.Request(
                f"{url}/api/v1/chatflows",
                json.dumps(body).encode(),
                {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"},
            )
            urllib.request.urlopen(request).close()
            yield server.pid, f"{url}/api/v1/openai-realtime/line/queue/enqueue"


@contextlib.contextmanager
def floor(port: int) -> Iterator[tuple[int, str]]:
    command = [sys.executable, str(HERE / "floor.py"), f"redis://127.0.0.1:{port}"]
    environment = {"PYTHONPATH": os.pathsep.join([str(tools.floor_path()), os.environ.get("PYTHONPATH", "")])}
    with Program(command, SERVER_CORE, environment, ready="ready ") as server:
        yield server.pid, server.line.split()[1]


@contextlib.contextmanager
def express_bullmq(port: int) -> Iterator[tuple[int, str]]:
    home = tools.node_home()
    assert home is not None
    environment = {"STORE_PORT": str(port), "NODE_ENV": "production", "NODE_PATH": str(home / "node_modules")}
    with Program(["node", str(tools.PEERS / "server.js")], SERVER_CORE, environment, ready="ready ") as server:
        yield server.pid, server.line.split()[1] + "/enqueue"


@contextlib.contextmanager
def fastapi_arq(port: int) -> Iterator[tuple[int, str]]:
    command = [str(tools.peer_python("arq")), str(tools.PEERS / "fastapi_arq.py")]
    with Program(command, SERVER_CORE, {"STORE_PORT": str(port)}, ready="ready ") as server:
        yield server.pid, server.line.split()[1] + "/enqueue"


SERVERS = {"switchroom": ours, "floor": floor, "express+bullmq": express_bullmq, "fastapi+arq": fastapi_arq}


def sample(name: str, *, connections: int = 64, seconds: int = 5, fsync: str = "everysec") -> Sample:
    """One server on one fresh store under load for `seconds`, after a warm-up."""
    with valkey(fsync) as (port, store_pid), SERVERS[name](port) as (pid, url):
        _load(url, connections, WARM_S)
        meter = Meter({"server": pid, "store": store_pid})
        meter.start()
        count, duration_us, failed, p50, p99 = _load(url, connections, seconds)
        meter.stop()
    return Sample(
        requests_s=count / duration_us * 1e6,
        server_us=meter.spent_s["server"] / count * 1e6,
        store_us=meter.spent_s["store"] / count * 1e6,
        p50_ms=p50,
        p99_ms=p99,
        failed=int(failed),
        foreign=meter.foreign,
    )


def _load(url: str, connections: int, seconds: int) -> list[float]:
    command = ["taskset", "-c", str(LOAD_CORE), tools.wrk(), "-t1", f"-c{connections}", f"-d{seconds}s"]
    command += ["-s", str(HERE / "enqueue.wrk.lua"), url]
    done = subprocess.run(command, env={"BENCH_KEY": KEY}, capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    return [float(word) for word in line.split()[1:]]


if __name__ == "__main__":
    for chosen in sys.argv[1:] or SERVERS:
        print(chosen, sample(chosen, seconds=3), flush=True)
