"""Text turns: answers, sessions, streams, and true errors, each with its record."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from switchroom.gateway import sessions
from switchroom.gateway.app import build_gateway
from switchroom.gateway.services import Services
from switchroom.records import ExecutionFilter, ExecutionState
from switchroom.store import keys

from .conftest import edge, node

URL = "/api/v1/prediction/echo"


@pytest.fixture
async def echo(parts: Services, client: TestClient, echo_canvas: dict[str, Any]) -> TestClient:
    await parts.flows.save(echo_canvas, flow_id="echo")
    return client


@pytest.fixture
def waiting_canvas(echo_canvas: dict[str, Any]) -> dict[str, Any]:
    """Waits before it says anything."""
    inputs = {"waitDuration": "3", "waitUnit": "seconds"}
    node = {
        "id": "waitAgentflow_0",
        "type": "agentFlow",
        "position": {"x": 0, "y": 0},
        "data": {"id": "waitAgentflow_0", "name": "waitAgentflow", "label": "Wait", "inputs": inputs},
    }
    edge = echo_canvas["edges"][0]
    second = {**edge, "id": "e2", "source": "waitAgentflow_0", "sourceHandle": "waitAgentflow_0-output-waitAgentflow"}
    first = {**edge, "id": "e1", "target": "waitAgentflow_0", "targetHandle": "waitAgentflow_0"}
    return {"nodes": [*echo_canvas["nodes"], node], "edges": [first, second]}


async def test_a_turn_answers_and_leaves_a_record(echo: TestClient, parts: Services) -> None:
    reply = await echo.post(URL, json={"question": "hello"})
    assert reply.status == 200, await reply.text()
    body = await reply.json()
    assert body["text"] == "You said hello."
    assert body["question"] == "hello" and body["chatId"] == body["sessionId"] and body["chatMessageId"]
    assert [one["nodeLabel"] for one in body["agentFlowExecutedData"]] == ["Start", "Reply"]
    assert body["ignored"] == []
    row = await parts.executions.get(body["executionId"])
    assert row is not None
    assert (row.kind, row.state, row.flow_id, row.session_id) == ("turn", "FINISHED", "echo", body["sessionId"])
    assert row.graph_hash.startswith("sha256:") and len(row.nodes) == 2
    shown = await (await echo.get(f"/api/v1/executions/{row.id}")).json()
    assert json.loads(shown["executionData"]) == body["agentFlowExecutedData"]
    assert shown["transcript"] is None


async def test_a_session_goes_on(echo: TestClient, parts: Services) -> None:
    for body in ({"chatId": "c1"}, {"sessionId": "c1"}, {"overrideConfig": {"sessionId": "c1"}}):
        reply = await echo.post(URL, json={"question": "again", **body})
        assert (await reply.json())["sessionId"] == "c1"
    stored = await parts.store.call("GET", keys.session("echo", "c1"))
    assert stored.count(b"again") >= 3, "three turns are in the memory"
    assert 0 < await parts.store.call("TTL", keys.session("echo", "c1")) <= parts.session_ttl_s
    assert await parts.store.call("EXISTS", keys.session_lock("echo", "c1")) == 0
    assert (await parts.executions.search(ExecutionFilter(session_id="c1")))[1] == 3


async def test_a_long_session_keeps_its_newest_messages(
    echo: TestClient, parts: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MAX_MESSAGES", 4)
    for number in range(5):
        assert (await echo.post(URL, json={"question": f"word-{number}", "chatId": "c1"})).status == 200
    stored = json.loads(await parts.store.call("GET", keys.session("echo", "c1")))
    texts = [message["text"] for message in stored["messages"]]
    assert texts == ["word-3", "You said word-3.", "word-4", "You said word-4."]


async def test_form_and_variables_reach_the_flow(parts: Services, client: TestClient, echo_canvas: Any) -> None:
    words = "{{ $form.name }} of {{ $vars.firm }}, {{ $vars.city }}"
    echo_canvas["nodes"][1]["data"]["inputs"]["directReplyMessage"] = words
    settings = {"variables": {"firm": "Acme", "city": "Bled"}}
    await parts.flows.save(echo_canvas, flow_id="echo", settings=settings)
    override = {"tenantVariables": {"firm": "Lyntaris"}, "temperature": 2, "sessionId": "s"}
    reply = await client.post(URL, json={"form": {"name": "Ana"}, "overrideConfig": override})
    body = await reply.json()
    assert body["text"] == "Ana of Lyntaris, Bled"
    assert body["ignored"] == ["temperature"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ("{}", "/question"),
        ('{"question": "  "}', "/question"),
        ('{"question": 7}', "/question"),
        ('{"question": "x", "form": 1}', "/form"),
        ('{"question": "x", "overrideConfig": []}', "/overrideConfig"),
        ('{"question": "x", "overrideConfig": {"sessionId": 7}}', "/overrideConfig/sessionId"),
        ('{"question": "x", "overrideConfig": {"tenantVariables": "a"}}', "/overrideConfig/tenantVariables"),
        ('{"question": "x", "chatId": ""}', "/chatId"),
        ('{"question": "x", "sessionId": "a\\u0000b"}', "/sessionId"),
        ('{"question": "x", "streaming": "yes"}', "/streaming"),
        ("[]", ""),
        ("{", ""),
    ],
)
async def test_a_wrong_body_names_its_field(echo: TestClient, body: str, pointer: str) -> None:
    reply = await echo.post(URL, data=body)
    assert reply.status == 400, await reply.text()
    assert (await reply.json())["errors"][0]["pointer"] == pointer


async def test_unknown_flow_and_too_much(echo: TestClient) -> None:
    reply = await echo.post("/api/v1/prediction/nowhere", json={"question": "x"})
    assert (reply.status, (await reply.json())["code"]) == (404, "flow_not_found")
    reply = await echo.post(URL, json={"question": "x" * (1 << 20)})
    assert reply.status == 413


def events_of(text: str) -> list[tuple[str, Any]]:
    """The stream as a client reads it: each `data:` line is JSON."""
    found = []
    for block in text.split("\n\n"):
        for line in block.splitlines():
            if line.startswith("data:"):
                frame = json.loads(line[5:])
                found.append((frame["event"], frame["data"]))
    return found


async def test_a_stream_has_flowises_events(echo: TestClient, parts: Services) -> None:
    for flag in (True, "true"):
        reply = await echo.post(URL, json={"question": "hello", "streaming": flag, "chatId": "c9"})
        assert (reply.status, reply.content_type) == (200, "text/event-stream")
        assert reply.headers["X-Correlation-Id"]
        events = events_of(await reply.text())
        names = [name for name, _ in events]
        assert names[0] == "agentFlowEvent" and events[0][1] == "INPROGRESS"
        assert names.index("start") < names.index("token")
        assert "".join(data for name, data in events if name == "token") == "You said hello."
        assert names[-3:] == ["agentFlowEvent", "metadata", "end"] and events[-1][1] == "[DONE]"
        metadata = events[-2][1]
        assert metadata["chatId"] == metadata["sessionId"] == "c9" and metadata["question"] == "hello"
        row = await parts.executions.get(metadata["executionId"])
        assert row is not None and row.state is ExecutionState.FINISHED


async def test_a_flow_that_fails_is_a_true_error_and_changes_no_session(
    parts: Services, client: TestClient, echo_canvas: dict[str, Any]
) -> None:
    echo_canvas["nodes"][1]["data"] |= {"name": "toolAgentflow", "inputs": {"toolAgentflowSelectedTool": "x"}}
    await parts.flows.save(echo_canvas, flow_id="echo")
    reply = await client.post(URL, json={"question": "x", "chatId": "c1"})
    assert reply.status == 500
    problem = await reply.json()
    assert problem["code"] == "unknown_tool" and problem["sessionId"] == "c1"
    row = await parts.executions.get(problem["executionId"])
    assert row is not None and row.state is ExecutionState.ERROR and row.detail == problem["detail"]
    assert await parts.store.call("EXISTS", keys.session("echo", "c1"), keys.session_lock("echo", "c1")) == 0

    events = events_of(await (await client.post(URL, json={"question": "x", "streaming": True})).text())
    assert [name for name, _ in events][-3:] == ["agentFlowEvent", "error", "end"]
    assert events[-3][1] == "ERROR" and events[-2][1] == row.detail, "a sentence: Flowise's widget shows it"


async def test_a_turn_past_its_deadline_is_504(
    make_services: Any, aiohttp_client: Any, waiting_canvas: dict[str, Any]
) -> None:
    parts = make_services(turn_timeout_s=0.3)
    client = await aiohttp_client(build_gateway(parts))
    await parts.flows.save(waiting_canvas, flow_id="echo")
    reply = await client.post(URL, json={"question": "x"})
    assert reply.status == 504
    problem = await reply.json()
    row = await parts.executions.get(problem["executionId"])
    assert row is not None and row.state is ExecutionState.TIMEOUT and "0.3 s" in row.detail


async def test_one_turn_of_a_session_at_a_time(
    parts: Services, client: TestClient, waiting_canvas: dict[str, Any]
) -> None:
    await parts.flows.save(waiting_canvas, flow_id="echo")
    first = asyncio.create_task(client.post(URL, json={"question": "one", "chatId": "c1"}))
    while not await parts.store.call("EXISTS", keys.session_lock("echo", "c1")):
        await asyncio.sleep(0.01)
    reply = await client.post(URL, json={"question": "two", "chatId": "c1"})
    assert (reply.status, (await reply.json())["code"]) == (409, "session_busy")
    assert reply.headers["Retry-After"] == "1"
    other = await client.post(URL, json={"question": "three", "chatId": "c2"})
    assert other.status == (await first).status == 200


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_client_that_leaves_ends_its_turn(
    parts: Services, client: TestClient, waiting_canvas: dict[str, Any], streaming: bool
) -> None:
    wait = next(node for node in waiting_canvas["nodes"] if node["id"] == "waitAgentflow_0")
    wait["data"]["inputs"]["waitDuration"] = "30"
    await parts.flows.save(waiting_canvas, flow_id="echo")

    async def ask() -> None:
        async with client.post(URL, json={"question": "x", "chatId": "c1", "streaming": streaming}) as reply:
            await reply.read()

    asking = asyncio.create_task(ask())

    async def state() -> ExecutionState | None:
        rows, _ = await parts.executions.search(ExecutionFilter(flow_id="echo"))
        return rows[0].state if rows else None

    async with asyncio.timeout(30):
        while await state() is None:
            await asyncio.sleep(0.01)
        asking.cancel()
        while await state() is ExecutionState.INPROGRESS:
            await asyncio.sleep(0.02)
        while await parts.store.call("EXISTS", keys.session_lock("echo", "c1")):
            await asyncio.sleep(0.02)
    rows, _ = await parts.executions.search(ExecutionFilter(flow_id="echo"))
    assert rows[0].state is ExecutionState.TERMINATED and "client left" in rows[0].detail


async def test_a_session_that_was_begun_elsewhere(parts: Services, client: TestClient) -> None:
    reply = node("r", "directReplyAgentflow", directReplyMessage="{{ chat_history }}")
    await parts.flows.save({"nodes": [node("s", "startAgentflow"), reply], "edges": [edge("s", "r")]}, flow_id="echo")
    said = [{"role": "userMessage", "content": "Hi."}, {"role": "apiMessage", "content": "Hello!"}]
    for question, told in (
        ("one", "caller: Hi.\nagent: Hello!\ncaller: one"),
        ("two", "caller: Hi.\nagent: Hello!\nc"),
    ):
        body = await (await client.post(URL, json={"question": question, "history": said, "chatId": "c"})).json()
        assert body["text"].startswith(told) and body["text"].count("Hi.") == (1 if question == "one" else 2)
    wrong = await client.post(URL, json={"question": "x", "history": [{"role": "user", "content": "Hi."}]})
    assert (wrong.status, (await wrong.json())["errors"][0]["pointer"]) == (400, "/history/0/role")
