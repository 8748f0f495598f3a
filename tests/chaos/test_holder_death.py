"""kill -9 of the only holder with eight calls in hand, and a new one at once: all are held again within two leases."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from switchroom.queue import NewCall, Queue, Rules
from switchroom.store import EmbeddedServer, Store

CALLS = 8
LEASE_MS = 2_000

HOLDER = """
import asyncio, sys, time
from switchroom.queue import Queue
from switchroom.store import Store

async def main(url, owner, lease_ms):
    print("up", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    queue = Queue(await Store.connect(url))
    held = []
    while True:
        for call in await queue.claim("line", owner, limit=8, lease_ms=lease_ms, answered=True):
            held.append(call)
            print("held", call.task_id, call.attempt, flush=True)
        for call in held:
            await queue.heartbeat(call)
        await asyncio.sleep(0.02)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


async def start(url: str, owner: str) -> asyncio.subprocess.Process:
    """A holder that waits for `go`: its own start is not what is measured."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, url, owner, str(LEASE_MS),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout
    assert await process.stdout.readline() == b"up\n"
    return process


async def go(process: asyncio.subprocess.Process) -> None:
    assert process.stdin
    process.stdin.write(b"go\n")
    await process.stdin.drain()


async def held_by(process: asyncio.subprocess.Process) -> dict[str, int]:
    assert process.stdout
    calls = {}
    while len(calls) < CALLS:
        _, task, attempt = (await process.stdout.readline()).decode().split()
        calls[task] = int(attempt)
    return calls


async def test_calls_of_a_dead_holder_are_held_again_within_two_leases(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "store")
    store = await Store.connect(await server.start())
    queue = Queue(store)
    await queue.configure("line", Rules(lines=CALLS))
    for number in range(CALLS):
        await queue.enqueue("line", NewCall(form={"ID": f"+{number}"}), Rules(lines=CALLS))
    async with asyncio.timeout(60):
        first, second = await start(server.url, "first"), await start(server.url, "second")
        await go(first)
        calls = await held_by(first)
        await asyncio.sleep(0.5)  # it keeps them by heartbeats
        os.kill(first.pid, signal.SIGKILL)
        killed = time.monotonic()
        await go(second)
        again = await held_by(second)
    seconds = time.monotonic() - killed
    print(f"\nall {CALLS} calls held again after {seconds:.2f} s, lease {LEASE_MS / 1000:g} s")
    second.kill()
    await first.wait()
    await second.wait()
    assert again == {task: attempt + 1 for task, attempt in calls.items()}
    assert seconds <= 2 * LEASE_MS / 1000
    await store.close()
    await server.stop()
