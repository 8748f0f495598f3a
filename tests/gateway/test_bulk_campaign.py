"""A campaign of 40,000 lines into a server of its own: flat memory, nothing lost, cut and gone on with."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "serve"))
from running import COMMAND, Server, environment, http, serving

CANVAS = Path(__file__).parents[2] / "examples" / "support-line.json"
LINES = 40_000
KEY = {"Content-Type": "application/x-ndjson", "Idempotency-Key": "campaign"}
BULK = "/api/v1/openai-realtime/line/queue/enqueue/bulk"
GROWTH_KIB = 6 << 10
"""What an API process may grow by over the rest of the campaign: the window's buffers and the allocator's slack."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("campaign")
    with serving(folder, "--media-processes", "0", SWITCHROOM_FSYNC="everysec") as running:
        run("flow", "import", str(CANVAS), "--id", "line", "--server", running.url)
        run("flow", "import", str(CANVAS), "--id", "small", "--server", running.url)
        yield running


def run(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *words], capture_output=True, text=True, timeout=240, env=environment(), check=False
    )
    assert done.returncode == code, done.stderr
    return done


def api_pid(server: Server) -> int:
    return next(pid for pid in server.pids() if b"api" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"))


def api_rss_kib(server: Server) -> int:
    lines = Path(f"/proc/{api_pid(server)}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


async def lines(first: int) -> AsyncIterator[bytes]:
    for start in range(first, LINES + 1, 500):
        yield b"".join(
            b'{"form":{"ID":"+386%08d","question":"Hello?","note":"%s"},"state":{"crm":{"tier":"gold"}}}\n'
            % (number, b"x" * 150)
            for number in range(start, min(start + 500, LINES + 1))
        )


async def send(server: Server, first: int, stop_after: int | None, found: dict[int, str]) -> dict[str, Any]:
    """Sends the campaign from a line on; cuts the connection after so many answers. Returns the counts."""
    timeout = aiohttp.ClientTimeout(total=None, sock_read=120)
    params = {"firstLine": str(first)}
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.post(server.url + BULK, data=lines(first), headers=KEY, params=params) as reply,
    ):
        async for raw in reply.content:
            answer = json.loads(raw)
            if answer.get("done"):
                return dict(answer)
            assert answer["accepted"], answer
            found[answer["line"]] = answer["taskId"]
            if len(found) == stop_after:
                assert reply.connection is not None
                assert reply.connection.transport is not None
                reply.connection.transport.abort()
                return {}
    raise AssertionError("the answer ended without its last line")


async def test_a_campaign_that_is_cut_and_gone_on_with(server: Server) -> None:
    cut: dict[int, str] = {}
    await send(server, 1, 12_000, cut)
    assert sorted(cut) == list(range(1, 12_001))
    before = await asyncio.to_thread(api_rss_kib, server)

    # Sent from a little before the cut, as one who is not sure does: what is there already stays what it is.
    rest: dict[int, str] = {}
    done = await send(server, 10_001, None, rest)
    after = await asyncio.to_thread(api_rss_kib, server)
    assert done["accepted"] == done["lines"] == 30_000
    assert all(rest[number] == cut[number] for number in range(10_001, 12_001))
    tasks = {**cut, **rest}
    assert sorted(tasks) == list(range(1, LINES + 1))
    assert len(set(tasks.values())) == LINES
    _, status = await asyncio.to_thread(http, server.url, "GET", "/api/v1/openai-realtime/line/queue/status?limit=1")
    assert status["pendingCount"] == LINES
    print(f"\nAPI process: {before} KiB after 12,000 lines, {after} KiB after 42,000")
    assert after - before < GROWTH_KIB


def test_the_command_enqueues_a_csv_says_what_was_refused_and_is_through(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "small.csv"
    file.write_text("ID,question,priority\n+1,Hello,\n\n+2,,high\n+3,,9\n")
    done = run("enqueue-bulk", str(file), "--flow", "small", "--server", server.url, code=1)
    assert "line 4: " in done.stderr
    assert "/priority" in done.stderr
    assert done.stdout == "2 accepted, 1 refused\n"
    assert not file.with_name("small.csv.bulk.json").exists()
    run("enqueue-bulk", str(file), "--flow", "nobody", "--server", server.url, code=1)


def test_the_command_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "many.ndjson"
    file.write_text("\n".join(f'{{"form": {{"ID": "caller-{number}"}}}}' if number % 3 else "" for number in range(90)))
    done = run("enqueue-bulk", str(file), "--flow", "small", "--server", server.url, "--json")
    before = [json.loads(line) for line in done.stdout.splitlines()]
    journal = file.with_name("many.ndjson.bulk.json")
    assert not journal.exists()
    run("enqueue-bulk", str(file), "--flow", "small", "--server", server.url, "--resume", code=2)
    journal.write_text(json.dumps({"key": "k", "flow": "small", "answered": 45, "accepted": 30}))
    run("enqueue-bulk", str(file), "--flow", "small", "--server", server.url, code=2)
    done = run("enqueue-bulk", str(file), "--flow", "small", "--server", server.url, "--resume", "--json")
    rest = [json.loads(line) for line in done.stdout.splitlines()]
    # The callers wait already: each line meets the call that the same line of the first run made.
    expected = [(one["line"], one["taskId"]) for one in before if one["line"] > 45]
    assert [(one["line"], one["taskId"]) for one in rest] == expected
    assert "60 accepted" in done.stderr


def test_a_killed_server_cuts_it_and_the_command_goes_on(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "killed.csv"
    count = 20_000
    file.write_text("ID,question\n" + "".join(f"killed-{number},Hello?\n" for number in range(count)))
    words = ["enqueue-bulk", str(file), "--flow", "killed", "--server", server.url]
    run("flow", "import", str(CANVAS), "--id", "killed", "--server", server.url)
    sending = subprocess.Popen([*COMMAND, *words], stderr=subprocess.PIPE, text=True, env=environment())
    path = "/api/v1/openai-realtime/killed/queue/status?limit=1"
    deadline = time.monotonic() + 120
    while http(server.url, "GET", path)[1]["pendingCount"] < 1_000:
        assert time.monotonic() < deadline
    os.kill(api_pid(server), signal.SIGKILL)
    _, said = sending.communicate(timeout=240)
    assert sending.returncode == 1, said
    assert "--resume" in said
    while time.monotonic() < deadline:  # the supervisor starts it again
        with contextlib.suppress(OSError):
            http(server.url, "GET", "/healthz")
            break
        time.sleep(0.1)
    assert f"{count} accepted" in run(*words, "--resume").stdout
    assert http(server.url, "GET", path)[1]["pendingCount"] == count
