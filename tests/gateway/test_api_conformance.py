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
import time
from collections.abc import Iterator
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
FLOW = "/api/v1/openai-realtime/line"
WITHOUT = "/queue/events$|/calls|/listeners|/twilio/|/kiosk$|/realtime/|/apikey|/webhooks"
"""Streams that never end, sockets, what needs a media process, what would close the open server; webhooks have a run of
their own, on an endpoint and a message that exist."""
BRIEFLY = """
[[operations]]
include-path-regex = "^/api/v1/(?!.*/queue/)"
generation.max-examples = 2
phases.coverage.enabled = false
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("conformance") / "data", SWITCHROOM_MEDIA_PROCESSES="0") as running:
        canvas = json.loads((ROOT / "examples" / "support-line.json").read_text())
        status, body = http(running.url, "POST", "/api/v1/chatflows", {"id": "line", "flowData": canvas})
        assert status < 300, body
        yield running


def schemathesis(server: Server, folder: Path, config: str, *options: str, **settings: str) -> str:
    """Runs it until it has found nothing wrong; returns what it printed."""
    file = folder / "schemathesis.toml"
    file.write_text(config)
    command = [str(Path(sys.executable).parent / "schemathesis"), "--config-file", str(file)]
    command += ["run", f"{server.url}/openapi.json", "--checks", CHECKS, "--seed", "1", "--continue-on-failure"]
    command += ["--phases", "coverage,fuzzing", "--request-timeout", "10", "--no-color", *options]
    done = subprocess.run(command, env=environment(**settings), capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert http(server.url, "GET", "/readyz")[0] == 200
    return done.stdout


@pytest.mark.timeout(0 if FUZZ else 300)
def test_every_route_answers_as_its_document_says(server: Server, tmp_path: Path) -> None:
    calls = _calls_in_every_state(f"unix://{server.log.parent}/store/valkey.sock")
    printed = schemathesis(
        server, tmp_path, '[parameters]\n"path.flowId" = "line"\n' + ("" if FUZZ else BRIEFLY),
        "--include-path-regex", "^/api/v1/", "--exclude-path-regex", WITHOUT, "--exclude-name",
        "DELETE /api/v1/chatflows/{flowId}", "--max-examples", str(FUZZ or 10),
        SCHEMATHESIS_HOOKS=str(Path(__file__).parent / "api_hooks.py"), FUZZ_CALLS=" ".join(calls),
    )  # fmt: skip
    operations = re.search(r"Tested: (\d+)", printed)
    assert operations and int(operations[1]) >= 50, printed
    assert "Unhandled" not in server.log.read_text()


def test_webhooks_answer_as_their_document_says(server: Server, tmp_path: Path) -> None:
    before = len(server.log.read_text())
    # nobody answers there: its messages stay on their way
    status, made = server.call("POST", f"{FLOW}/webhooks", {"url": "https://nowhere.invalid/"})
    assert status == 201
    server.call("POST", f"{FLOW}/queue/enqueue", {"form": {"ID": "1"}})
    log = f"{FLOW}/webhooks/{made['id']}/deliveries"
    deadline = time.monotonic() + 60
    while not (found := server.call("GET", log)[1]["deliveries"]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ids = {"flowId": "line", "endpointId": made["id"], "deliveryId": found[0]["id"]}
    config = "[parameters]\n" + "".join(f'"path.{name}" = "{value}"\n' for name, value in ids.items())
    schemathesis(
        server, tmp_path, config, "--include-path-regex", "/webhooks", "--exclude-method", "DELETE",
        "--max-examples", str(FUZZ or 6),
    )  # fmt: skip
    log_text = server.log.read_text()[before:]
    assert "webhook tried" in log_text
    assert not any(words in log_text for words in ("a delivery broke", "unexpected error", "was never retrieved"))


def _calls_in_every_state(store_url: str) -> list[str]:
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
