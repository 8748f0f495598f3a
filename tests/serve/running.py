"""Starts `switchroom` as a user does, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "switchroom"]


class Server(NamedTuple):
    process: subprocess.Popen[str]
    url: str
    sidecar: str
    log: Path

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        return http(self.url, method, path, body, **headers)

    def pids(self) -> list[int]:
        """Every process that descends from the server's, itself last."""
        parents = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):  # it ended while we looked
                    parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        family = [self.process.pid]
        for pid in family:
            family += [child for child, parent in parents.items() if parent == pid]
        return family[::-1]

    def kill_everything(self) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)


def http(base: str, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        base + path, data=data, method=method, headers={"Content-Type": "application/json", **headers}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            raw = reply.read()
            return reply.status, json.loads(raw) if raw else None
    except urllib.error.HTTPError as error:
        raw = error.read()
        return error.code, json.loads(raw) if raw else None


def environment(**more: str) -> dict[str, str]:
    """Ours, without any setting of the machine that runs the tests."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SWITCHROOM_")}
    return {**plain, **more}


@contextlib.contextmanager
def serving(data: Path, *options: str, **settings: str) -> Iterator[Server]:
    """`switchroom serve` on free ports until the block ends."""
    data.mkdir(parents=True, exist_ok=True)
    if "SWITCHROOM_CONFIG" not in settings:  # one media process, as long as a test does not ask for more
        # and a busy machine's lag turns no call away
        settings = {"SWITCHROOM_MEDIA_PROCESSES": "1", "SWITCHROOM_MEDIA__MAX_LOOP_LAG_MS": "60000", **settings}
    log = data / "serve.log"
    command = [*COMMAND, "serve", "--data", str(data), "--port", "0", "--sidecar-port", "0", *options]
    with log.open("a") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment(**settings)
        )
    assert process.stdout
    try:
        line = process.stdout.readline()
        assert line.startswith("ready http://"), log.read_text()
        _, url, word, sidecar = line.split()
        assert word == "sidecar"
        yield Server(process, url, sidecar, log)
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
