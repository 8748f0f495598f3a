from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from switchroom.errors import Conflict
from switchroom.store import EmbeddedServer, Store, embedded


async def test_what_was_acknowledged_survives_kill_9_and_a_torn_tail(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "store")
    store = await Store.connect(await server.start())
    for n in range(200):
        await store.call("RPUSH", "list", n)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    await store.close()
    await asyncio.sleep(0.05)
    await server.stop()
    tail = max((tmp_path / "store" / "appendonlydir").glob("*.incr.aof"))
    with tail.open("r+b") as file:
        file.write(b"")
        file.seek(0, os.SEEK_END)
        file.write(b"*3\r\n$5\r\nRPUSH\r\n$4\r\nli")  # a write that the crash cut
    again = EmbeddedServer(tmp_path / "store")
    store = await Store.connect(await again.start())
    assert await store.call("LLEN", "list") == 200
    await store.close()
    await again.stop()


async def test_a_dead_server_is_started_again(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "store")
    store = await Store.connect(await server.start())
    await store.call("SET", "k", "v")
    first = server.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    for _ in range(100):
        await asyncio.sleep(0.05)
        if server.pid != first:
            break
    assert await store.call("GET", "k") == b"v"
    await store.close()
    await server.stop()


async def test_the_folder_and_the_socket_are_ours_alone(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "store")
    await server.start()
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o700
    assert server.socket.stat().st_mode & 0o777 == 0o700
    await server.stop()


async def test_a_second_server_on_the_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "LOCK_PATIENCE_S", 0.2)
    server = EmbeddedServer(tmp_path / "store")
    await server.start()
    with pytest.raises(Conflict, match="in use"):
        await EmbeddedServer(tmp_path / "store").start()
    await server.stop()


async def test_a_long_path_works(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / ("x" * 120) / "store")
    store = await Store.connect(await server.start())
    assert await store.call("PING") == b"PONG"
    await store.close()
    await server.stop()


def test_the_server_dies_with_us_even_on_kill_9(tmp_path: Path) -> None:
    program = textwrap.dedent(f"""
        import asyncio, pathlib
        from switchroom.store import EmbeddedServer
        async def main():
            server = EmbeddedServer(pathlib.Path({str(tmp_path / "store")!r}))
            await server.start()
            print(server.pid, flush=True)
            await asyncio.sleep(60)
        asyncio.run(main())
    """)
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    pid = int(child.stdout.readline())
    child.kill()
    child.wait()
    child.stdout.close()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists() or stat.read_text().split(")")[1].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the server outlived its parent")
