"""The cookie file under kill -9, storms of writers, and a lost race of a refresh."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from switchroom.crawler.cookies import Cookie
from switchroom.errors import Unavailable
from switchroom.sidecar.cookies import CookieFile

WRITER = """
import asyncio, sys
from pathlib import Path
from switchroom.crawler.cookies import Cookie
from switchroom.sidecar.cookies import CookieFile

async def main():
    file = await CookieFile.open(Path(sys.argv[1]), sys.argv[2] or None)
    turn = 0
    while True:
        turn += 1
        # Every cookie of one writing carries the same value, so that a mix of two writings would show.
        await file.replace([Cookie(name=f"c{i}", value=str(turn), domain="x.example") for i in range(turn % 700 + 1)])
        print(turn, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("key", ["", "a key for the file"])
def test_kill_9_in_the_middle_of_writes(data_dir: Path, key: str) -> None:
    rng = random.Random(7)
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(data_dir), key], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            first = int(writer.stdout.readline())
            time.sleep(rng.uniform(0.0, 0.15))
            os.kill(writer.pid, signal.SIGKILL)
            told = [first, *(int(line) for line in writer.stdout.read().split())]
        stored = asyncio.run(CookieFile(data_dir, key or None).read())
        values = {cookie.value for cookie in stored.cookies}
        assert len(values) == 1, "a mix of two writings"
        turn = int(values.pop())
        assert turn in (told[-1], told[-1] + 1), "what was reported as written is there, or the one after it"
        assert len(stored.cookies) == turn % 700 + 1
        assert oct((data_dir / "web-cookies.json").stat().st_mode & 0o777) == "0o600"
    asyncio.run(CookieFile(data_dir, key or None).replace([]))
    assert not list(data_dir.glob("*.tmp")) and not list(data_dir.glob(".*.tmp"))


def cookies(value: str, count: int = 3) -> list[Cookie]:
    return [Cookie(name=f"c{i}", value=value, domain="x.example") for i in range(count)]


async def test_a_storm_of_writers_and_readers(data_dir: Path) -> None:
    files = [await CookieFile.open(data_dir) for _ in range(4)]
    await files[0].replace(cookies("start"))

    async def read(file: CookieFile) -> None:
        for _ in range(30):
            assert len({cookie.value for cookie in (await file.read()).cookies}) == 1

    async with asyncio.TaskGroup() as group:
        for number in range(40):
            group.create_task(files[number % 4].replace(cookies(str(number))))
        for file in files:
            group.create_task(read(file))
    assert (await files[0].read()).version == 41


async def test_refresh_keeps_the_version_and_yields_to_a_replacement(data_dir: Path) -> None:
    file = await CookieFile.open(data_dir)
    first = await file.replace(cookies("old"))
    changed = Cookie(name="c0", value="new", domain="x.example")
    await file.refresh(first.version, {changed.key: changed, ("c1", "x.example", "/", None): None})
    stored = await file.read()
    assert [(cookie.name, cookie.value) for cookie in stored.cookies] == [("c0", "new"), ("c2", "old")]
    assert stored.version == first.version
    await file.replace(cookies("newest"))
    await file.refresh(first.version, {changed.key: changed})
    assert {cookie.value for cookie in (await file.read()).cookies} == {"newest"}


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"SRCK1\nshort", b"not ours"])
async def test_a_damaged_file_is_said_and_can_be_replaced(data_dir: Path, content: bytes) -> None:
    file = await CookieFile.open(data_dir, "key")
    file.path.write_bytes(content)
    with pytest.raises(Unavailable):
        await file.read()
    await file.replace(cookies("fresh"))
    assert len((await file.read()).cookies) == 3
