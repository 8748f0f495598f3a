"""Text runs over `kill -9` of the whole server: the one under way is taken over, the stopped one is answered later."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from running import Server, http, serving

SETTINGS = {"SWITCHROOM_MEDIA_PROCESSES": "0", "SWITCHROOM_OUTBOUND_ALLOW": "127.0.0.1"}


class Ledger:
    """Counts what is posted to it; the second post is not answered until `free`."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.free = threading.Event()

    @contextlib.contextmanager
    def served(self) -> Iterator[str]:
        ledger = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                ledger.keys.append(self.headers["Idempotency-Key"])
                if len(ledger.keys) == 2:
                    ledger.free.wait(60)
                with contextlib.suppress(OSError):
                    self.send_response(200)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def log_message(self, *words: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            self.free.set()
            server.shutdown()
            server.server_close()


def canvas(url: str) -> dict[str, Any]:
    nodes = {
        "s": ("startAgentflow", {}),
        "a": ("httpAgentflow", {"method": "POST", "url": url}),
        "b": ("httpAgentflow", {"method": "POST", "url": url}),
        "r": ("directReplyAgentflow", {"directReplyMessage": "Booked: {{ question }}."}),
        "h": ("humanInputAgentflow", {"humanInputDescriptionType": "fixed", "humanInputDescription": "Confirm?"}),
        "y": ("directReplyAgentflow", {"directReplyMessage": "Confirmed."}),
    }
    edges = [("s", "a", 0), ("a", "b", 0), ("b", "r", 0), ("r", "h", 0), ("h", "y", 0)]
    return {
        "nodes": [
            {"id": key, "data": {"name": name, "label": key, "inputs": inputs}} for key, (name, inputs) in nodes.items()
        ],
        "edges": [{"source": a, "target": b, "sourceHandle": f"{a}-output-{port}"} for a, b, port in edges],
    }


def executions(server: Server) -> list[dict[str, Any]]:
    return http(server.url, "GET", "/api/v1/executions?agentflowId=book")[1]["data"]  # type: ignore[no-any-return]


def test_a_run_and_a_question_survive_kill_9(tmp_path: Path) -> None:
    ledger = Ledger()
    with ledger.served() as url:
        with serving(tmp_path, **SETTINGS) as server:
            body = {"id": "book", "name": "book", "flowData": json.dumps(canvas(url)), "type": "AGENTFLOW"}
            status, saved = http(server.url, "POST", "/api/v1/chatflows", body)
            assert status in (200, 201), saved

            def ask() -> None:
                with contextlib.suppress(Exception):  # its server is killed
                    http(server.url, "POST", "/api/v1/prediction/book", {"question": "a table", "sessionId": "s-1"})

            client = threading.Thread(target=ask)
            client.start()
            deadline = time.monotonic() + 30
            while len(ledger.keys) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            server.kill_everything()
            client.join(10)
        ledger.free.set()
        with serving(tmp_path, **SETTINGS) as server:
            deadline = time.monotonic() + 30
            while (row := executions(server)[0])["state"] == "INPROGRESS":
                assert time.monotonic() < deadline
                time.sleep(0.2)
            assert row["state"] == "STOPPED"
            # The first request is not sent again; the one under way is, with its key.
            assert len(ledger.keys) == 3
            assert ledger.keys[1] == ledger.keys[2] != ledger.keys[0]
            server.kill_everything()
        with serving(tmp_path, **SETTINGS) as server:
            answer = {"humanInput": {"type": "proceed", "startNodeId": "h"}, "sessionId": "s-1"}
            status, reply = http(server.url, "POST", "/api/v1/prediction/book", answer)
            assert (status, reply["text"]) == (200, "Confirmed."), reply
