"""What a chat client may do without a key, from which pages, how often, and with which overrides and files."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from aiohttp import FormData
from aiohttp.test_utils import TestClient
from pydantic import SecretStr

from switchroom.gateway import chat_rows, prediction_stream
from switchroom.gateway.app import build_gateway
from switchroom.gateway.overrides import override
from switchroom.gateway.services import Services
from switchroom.records import ExecutionFilter, ExecutionState
from switchroom.store import keys

URL = "/api/v1/prediction/echo"
KEY = {"Authorization": "Bearer right-key"}
SHOP = {"Origin": "https://shop.example"}


@pytest.fixture
async def guarded(make_services: Any, aiohttp_client: Any, echo_canvas: dict[str, Any]) -> TestClient:
    """A gateway that asks for a key, with a flow that it gives to nobody yet."""
    parts = make_services(configured=(SecretStr("right-key"),))
    client: TestClient = await aiohttp_client(build_gateway(parts))
    await parts.flows.save(echo_canvas, flow_id="echo")
    return client


async def settings(client: TestClient, **chat: Any) -> None:
    reply = await client.put("/api/v1/chatflows/echo", json={"settings": {"chat": chat}}, headers=KEY)
    assert reply.status == 200, await reply.text()


async def test_only_a_public_flow_needs_no_key(guarded: TestClient) -> None:
    paths = [("POST", URL), ("GET", "/api/v1/public-chatbotConfig/echo"), ("POST", "/api/v1/leads/")]
    body = {"question": "hello", "chatflowid": "echo"}
    for method, path in paths:
        assert (await guarded.request(method, path, json=body)).status == 401, path
    await settings(guarded, public=True)
    for method, path in paths:
        assert (await guarded.request(method, path, json=body)).status == 200, path
        assert (await guarded.request(method, path, json=body, headers={"X-API-Key": "wrong"})).status == 401
    assert (await guarded.get("/api/v1/leads/echo")).status == 401, "what others left is not public"
    await guarded.put("/api/v1/chatflows/echo", json={"settings": {"protected": True}}, headers=KEY)
    for method, path in paths:
        assert (await guarded.request(method, path, json=body)).status == 401, path


async def test_origins(guarded: TestClient) -> None:
    preflight = {**SHOP, "Access-Control-Request-Method": "POST"}
    assert (await guarded.options(URL, headers=preflight)).status == 403
    await settings(guarded, public=True)
    assert (await guarded.post(URL, json={"question": "x"}, headers=SHOP)).status == 403
    own = {"Origin": f"http://{guarded.host}:{guarded.port}"}
    assert (await guarded.post(URL, json={"question": "x"}, headers=own)).status == 200

    await settings(guarded, public=True, allowedOrigins=["https://shop.example"])
    reply = await guarded.options(URL, headers=preflight)
    assert (reply.status, reply.headers["Access-Control-Allow-Origin"]) == (204, "https://shop.example")
    assert "Content-Type" in reply.headers["Access-Control-Allow-Headers"] and reply.headers["Vary"] == "Origin"
    reply = await guarded.post(URL, json={"question": "x", "streaming": True}, headers=SHOP)
    assert (reply.status, reply.headers["Access-Control-Allow-Origin"]) == (200, "https://shop.example")
    assert (await guarded.post(URL, json={"question": "x"}, headers={"Origin": "https://else.example"})).status == 403
    reply = await guarded.post("/api/v1/feedback/echo", json={}, headers=SHOP)
    assert reply.status == 400 and reply.headers["Access-Control-Allow-Origin"], "a script may read the problem"
    assert (await guarded.options("/api/v1/executions", headers=preflight)).status == 405


async def test_too_many_turns(guarded: TestClient, store: Any) -> None:
    await settings(guarded, public=True, rateLimit={"limit": 2, "windowS": 30, "message": "Slow down."})
    left = []
    for _ in range(2):
        reply = await guarded.post(URL, json={"question": "x"})
        left.append(reply.headers["RateLimit"].split(";")[1])
        assert (reply.status, reply.headers["RateLimit-Policy"]) == (200, '"flow";q=2;w=30')
    assert left == ["r=1", "r=0"]
    reply = await guarded.post(URL, json={"question": "x"})
    problem = await reply.json()
    assert (reply.status, problem["code"], problem["detail"]) == (429, "rate_limited", "Slow down.")
    assert 1 <= int(reply.headers["Retry-After"]) <= 30 and "r=0" in reply.headers["RateLimit"]
    assert (await guarded.post(URL, json={"question": "x"}, headers=KEY)).status == 200, "a key counts for itself"
    assert 0 < await store.call("PTTL", keys.chat_rate("echo", "at 127.0.0.1")) <= 30_000


async def test_overrides_take_effect_where_the_owner_enabled_them(guarded: TestClient) -> None:
    config = {
        "directReplyMessage": "New words, {{ $vars.city }}",
        "vars": {"city": "Bled", "firm": "Acme"},
        "startState": {"a": 1},
        "temperature": 0.5,
    }
    body = {"question": "hello", "overrideConfig": config}
    reply = await (await guarded.post(URL, json=body, headers=KEY)).json()
    assert reply["text"] == "You said hello."
    everything = ["directReplyMessage", "startState", "temperature", "vars.city", "vars.firm"]
    assert reply["ignored"] == everything

    await settings(guarded, overrides={"Reply": ["directReplyMessage"]}, overrideVariables=["city"], overrideState=True)
    flow = await (await guarded.get("/api/v1/chatflows/echo", headers=KEY)).json()
    reply = await (await guarded.post(URL, json=body, headers=KEY)).json()
    assert (reply["text"], reply["ignored"]) == ("New words, Bled", ["temperature", "vars.firm"])
    row = await (await guarded.get(f"/api/v1/executions/{reply['executionId']}", headers=KEY)).json()
    assert row["graphHash"] != flow["hash"], "the record names what ran"
    by_node = {"directReplyMessage": {"directReplyAgentflow_0": "By its ID"}}
    reply = await (await guarded.post(URL, json={"question": "x", "overrideConfig": by_node}, headers=KEY)).json()
    assert (reply["text"], reply["ignored"]) == ("By its ID", [])
    again = await (await guarded.post(URL, json={"question": "x"}, headers=KEY)).json()
    assert again["text"] == "You said x.", "one turn only"

    await settings(guarded, unknownOverrides="reject")
    refused = await guarded.post(URL, json=body, headers=KEY)
    assert refused.status == 400
    pointers = {fault["pointer"] for fault in (await refused.json())["errors"]}
    assert pointers == {"/overrideConfig/" + name.replace(".", "/") for name in everything}


async def test_objects_are_merged_and_lists_grow(parts: Services) -> None:
    inputs = {"agentModelConfig": {"modelName": "a", "temperature": 1}, "agentTools": [{"agentSelectedTool": "one"}]}
    agents = [{"id": name, "data": {"name": "agentAgentflow", "label": name, "inputs": inputs}} for name in ("x", "y")]
    start = {"id": "s", "data": {"name": "startAgentflow"}}
    edges = [{"source": "s", "target": "x"}, {"source": "x", "target": "y"}]
    chat = {"overrides": {"x": ["agentModelConfig", "agentTools", "agentUserMessage"], "*": ["agentUserMessage"]}}
    canvas = {"nodes": [start, *agents], "edges": edges}
    flow = await parts.flows.save(canvas, flow_id="two", settings={"chat": chat})
    tools = [{"agentSelectedTool": "one"}, {"agentSelectedTool": "two"}]
    config = {"agentModelConfig": {"x": {"temperature": 0}}, "agentTools": tools, "agentUserMessage": "Hi"}
    over = await override(flow, config)
    changed, other = over.graph.by_id["x"].inputs, over.graph.by_id["y"].inputs
    assert changed["modelConfig"] == {"modelName": "a", "temperature": 0} and changed["input"] == "Hi"
    assert changed["tools"] == [{"tool": "one"}, {"tool": "two"}]
    assert other == flow.graph.by_id["y"].inputs, "what every node may have set is set where it is"
    assert over.ignored == []


async def test_files_of_text_are_read_and_others_refused(guarded: TestClient) -> None:
    form = FormData()
    form.add_field("question", "What does it say?")
    form.add_field("overrideConfig", json.dumps({"sessionId": "s1"}))
    form.add_field("files", b"Opening hours: 8 to 17", filename='a "list".txt', content_type="text/plain")
    reply = await guarded.post(URL, data=form, headers=KEY)
    body = await reply.json()
    assert (reply.status, body["sessionId"]) == (200, "s1")
    assert "Opening hours: 8 to 17</doc>" in body["text"] and body["question"] == "What does it say?"

    data = "data:text/csv;base64," + base64.b64encode("a;ž".encode("cp1250")).decode()
    upload = {"name": "b.csv", "type": "file", "data": data, "mime": "text/csv"}
    reply = await guarded.post(URL, json={"question": "x", "uploads": [upload]}, headers=KEY)
    assert reply.status == 200 and "a;" in (await reply.json())["text"]
    picture = {"name": "c.png", "type": "file", "data": "data:image/png;base64,AAAA", "mime": "image/png"}
    reply = await guarded.post(URL, json={"question": "x", "uploads": [upload, picture]}, headers=KEY)
    problem = await reply.json()
    assert (reply.status, problem["code"]) == (415, "upload_not_supported")
    assert "'c.png' is image/png" in problem["detail"]

    form = FormData()
    form.add_field("files", b"words", filename="d.md", content_type="text/markdown")
    (found,) = await (await guarded.post("/api/v1/attachments/echo/s1", data=form, headers=KEY)).json()
    assert found == {"name": "d.md", "mimeType": "text/markdown", "size": 5, "content": "words"}


async def test_a_form_with_too_large_files(make_services: Any, aiohttp_client: Any, echo_canvas: Any) -> None:
    parts = make_services(max_upload_bytes=1_000)
    client = await aiohttp_client(build_gateway(parts))
    await parts.flows.save(echo_canvas, flow_id="echo")
    for path in (URL, "/api/v1/attachments/echo/s"):
        form = FormData()
        form.add_field("files", b"x" * 2_000, filename="a.txt", content_type="text/plain")
        reply = await client.post(path, data=form)
        assert (reply.status, (await reply.json())["maxBytes"]) == (413, 1_000)


@pytest.mark.parametrize(
    ("media_type", "body", "statuses"),
    [
        ("application/json", b"{}", (400, 415)),
        ("multipart/form-data", b"x", (400, 400)),
        ("multipart/form-data; boundary=b", b"", (400, 400)),
        ("multipart/form-data; boundary=b", b"nothing of a form", (400, 400)),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data; filename=a\r\n", (415, 415)),
        ("multipart/form-data; boundary=b", b"--b\r\nbroken\r\n\r\nx\r\n--b--\r\n", (400, 400)),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Transfer-Encoding: x\r\n\r\nx\r\n--b--\r\n", (400, 400)),
        ("multipart/form-data; boundary=" + "b" * 100, b"--b--", (400, 400)),
    ],
)
async def test_a_broken_form_is_the_clients_fault(
    guarded: TestClient, media_type: str, body: bytes, statuses: tuple[int, int]
) -> None:
    for path, status in zip((URL, "/api/v1/attachments/echo/s"), statuses, strict=True):
        reply = await guarded.post(path, data=body, headers={**KEY, "Content-Type": media_type})
        assert reply.status == status, await reply.text()
        assert (await reply.json())["detail"]


async def test_ratings_and_leads_are_bounded(
    parts: Services, client: TestClient, echo_canvas: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await parts.flows.save(echo_canvas, flow_id="echo")
    rating = {"chatflowid": "echo", "chatId": "c", "messageId": "m", "rating": "THUMBS_DOWN", "content": ""}
    made = await (await client.post("/api/v1/feedback/echo", json=rating)).json()
    changed = await (await client.put(f"/api/v1/feedback/{made['id']}", json={"content": "Too slow"})).json()
    assert (changed["content"], changed["rating"]) == ("Too slow", "THUMBS_DOWN")
    assert await (await client.get("/api/v1/feedback/echo")).json() == [changed]
    assert (await client.put("/api/v1/feedback/echo.nothing", json={"content": "x"})).status == 404
    assert (await client.post("/api/v1/feedback/echo", json={**rating, "rating": "MEH"})).status == 400

    monkeypatch.setattr(chat_rows, "MAX_ROWS", 3)
    for number in range(5):
        await client.post("/api/v1/leads", json={"chatflowid": "echo", "name": f"n{number}"})
        await asyncio.sleep(0.002)
    assert [row["name"] for row in await (await client.get("/api/v1/leads/echo")).json()] == ["n4", "n3", "n2"]
    monkeypatch.setattr(chat_rows, "KEPT_MS", 0)
    await asyncio.sleep(0.002)
    await client.post("/api/v1/leads", json={"chatflowid": "echo", "name": "last"})
    assert [row["name"] for row in await (await client.get("/api/v1/leads/echo")).json()] == ["last"]


async def test_the_widget_sees_starts_form_and_nothing_else(
    parts: Services, client: TestClient, echo_canvas: Any
) -> None:
    inputs = echo_canvas["nodes"][0]["data"]["inputs"]
    inputs |= {"startInputType": "formInput", "formTitle": "Hi", "startState": [{"key": "secret", "value": "s3cret"}]}
    bot = {"starterPrompts": {"0": {"prompt": "Hello"}}}
    await parts.flows.save(echo_canvas, flow_id="echo", settings={"chat": {"chatbot": bot}})
    shown = await (await client.get("/api/v1/public-chatbotConfig/echo")).json()
    assert shown["starterPrompts"] == bot["starterPrompts"] and shown["uploads"]["isImageUploadAllowed"] is False
    (start,) = json.loads(shown["flowData"])["nodes"]
    assert start["data"]["inputs"] == {"startInputType": "formInput", "formTitle": "Hi"}
    row = await (await client.get("/api/v1/public-chatflows/echo")).json()
    assert "s3cret" not in json.dumps(row) and "You said" not in json.dumps(row) and row["isPublic"] is False
    assert (await client.get("/api/v1/public-chatbotConfig/nowhere")).status == 404
    assert (await client.get("/api/v1/node-icon/anything")).content_type == "image/svg+xml"


@pytest.fixture
def slow_canvas(echo_canvas: dict[str, Any]) -> dict[str, Any]:
    """Takes 0.7 s before it answers."""
    first, edge = echo_canvas["nodes"][0], echo_canvas["edges"][0]
    wait = {**first, "id": "waitAgentflow_0", "data": {
        "id": "waitAgentflow_0", "name": "waitAgentflow", "label": "Wait",
        "inputs": {"waitDuration": "0.7", "waitUnit": "seconds"},
    }}  # fmt: skip
    on = {**edge, "id": "e2", "source": "waitAgentflow_0", "sourceHandle": "waitAgentflow_0-output-waitAgentflow"}
    to = {**edge, "id": "e1", "target": "waitAgentflow_0", "targetHandle": "waitAgentflow_0"}
    return {"nodes": [*echo_canvas["nodes"], wait], "edges": [to, on]}


async def finished(parts: Services, state: ExecutionState) -> Any:
    async with asyncio.timeout(30):
        while True:
            rows, _ = await parts.executions.search(ExecutionFilter(flow_id="echo", state=state))
            if rows:
                return rows[0]
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_client_that_leaves_may_leave_its_turn_running(
    parts: Services, client: TestClient, slow_canvas: Any, streaming: bool
) -> None:
    await parts.flows.save(slow_canvas, flow_id="echo", settings={"chat": {"onDisconnect": "detach"}})
    asking = asyncio.create_task(client.post(URL, json={"question": "x", "chatId": "c", "streaming": streaming}))
    while not await parts.store.call("EXISTS", keys.session_lock("echo", "c")):
        await asyncio.sleep(0.01)
    if streaming:
        (await asking).close()
    else:
        asking.cancel()
    row = await finished(parts, ExecutionState.FINISHED)
    assert [node["label"] for node in row.nodes] == ["Start", "Wait", "Reply"]
    async with asyncio.timeout(30):
        while (stored := await parts.store.call("GET", keys.session("echo", "c"))) is None:
            await asyncio.sleep(0.02)
    assert b"You said x." in stored, "the session went on"


async def test_a_stream_beats_while_the_flow_is_silent(
    parts: Services, client: TestClient, slow_canvas: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_stream, "HEARTBEAT_S", 0.1)
    await parts.flows.save(slow_canvas, flow_id="echo")
    text = await (await client.post(URL, json={"question": "x", "streaming": True})).text()
    before, _, _ = text.partition('"event":"token"')
    assert before.count("\n\n:heartbeat\n\n") >= 3, "comments between frames"


async def test_a_turn_is_stopped_from_another_process(
    make_services: Any, aiohttp_client: Any, slow_canvas: dict[str, Any]
) -> None:
    here, there = make_services(), make_services()
    one, other = await aiohttp_client(build_gateway(here)), await aiohttp_client(build_gateway(there))
    await here.flows.save(slow_canvas, flow_id="echo")
    asking = asyncio.create_task(one.post(URL, json={"question": "x", "chatId": "c"}))
    while not await here.store.call("EXISTS", keys.session_lock("echo", "c")):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    at = asyncio.get_running_loop().time()
    assert (await other.put("/api/v1/chatmessage/abort/echo/c")).status == 200
    reply = await asking
    assert asyncio.get_running_loop().time() - at < 0.5, "not at its end, 0.6 s away"
    assert (reply.status, (await reply.json())["code"]) == (409, "turn_stopped")
    row = await finished(here, ExecutionState.TERMINATED)
    assert row.detail == "The turn was stopped by a request."
    assert (await other.put("/api/v1/chatmessage/abort/echo/c")).status == 200, "nothing runs: nothing to stop"

    streaming = await one.post(URL, json={"question": "x", "chatId": "c", "streaming": True})
    await other.put("/api/v1/chatmessage/abort/echo/c")
    text = await streaming.text()
    assert '"event":"abort"' in text and text.rstrip().endswith('{"event":"end","data":"[DONE]"}')


async def test_a_person_decides_where_a_run_stops(parts: Services, client: TestClient, echo_canvas: Any) -> None:
    reply_node, start = echo_canvas["nodes"][1], echo_canvas["nodes"][0]
    human = {**start, "id": "humanInputAgentflow_0", "data": {
        "id": "humanInputAgentflow_0", "name": "humanInputAgentflow", "label": "Sure?",
        "inputs": {"humanInputDescriptionType": "fixed", "humanInputDescription": "Send it?",
                   "humanInputEnableFeedback": True},
    }}  # fmt: skip
    no = json.loads(json.dumps(reply_node))
    no["id"] = no["data"]["id"] = "directReplyAgentflow_1"
    no["data"]["inputs"]["directReplyMessage"] = "Not sent."
    reply_node["data"]["inputs"]["directReplyMessage"] = "Sent."
    edge = echo_canvas["edges"][0]

    def to(source: str, port: str, target: str) -> dict[str, Any]:
        handle = f"{source}-output-{port}"
        return {**edge, "id": f"{handle}-{target}", "source": source, "sourceHandle": handle,
                "target": target, "targetHandle": target}  # fmt: skip

    canvas = {
        "nodes": [start, human, reply_node, no],
        "edges": [
            to("startAgentflow_0", "startAgentflow", "humanInputAgentflow_0"),
            to("humanInputAgentflow_0", "0", "directReplyAgentflow_0"),
            to("humanInputAgentflow_0", "1", "directReplyAgentflow_1"),
        ],
    }
    await parts.flows.save(canvas, flow_id="echo")
    for decision, said in (("proceed", "Sent."), ("reject", "Not sent.")):
        asked = await (await client.post(URL, json={"question": "x", "chatId": decision})).json()
        action = asked["action"]
        assert action["mapping"] == {"approve": "Proceed", "reject": "Reject"}
        row = await parts.executions.get(asked["executionId"])
        assert row is not None and row.state is ExecutionState.STOPPED
        answer = {"type": decision, "startNodeId": action["data"]["nodeId"], "feedback": "fine"}
        body = {"question": "", "chatId": decision, "humanInput": answer}
        done = await (await client.post(URL, json=body)).json()
        assert done["text"] == said and done["action"] is None
        assert done["executionId"] == asked["executionId"], "one run, one record"
        row = await parts.executions.get(done["executionId"])
        assert row is not None and row.state is ExecutionState.FINISHED and len(row.nodes) == 3
    refused = await client.post(URL, json={"chatId": "c9", "humanInput": {"type": "maybe"}})
    assert refused.status == 400
    refused = await client.post(URL, json={"chatId": "c9", "humanInput": {"type": "proceed"}})
    assert (refused.status, (await refused.json())["code"]) == (409, "not_stopped")
