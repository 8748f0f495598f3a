"""Operators over HTTP: what a key may do, what is refused and why. The live call itself is in tests/realtime."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from pydantic import SecretStr

from switchroom.access import Scope
from switchroom.gateway.app import build_gateway
from switchroom.gateway.services import Services
from switchroom.queue import NewCall, Rules

BASE = "/api/v1/openai-realtime/line/live"
SDP = {"Content-Type": "application/sdp"}


@pytest.fixture
async def task(parts: Services, echo_canvas: dict[str, Any]) -> str:
    await parts.flows.save(echo_canvas, flow_id="line")
    return (await parts.queue.enqueue("line", NewCall(form={"ID": "1"}), Rules())).task_id


async def test_what_cannot_be_done_is_said(client: TestClient, task: str) -> None:
    for method, path, body, status, code in (
        ("GET", "nobody", None, 404, "unknown_task"),
        ("GET", task, None, 409, "call_not_live"),
        ("POST", f"{task}/whisper", {"text": "Hi."}, 409, "call_not_live"),
        ("DELETE", f"{task}/listeners/x", None, 409, "call_not_live"),
    ):
        reply = await client.request(method, f"{BASE}/{path}", json=body)
        assert (reply.status, (await reply.json())["code"]) == (status, code), path
    for method, path, body, where in (
        ("PUT", f"{task}/listeners/x/mode", {"mode": "shout"}, "/mode"),
        ("POST", f"{task}/whisper", {"text": " "}, "/text"),
        ("POST", f"{task}/whisper", {"txt": "a"}, "/txt"),
        ("POST", f"{task}/transfer", {}, "/number"),
        ("POST", f"{task}/transfer", {"number": "+1", "toOperator": "ben"}, "/number"),
        ("POST", f"{task}/transfer", {"number": "not a number"}, "/number"),
        ("POST", f"{task}/transfer", {"toOperator": "b\n"}, "/toOperator"),
    ):
        reply = await client.request(method, f"{BASE}/{path}", json=body)
        problem = await reply.json()
        assert reply.status == 400 and problem["errors"][0]["pointer"] == where, problem
    for body, kind in (("v=0", "text/plain"), ("hello", "application/sdp")):
        reply = await client.post(f"{BASE}/{task}/listeners", data=body, headers={"Content-Type": kind})
        assert reply.status == 400


async def test_listening_is_not_operating(
    make_services: Callable[..., Services], task: str, aiohttp_client: Callable[..., Awaitable[TestClient]]
) -> None:
    parts = make_services(configured=(SecretStr("a-key-of-all-scopes"),))
    client = await aiohttp_client(build_gateway(parts))
    made, _ = await parts.access.create("supervisor", (Scope.LISTEN,))
    key = {"Authorization": f"Bearer {made}"}
    assert (await client.get(f"{BASE}/{task}", headers=key)).status == 409  # may, but it is not live
    assert (await client.post(f"{BASE}/{task}/listeners", data="v=0", headers={**SDP, **key})).status == 409
    for method, path, body in (
        ("POST", f"{task}/whisper", {"text": "a"}),
        ("PUT", f"{task}/listeners/x/mode", {"mode": "talk"}),
        ("POST", f"{task}/transfer", {"number": "+1"}),
    ):
        assert (await client.request(method, f"{BASE}/{path}", json=body, headers=key)).status == 403
