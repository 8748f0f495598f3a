"""The whole product as a person starts it, and the clients that others published."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KEY = "a-key-of-sixteen-characters"


@pytest.fixture(scope="session")
def npm_packages() -> Path:
    """The folder of the unpacked npm packages."""
    folder = ROOT / ".cache" / "npm" / "node_modules"
    if shutil.which("node") is None or not folder.is_dir():
        pytest.skip("node or the published npm packages are missing: run `make test`")
    return folder


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[str]:
    """The URL of `switchroom serve --role api` with one API key."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SWITCHROOM_")},
        "SWITCHROOM_API_KEYS": KEY,
    }
    data = str(tmp_path / "data")
    command = [sys.executable, "-m", "switchroom", "serve", "--data", data, "--port", "0", "--role", "api"]
    program = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert program.stdout is not None
    lines: list[str] = []
    reading: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(60):
            while True:
                line = (await program.stdout.readline()).decode()
                assert line, "serve ended: " + "".join(lines)
                lines.append(line)
                if found := re.search(r"http://[\w.\[\]:-]+", line):
                    break
        reading = asyncio.create_task(_drain(program.stdout, lines))
        yield found[0]
    finally:
        program.terminate()
        async with asyncio.timeout(30):
            await program.wait()
        if reading is not None:
            await reading


async def _drain(stream: asyncio.StreamReader, lines: list[str]) -> None:
    async for line in stream:
        lines.append(line.decode())
