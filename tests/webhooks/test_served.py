"""The whole product as a user runs it: `serve`, the command line, a callback URL, kill -9 of everything."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "serve"))
from running import COMMAND, ROOT, Server, environment, serving

FLOW = "/api/v1/openai-realtime/line"
SETTINGS = {
    "SWITCHROOM_OUTBOUND_ALLOW": "127.0.0.1",
    "SWITCHROOM_SECRETS_KEY": "a key for this test",
    "SWITCHROOM_MEDIA_PROCESSES": "0",
}


class Sink(ThreadingHTTPServer):
    """Keeps what it gets; refuses with 503 while `down`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.refused = 0
        self.down = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/crm"


class _Handler(BaseHTTPRequestHandler):
    server: Sink

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.down:
            self.server.refused += 1
        else:
            self.server.got.append((dict(self.headers), body))
        self.send_response(503 if self.server.down else 204)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def until(probe: Any, seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := probe()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)
    return found


def command(server: Server, *words: str) -> str:
    done = subprocess.run(
        [*COMMAND, "webhooks", *words, "--flow", "line", "--server", server.url],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def enqueue(server: Server, caller: str, **more: Any) -> str:
    status, body = server.call("POST", f"{FLOW}/queue/enqueue", {"form": {"ID": caller}, **more})
    assert status == 202, body
    return str(body["taskId"])


def test_what_was_accepted_is_told_also_after_kill_9_of_everything(tmp_path: Path, sink: Sink) -> None:
    canvas = json.loads((ROOT / "examples" / "support-line.json").read_text())
    with serving(tmp_path, **SETTINGS) as server:
        status, _ = server.call("POST", "/api/v1/chatflows?id=line", canvas)
        assert status < 300
        secret = command(server, "rotate", "callback").strip()
        assert secret.startswith("whsec_")
        told = enqueue(server, "+1", callbackUrl=sink.url)
        server.call("POST", f"{FLOW}/queue/cancel", {"taskId": told})
        until(lambda: len(sink.got) == 2)
        kinds = [Webhook(secret).verify(body, headers)["type"] for headers, body in sink.got]
        assert kinds == ["call.pending", "call.ended"]
        # refused ones are tried again after five seconds; everything dies before
        sink.down = True
        later = [enqueue(server, f"+2{number}", callbackUrl=sink.url) for number in range(20)]
        until(lambda: sink.refused >= 5)
        later += [enqueue(server, f"+3{number}", callbackUrl=sink.url) for number in range(20)]
        server.kill_everything()
    sink.down = False
    with serving(tmp_path, **SETTINGS) as server:
        arrived: dict[str, set[str]] = {}

        def all_told() -> bool:
            for headers, body in sink.got[2:]:
                told = Webhook(secret).verify(body, headers)
                arrived.setdefault(told["data"]["taskId"], set()).add(headers["webhook-id"])
            return set(arrived) >= set(later)

        until(all_told, 60)
        assert all(len(names) == 1 for names in arrived.values())
        shown = json.loads(command(server, "deliveries", "callback", "--limit", "200", "--json"))["deliveries"]
        assert len(shown) == 42
        assert {one["taskId"] for one in shown} == {told, *later}
        assert any(len(one["attempts"]) > 1 for one in shown)
        # the command line: an endpoint of one's own, a message again, and off
        made = json.loads(command(server, "create", sink.url, "--type", "call.ended", "--json"))
        server.call("POST", f"{FLOW}/queue/clear", {})
        until(lambda: len([1 for headers, body in sink.got if _verifies(made["secret"], headers, body)]) == len(later))
        (first, *_) = json.loads(command(server, "deliveries", made["id"], "--json"))["deliveries"]
        before = len(sink.got)
        command(server, "redeliver", made["id"], first["id"])
        until(lambda: len(sink.got) > before)
        assert sink.got[-1][0]["webhook-id"] == first["id"]
        assert "off" in command(server, "set", made["id"], "--off")
        assert made["id"] in command(server, "list")
        assert "delivered" in command(server, "deliveries", made["id"])
        assert "removed" in command(server, "delete", made["id"])
    log = (tmp_path / "serve.log").read_text()
    assert secret.removeprefix("whsec_") not in log
    stored = b"".join(path.read_bytes() for path in (tmp_path / "store").rglob("*.aof"))
    assert stored
    assert all(form not in stored for form in (secret.encode(), base64.b64encode(secret.encode())[:-4]))


def _verifies(secret: str, headers: dict[str, str], body: bytes) -> bool:
    try:
        Webhook(secret).verify(body, headers)
    except Exception:
        return False
    return True
