"""The way in, as scripts rely on it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from switchroom.cli import app

sys.path.insert(0, str(Path(__file__).parent))
from running import COMMAND, ROOT, Server, environment, http, serving

CANVAS = ROOT / "examples" / "support-line.json"


def run(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words], capture_output=True, text=True, timeout=240, env=environment(**settings), check=False
    )


def test_serve_says_ready_serves_and_stops_clean(tmp_path: Path) -> None:
    with serving(tmp_path, SWITCHROOM_API_KEYS="") as server:
        assert http(server.url, "GET", "/healthz")[0] == 200
        assert http(server.sidecar, "GET", "/healthz")[0] == 200
        status, ready = http(server.url, "GET", "/readyz")
        assert (status, len(ready["media"])) == (200, 1)
        done = run("flow", "import", str(CANVAS), "--id", "line", "--server", server.url)
        assert (done.returncode, done.stdout) == (0, "line\n"), done.stderr
        done = run(
            "enqueue",
            "--flow",
            "line",
            "--id",
            "+1",
            "--form",
            "a=b",
            "--state",
            "crm.tier=gold",
            "--server",
            server.url,
        )
        task = done.stdout.strip()
        assert task.startswith("flowise-"), done.stderr
        done = run("status", "--flow", "line", "--task", task, "--json", "--server", server.url)
        assert '"state": "pending"' in done.stdout
        assert "without one" in server.log.read_text()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
    # what was accepted is there again
    with serving(tmp_path, "--media-processes", "0") as server:
        status, body = http(server.url, "GET", f"/api/v1/openai-realtime/line/queue/status?taskId={task}")
        assert (status, body["state"], body["form"]) == (200, "pending", {"ID": "+1", "a": "b"})
        assert body["sessionState"] == {"crm": {"tier": "gold"}}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A house without media processes, by a settings file whose port an option overrides."""
    folder = tmp_path_factory.mktemp("house")
    config = folder / "s.toml"
    config.write_text("port = 1\nmedia_processes = 0\n[media]\nmax_legs = 3\n")
    with serving(folder / "data", SWITCHROOM_CONFIG=str(config)) as server:
        yield server


def test_a_toml_file_sets_and_the_command_line_wins(house: Server, tmp_path: Path) -> None:
    assert http(house.url, "GET", "/readyz")[1]["media"] == []
    assert not house.url.endswith(":1")
    config = tmp_path / "s.toml"
    config.write_text("prot = 1\n")
    done = run("serve", "--data", str(tmp_path / "e"), SWITCHROOM_CONFIG=str(config))
    assert (done.returncode, "SWITCHROOM_PROT" in done.stderr) == (2, True)


def test_a_sidecar_beside_serve_shares_its_store(house: Server) -> None:
    command = [*COMMAND, "sidecar", "--data", str(house.log.parent), "--port", "0"]
    beside = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment())
    assert beside.stdout
    line = beside.stdout.readline()
    assert line.startswith("ready crawl http://")
    assert http(line.split()[2], "GET", "/readyz")[0] == 200
    beside.terminate()
    assert beside.wait(60) == 0
    beside.stdout.close()


def test_a_port_in_use_is_one_clear_line(house: Server, tmp_path: Path) -> None:
    port = house.url.rsplit(":", 1)[1]
    done = run("serve", "--data", str(tmp_path), "--port", port, "--sidecar-port", "0", "--media-processes", "0")
    assert done.returncode != 0
    assert "in use" in done.stderr


def test_a_dead_process_is_started_again(house: Server) -> None:
    api = next(pid for pid in house.pids() if b"api" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"))
    os.kill(api, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            assert http(house.url, "GET", "/readyz")[0] == 200  # at the same address
            break
        time.sleep(0.1)
    else:
        pytest.fail(house.log.read_text())
    assert "a process died" in house.log.read_text()


@pytest.mark.parametrize(
    ("settings", "options", "words"),
    [
        ({"SWITCHROOM_PORT": "abc"}, [], ["SWITCHROOM_PORT", "integer"]),
        ({"SWITCHROOM_API_KEYS": "short"}, [], ["SWITCHROOM_API_KEYS", "16"]),
        ({"SWITCHROOM_STORE_URL": "mysql://x"}, [], ["SWITCHROOM_STORE_URL", "redis://"]),
        ({"SWITCHROOM_MEDIA__MAX_LEGS": "0"}, [], ["SWITCHROOM_MEDIA__MAX_LEGS"]),
        ({"SWITCHROOM_CONFIG": "/nowhere.toml"}, [], ["SWITCHROOM_CONFIG", "/nowhere.toml"]),
        ({}, ["--host", "0.0.0.0"], ["0.0.0.0", "SWITCHROOM_API_KEYS"]),
        ({}, ["--role", "chef"], ["chef", "media"]),
    ],
)
def test_a_wrong_setting_stops_the_start_with_one_line(
    tmp_path: Path, settings: dict[str, str], options: list[str], words: list[str]
) -> None:
    env = {name: None for name in os.environ if name.startswith("SWITCHROOM_")} | settings
    done = CliRunner().invoke(app, ["serve", "--data", str(tmp_path / "d"), *options], env=env)
    assert done.exit_code == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert not (tmp_path / "d").exists()


def leaves(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command that does something."""
    below = getattr(command, "commands", None)
    if below is None:
        yield words
        return
    for name, one in below.items():
        yield from leaves(one, (*words, name))


def test_every_command_helps_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help").returncode == 0
    command = get_command(app)
    commands = list(leaves(command))
    assert ("serve",) in commands and ("flow", "import") in commands
    for words in commands:
        assert command.main([*words, "--help"], standalone_mode=False) == 0
        assert "Example" in capsys.readouterr().out, words
