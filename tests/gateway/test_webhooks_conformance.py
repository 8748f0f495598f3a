"""Schemathesis over the webhooks' part of our own API document, against a real server, with endpoints and messages."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "serve"))
from running import ROOT, environment, serving

FLOW = "/api/v1/openai-realtime/line"
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance"
)
EXAMPLES = 6


def test_webhooks_answer_as_their_document_says(tmp_path: Path) -> None:
    canvas = json.loads((ROOT / "examples" / "support-line.json").read_text())
    with serving(tmp_path / "data", SWITCHROOM_MEDIA_PROCESSES="0") as server:
        assert server.call("POST", "/api/v1/chatflows?id=line", canvas)[0] < 300
        # nobody answers there: its messages stay on their way
        status, made = server.call("POST", f"{FLOW}/webhooks", {"url": "https://nowhere.invalid/"})
        assert status == 201
        server.call("POST", f"{FLOW}/queue/enqueue", {"form": {"ID": "1"}})
        log = f"{FLOW}/webhooks/{made['id']}/deliveries"
        deadline = time.monotonic() + 20
        while not (found := server.call("GET", log)[1]["deliveries"]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        config = tmp_path / "schemathesis.toml"
        config.write_text(
            f'[parameters]\n"path.flowId" = "line"\n"path.endpointId" = "{made["id"]}"\n'
            f'"path.deliveryId" = "{found[0]["id"]}"\n'
        )
        command = [str(Path(sys.executable).parent / "schemathesis"), "--config-file", str(config), "run"]
        command += [f"{server.url}/openapi.json", "--include-path-regex", "/webhooks", "--checks", CHECKS]
        command += ["--exclude-method", "DELETE", "--max-examples", str(EXAMPLES), "--seed", "1", "--no-color"]
        command += ["--continue-on-failure"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=tmp_path, timeout=170)
        assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
        assert server.call("GET", "/readyz")[0] == 200
        log_text = server.log.read_text()
        assert "webhook tried" in log_text
        assert not any(words in log_text for words in ("a delivery broke", "unexpected error", "was never retrieved"))
