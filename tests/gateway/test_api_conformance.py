"""Schemathesis over our own API document, against a real server: no request, however odd, is answered 5xx, and every
answer is one that the document promises.

Here a few requests an operation; `FUZZ_EXAMPLES=200 python -m pytest tests/gateway/test_api_conformance.py --timeout 0`
takes as many as it says, with Schemathesis's boundary values for every route (some minutes).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "serve"))
from running import ROOT, Server, environment, http, serving

from switchroom.queue import EndReason, NewCall, Queue, Rules
from switchroom.realtime.handover import UNITY_OWNER
from switchroom.store import Store

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance"
)
FUZZ = int(os.environ.get("FUZZ_EXAMPLES", "0"))
WITHOUT = "/queue/events$|/calls|/listeners|/twilio/|/kiosk$|/realtime/|/apikey|/webhooks"
"""Streams that never end, sockets, what needs a media process, what would close the open server; webhooks have a run of
their own."""
BRIEFLY = """
[[operations]]
include-path-regex = "^/api/v1/(?!.*/queue/)"
generation.max-examples = 2
phases.coverage.enabled = false
"""


@pytest.mark.timeout(0 if FUZZ else 300)
def test_every_route_answers_as_its_document_says(tmp_path: Path) -> None:
    config = tmp_path / "schemathesis.toml"
    config.write_text('[parameters]\n"path.flowId" = "line"\n' + ("" if FUZZ else BRIEFLY))
    with serving(tmp_path / "data", SWITCHROOM_MEDIA_PROCESSES="0") as server:
        calls = _calls_in_every_state(server, f"unix://{tmp_path}/data/store/valkey.sock")
        done = subprocess.run(
            [
                str(Path(sys.executable).parent / "schemathesis"), "--config-file", str(config),
                "run", f"{server.url}/openapi.json", "--include-path-regex", "^/api/v1/",
                "--exclude-path-regex", WITHOUT, "--exclude-name", "DELETE /api/v1/chatflows/{flowId}",
                "--checks", CHECKS, "--max-examples", str(FUZZ or 10), "--seed", "1", "--continue-on-failure",
                "--phases", "coverage,fuzzing", "--request-timeout", "10", "--no-color",
            ],
            env=environment(SCHEMATHESIS_HOOKS=str(Path(__file__).parent / "api_hooks.py"), FUZZ_CALLS=" ".join(calls)),
            capture_output=True, text=True, cwd=tmp_path,
        )  # fmt: skip
        print(done.stdout[-2_000:])
        assert done.returncode == 0, done.stdout + done.stderr
        operations = re.search(r"Tested: (\d+)", done.stdout)
        assert operations and int(operations[1]) >= 50, done.stdout
        assert "Unhandled" not in server.log.read_text()
        assert http(server.url, "GET", "/readyz")[0] == 200


def _calls_in_every_state(server: Server, store_url: str) -> list[str]:
    canvas = json.loads((ROOT / "examples" / "support-line.json").read_text())
    status, body = http(server.url, "POST", "/api/v1/chatflows", {"id": "line", "flowData": canvas})
    assert status < 300, body

    async def fill() -> list[str]:
        store = Store(store_url)
        queue = Queue(store)
        rules = Rules(lines=100)
        await queue.configure("line", rules)
        tasks = []
        for number in range(14):
            later = 4_000_000_000_000 if number > 11 else None
            attempts = 1 if number == 0 else None
            call = NewCall(form={"ID": f"+{number}"}, not_before_ms=later, max_attempts=attempts)
            tasks.append((await queue.enqueue("line", call, rules)).task_id)
        await queue.claim("line", "lost", limit=1, lease_ms=1)
        await asyncio.sleep(0.05)
        await queue.tick("line")  # after its only attempt: a dead letter
        held = await queue.claim("line", UNITY_OWNER, limit=8, lease_ms=600_000, offer_ms=600_000)
        for one in held[:5]:
            await queue.answer(one)
        for one in held[:2]:
            await queue.hang_up(one, EndReason.COMPLETED)
        await queue.finish(held[0], EndReason.COMPLETED)
        tokens = {one.task_id: one.token for one in held}
        await store.close()
        return [f"{task}:{tokens[task]}" if task in tokens else task for task in tasks]

    return asyncio.run(fill())
