"""A whole server with callers that come and go: is the memory of each of its processes flat, and is no task, thread or
file left?

    python bench/voice/soak_serve.py [--minutes 60] [--at-once 2] [--out soak.svg]

`switchroom serve` as it is run, one media process. Callers take turns at these ways to be a nuisance: talk to the end
of the flow, hang up in the greeting, interrupt and hang up, vanish without a word (noticed 3 s later, given up 12 s
after that), come back on another line into the same call, leave a Realtime session in the middle of an answer.
What is compared is an idle server with an idle server: after a first round of all of them, and at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import numpy as np
import uvloop

sys.path.insert(0, str(Path(__file__).parent))
from plot import draw

from switchroom.errors import SwitchroomError
from switchroom.realtime.audio import Samples
from switchroom.realtime.caller import Caller
from switchroom.realtime.client import load_audio

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
COMMAND = [sys.executable, "-m", "switchroom"]
QUEUE = "/api/v1/openai-realtime/support-line/queue"
LOOK_S = 10.0
IDLE_S = 40.0
"""Longer than a vanished caller is waited for (15 s), than a snapshot of figures lives (20 s) and than HTTP is kept."""
REFUSED_S = 2.0
"""A server whose loop lags takes no more callers: they come again, and are not counted."""
POOL_THREADS = 6
"""Workers of a loop's own pool, which are made when they are needed and stay."""
_TASKS = re.compile(r'^switchroom_process_tasks\{process="(\w+)-[^"]*-(\d+)"\} (\S+)$', re.MULTILINE)


class Figures(NamedTuple):
    megabytes: float
    threads: int
    files: int


class Line:
    """How to call the server under test."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http, self._url = http, url
        self._question = load_audio(EXAMPLES / "caller-1-invoice.wav")
        self._goodbye = load_audio(EXAMPLES / "caller-3-operator.wav")
        self.visits: list[Callable[[], Awaitable[None]]] = [
            self.to_the_end,
            self.hang_up_early,
            self.interrupt,
            self.vanish,
            self.come_back,
            self.leave_a_session,
        ]

    async def _enqueue(self) -> str:
        form = {"ID": f"soak-{time.monotonic_ns()}", "ticket": "T-1"}
        async with self._http.post(self._url + QUEUE + "/enqueue", json={"form": form}) as reply:
            return str((await reply.json())["taskId"])

    async def _dial(self, task: str) -> Caller:
        caller = Caller("support-line", task, None, loopback=True)
        await caller.dial(self._url, None)
        return caller

    async def _until_said(self, caller: Caller, speech: Samples) -> None:
        async with asyncio.timeout(30):
            await caller.converse([("", speech)], 0.0)

    async def to_the_end(self) -> None:
        caller = await self._dial(await self._enqueue())
        try:
            async with asyncio.timeout(90):
                await caller.converse([("1", self._question), ("2", self._goodbye)], 10.0)
        finally:
            await caller.hang_up()

    async def hang_up_early(self) -> None:
        caller = await self._dial(await self._enqueue())
        await asyncio.sleep(1.5)
        await caller.hang_up()

    async def interrupt(self) -> None:
        caller = await self._dial(await self._enqueue())
        await asyncio.sleep(2.5)
        caller._mouth = self._question
        await asyncio.sleep(4)
        await caller.hang_up()

    async def vanish(self) -> None:
        caller = await self._dial(await self._enqueue())
        await asyncio.sleep(3)
        caller._location = None  # nothing is told
        await caller.hang_up()

    async def come_back(self) -> None:
        task = await self._enqueue()
        first = await self._dial(task)
        await asyncio.sleep(2)
        second = await self._dial(task)  # as after a change of networks: the old leg is not known to be dead
        first._location = None
        await first.hang_up()
        await self._until_said(second, self._question)
        await second.hang_up()

    async def leave_a_session(self) -> None:
        url = self._url.replace("http", "ws", 1) + "/v1/realtime?model=support-line"
        speech = np.concatenate((self._question[::2], np.zeros(24_000, dtype=np.int16)))
        piece = base64.b64encode(speech.tobytes()).decode()
        async with self._http.ws_connect(url, max_msg_size=0) as socket:
            await socket.send_json({"type": "input_audio_buffer.append", "audio": piece})
            async with asyncio.timeout(20):
                async for message in socket:
                    if json.loads(message.data).get("type") == "response.output_audio.delta":
                        break


def family(root: int) -> dict[str, int]:
    """Name of each process under `root` -> its ID."""
    parents, found = dict[int, int](), {root: "supervisor"}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it ended while we looked
    growing = True
    while growing:
        new = {pid: _name(pid) for pid, parent in parents.items() if parent in found and pid not in found}
        found |= new
        growing = bool(new)
    return {name: pid for pid, name in found.items() if name}


def _name(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    if "--role" in words:
        return words[words.index("--role") + 1]
    return next((kind for kind in ("valkey", "piper") if any(kind in word for word in words)), "other")


def look(pid: int) -> Figures | None:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        threads = len(os.listdir(f"/proc/{pid}/task"))
        return Figures(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, threads, len(os.listdir(f"/proc/{pid}/fd")))
    except OSError:
        return None


class Watch:
    """The server's processes, looked at again and again."""

    def __init__(self, http: aiohttp.ClientSession, url: str, root: int) -> None:
        self._http, self._url, self._root = http, url, root
        self.began = time.monotonic()
        self.memory: dict[str, list[tuple[float, float]]] = {}
        self.visits = 0

    async def figures(self) -> dict[str, tuple[Figures, int | None]]:
        async with self._http.get(self._url + "/metrics") as reply:
            tasks = {int(pid): int(float(count)) for _, pid, count in _TASKS.findall(await reply.text())}
        processes = await asyncio.to_thread(family, self._root)
        seen = {name: (look(pid), tasks.get(pid)) for name, pid in sorted(processes.items())}
        return {name: (figures, count) for name, (figures, count) in seen.items() if figures is not None}

    async def tell(self, what: str) -> dict[str, tuple[Figures, int | None]]:
        now = await self.figures()
        at = time.monotonic() - self.began
        for name, (figures, _) in now.items():
            self.memory.setdefault(name, []).append((at, figures.megabytes))
        words = "; ".join(
            f"{name} {one.megabytes:.1f} MB {one.threads} threads {one.files} files"
            + (f" {tasks} tasks" if tasks is not None else "")
            for name, (one, tasks) in now.items()
        )
        print(f"{at:6.0f} s {self.visits:5d} visits  {what}{words}", flush=True)
        return now

    async def run(self) -> None:
        while True:
            await self.tell("")
            await asyncio.sleep(LOOK_S)


async def soak(url: str, root: int, options: argparse.Namespace) -> bool:
    failed: Counter[str] = Counter()
    # Each request its own connection: a client that keeps some would hold files of the server open.
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as http:
        imported = await asyncio.create_subprocess_exec(
            *COMMAND, "flow", "import", str(EXAMPLES / "support-line.json"), "--id", "support-line", "--server", url
        )
        assert await imported.wait() == 0
        line, watch = Line(http, url), Watch(http, url, root)

        async def visit(number: int) -> None:
            one = line.visits[number % len(line.visits)]
            try:
                await one()
            except (SwitchroomError, TimeoutError, aiohttp.ClientError) as error:
                failed[f"{type(error).__name__} {str(error).partition(',')[0]}"] += 1
                await asyncio.sleep(REFUSED_S)
                return
            watch.visits += 1

        for _ in range(4):  # what is made once: pools, codecs, caches
            await asyncio.gather(*(visit(number) for number in range(len(line.visits))))
        await asyncio.sleep(IDLE_S)
        before = await watch.tell("idle: ")
        looking = asyncio.create_task(watch.run())
        end, number = time.monotonic() + options.minutes * 60, 0

        async def come_and_go() -> None:
            nonlocal number
            while time.monotonic() < end:
                number += 1
                await visit(number)

        await asyncio.gather(*(come_and_go() for _ in range(options.at_once)))
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        await asyncio.sleep(IDLE_S)
        after = await watch.tell("idle: ")
        if options.out:
            title = f"{watch.visits} callers in {options.minutes:g} minutes, resident memory a process"
            draw(title, "MB", watch.memory, options.out)
    print(f"{watch.visits} visits, {sum(failed.values())} more did not come through: {dict(failed)}")
    flat = True
    for name, (was, had) in before.items():
        now, has = after.get(name, (None, None))
        if now is None:
            print(f"{name} is gone")
            flat = False
            continue
        left = now.files > was.files or now.threads > was.threads + POOL_THREADS or (has or 0) > (had or 0)
        flat = flat and not left
        print(
            f"{name:10s} {was.megabytes:6.1f} → {now.megabytes:6.1f} MB   threads {was.threads} → {now.threads}   "
            f"files {was.files} → {now.files}   tasks {had} → {has}{'   LEFT BEHIND' if left else ''}"
        )
    return flat


async def main(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        command = [*COMMAND, "serve", "--data", folder, "--port", "0", "--sidecar-port", "0"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SWITCHROOM_")}
        environment |= {"SWITCHROOM_MEDIA_PROCESSES": "1", "SWITCHROOM_MEDIA__MEDIA_LOOPBACK": "true"}
        with (Path(folder) / "serve.log").open("wb") as log:
            server = await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.PIPE, stderr=log, env=environment
            )
        assert server.stdout is not None
        try:
            ready = (await server.stdout.readline()).decode().split()
            assert ready[:1] == ["ready"], (Path(folder) / "serve.log").read_text()
            flat = await soak(ready[1], server.pid, options)
        finally:
            server.send_signal(signal.SIGTERM)
            await server.wait()
        log_text = (Path(folder) / "serve.log").read_text()
        for word in ("Traceback", "ERROR", "never retrieved"):
            if count := log_text.count(word):
                print(f"{count} lines of the server's log hold {word!r}:")
                print("\n".join([text for text in log_text.splitlines() if word in text][:5]))
    return 0 if flat else 1


def asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--out", type=Path, help="the memory plot, as SVG")
    return parser.parse_args()


if __name__ == "__main__":
    options: Any = asked()
    raise SystemExit(uvloop.run(main(options)))
