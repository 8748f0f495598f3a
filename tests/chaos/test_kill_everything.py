"""Kill -9 of every process in the middle of a spoken call: on restart the call is not lost, and a record says so."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "serve"))
from running import COMMAND, ROOT, Server, environment, serving

BASE = "/api/v1/openai-realtime/line"


def until(what: str, probe: Any, seconds: float = 90.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = probe()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds:g} s: {what}")


def call(server: Server, task: str, *wavs: Path) -> subprocess.Popen[str]:
    command = [*COMMAND, "call", "--server", server.url, "--flow", "line", "--task", task, "--json"]
    for wav in wavs:
        command += ["--wav", str(wav)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())


def test_a_call_survives_the_death_of_everything(tmp_path: Path) -> None:
    wavs = sorted((ROOT / "examples").glob("caller-*.wav"))
    canvas = json.loads((ROOT / "examples" / "support-line.json").read_text())
    with serving(tmp_path) as server:
        status, _ = server.call("POST", "/api/v1/chatflows?id=line", canvas)
        assert status < 300
        status, queued = server.call("POST", f"{BASE}/queue/enqueue", {"form": {"ID": "+1", "ticket": "T"}})
        assert status == 202
        status, waiting = server.call("POST", f"{BASE}/queue/enqueue", {"form": {"ID": "+2", "ticket": "U"}})
        assert status == 202
        task = queued["taskId"]
        caller = call(server, task, *wavs)

        def talking() -> bool:
            _, body = server.call("GET", "/api/v1/executions?agentflowId=line")
            return any(row["taskId"] == task and row.get("transcript") for row in body["data"])

        until("the call is live and something was said", talking)
        server.kill_everything()
        caller.kill()
        caller.wait()

    with serving(tmp_path) as server:
        status_path = f"{BASE}/queue/status?taskId="
        # nobody has lost anything that was accepted
        _, other = server.call("GET", status_path + waiting["taskId"])
        assert other["state"] == "pending"
        back = until(
            "the lease runs out and the call is pending again",
            lambda: (body := server.call("GET", status_path + task)[1])["state"] == "pending" and body,
        )
        assert back["history"][-1]["cause"] == "lease_expired"
        assert back["form"] == {"ID": "+1", "ticket": "T"}

        def closed() -> Any:
            _, body = server.call("GET", "/api/v1/executions?agentflowId=line")
            rows = [row for row in body["data"] if row["taskId"] == task]
            return rows if rows and all(row["state"] != "INPROGRESS" for row in rows) else None

        (row,) = until("the record of the first attempt is closed", closed)
        assert row["state"] in ("ERROR", "TIMEOUT")
        assert row["transcript"], "what was said before the crash is kept"
        # its recording is playable up to the crash
        (blob,) = (path for path in (tmp_path / "recordings").rglob("*.ogg"))
        with av.open(str(blob)) as audio:
            assert audio.streams.audio[0].channels == 2
            assert sum(frame.samples for frame in audio.decode(audio=0)) > 48_000
        # and the caller who calls again gets the same call
        again = call(server, task, wavs[-1])
        out, err = again.communicate(timeout=90)
        assert again.returncode == 0, err

        def over() -> Any:
            _, body = server.call("GET", status_path + task)
            return body if body["state"] == "ended" else None

        ended = until("the second attempt ends", over)
        assert (ended["status"], ended["attempt"]) == ("completed", 2)
        assert len(ended["executionIds"]) == 2
        assert json.loads(out)["heard_s"] > 0
