"""Flows over HTTP: import in each shape, change, list, delete, and what is refused."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from switchroom.gateway.services import Services
from switchroom.queue import NewCall, Rules

URL = "/api/v1/chatflows"


async def test_import_in_each_shape(client: TestClient, echo_canvas: dict[str, Any]) -> None:
    text = json.dumps(echo_canvas)
    hashes = set()
    for number, body in enumerate(
        (
            {"flowData": echo_canvas, "name": "Echo"},
            {"flowData": text, "name": "Echo"},
            {**echo_canvas, "name": "Echo"},
            {"flowData": text, "name": "Echo", "id": "echo-2", "deployed": True, "category": "unknown to us"},
        )
    ):
        reply = await client.post(URL, json=body, params={"id": "by-query"} if number == 1 else {})
        assert reply.status == 200, await reply.text()
        flow = await reply.json()
        assert flow["name"] == "Echo" and flow["type"] == "AGENTFLOW" and flow["deployed"] is True
        assert json.loads(flow["flowData"])["nodes"] == echo_canvas["nodes"]
        assert flow["createdDate"] == flow["updatedDate"] and flow["createdDate"].endswith("Z")
        hashes.add(flow["hash"])
        assert await (await client.get(f"{URL}/{flow['id']}")).json() == flow
        assert {1: "by-query", 3: "echo-2"}.get(number, flow["id"]) == flow["id"]
    assert len(hashes) == 1


async def test_a_row_of_flowise_brings_its_settings_and_takes_them_along(
    client: TestClient, echo_canvas: dict[str, Any]
) -> None:
    prompts = {"0": {"prompt": "Hi"}}
    chatbot = {"allowedOrigins": ["shop.example", "http://lan.example:81/page", ""], "starterPrompts": prompts}
    api = {
        "overrideConfig": {
            "status": True,
            "nodes": {"Start": [{"label": "x", "name": "startState", "type": "array", "enabled": True}],
                      "Reply": [{"name": "directReplyMessage", "enabled": False}]},
            "variables": [{"id": "7", "name": "firm", "type": "static", "enabled": True}],
        },
        "rateLimit": {"status": True, "limitMax": "7", "limitDuration": "60", "limitMsg": "Slowly"},
    }  # fmt: skip
    row = {"id": "row", "name": "Row", "flowData": json.dumps(echo_canvas), "isPublic": True, "deployed": True}
    row |= {"chatbotConfig": json.dumps(chatbot), "apiConfig": json.dumps(api), "analytic": None, "workspaceId": "w"}
    flow = await (await client.post(URL, json=row)).json()
    chat = flow["settings"]["chat"]
    assert (chat["public"], chat["allowedOrigins"]) == (
        True, ["https://shop.example", "http://lan.example:81"],
    )  # fmt: skip
    assert (chat["overrides"], chat["overrideState"], chat["overrideVariables"]) == (
        {"Start": ["startState"]}, True, ["firm"],
    )  # fmt: skip
    assert chat["rateLimit"] == {"limit": 7, "windowS": 60, "message": "Slowly"}
    assert chat["chatbot"] == {"starterPrompts": {"0": {"prompt": "Hi"}}}

    again = {name: flow[name] for name in ("name", "flowData", "isPublic", "chatbotConfig", "apiConfig")}
    copy = await (await client.post(URL, json=again | {"id": "copy"})).json()
    assert copy["settings"] == flow["settings"]
    kept = await (await client.put(f"{URL}/copy", json={"apiConfig": '{"rateLimit": {"status": false}}'})).json()
    assert kept["settings"]["chat"] == chat | {"rateLimit": None}


@pytest.mark.parametrize(
    ("columns", "pointer"),
    [
        ({"apiConfig": "{"}, "/apiConfig"),
        ({"apiConfig": "[]"}, "/apiConfig"),
        ({"apiConfig": {"rateLimit": {"limitMax": "many"}}}, "/apiConfig/rateLimit/limitMax"),
        ({"chatbotConfig": {"allowedOrigins": "x"}}, "/chatbotConfig/allowedOrigins"),
        ({"isPublic": "yes"}, "/isPublic"),
    ],
)
async def test_a_wrong_column_is_named(
    client: TestClient, echo_canvas: dict[str, Any], columns: dict[str, Any], pointer: str
) -> None:
    reply = await client.post(URL, json={"flowData": echo_canvas, **columns})
    assert reply.status == 400 and (await reply.json())["errors"][0]["pointer"] == pointer, await reply.text()


async def test_an_import_says_what_its_author_may_not_have_meant(
    client: TestClient, echo_canvas: dict[str, Any]
) -> None:
    echo_canvas["nodes"][1]["data"]["inputs"]["directReplyMessage"] = "{{ nobody.output }}"
    flow = await (await client.post(URL, json={"flowData": echo_canvas})).json()
    (warning,) = flow["warnings"]
    assert warning["pointer"] == "/nodes/1" and "`nobody`" in warning["detail"]
    assert "warnings" not in await (await client.get(f"{URL}/{flow['id']}")).json()


async def test_type_and_settings_are_kept_through_changes(
    client: TestClient, parts: Services, echo_canvas: dict[str, Any]
) -> None:
    settings = {"lines": 2, "duplicates": "reject"}
    body = {"flowData": echo_canvas, "id": "line", "type": "REALTIME", "settings": settings}
    flow = await (await client.post(URL, json=body)).json()
    assert flow["type"] == "REALTIME"
    chat = flow["settings"]["chat"]
    assert (chat["public"], chat["onDisconnect"]) == (False, "cancel")
    assert {name: value for name, value in flow["settings"].items() if name not in ("chat", "pipeline")} == {
        "lines": 2, "duplicates": "reject", "maxAttempts": 3, "protected": False, "variables": {}, "cap": 100_000,
        "serviceLevelS": 20, "shortAbandonS": 5, "wrapupS": 0, "retryDelayS": 0, "refuseBackoffS": 5, "maxWaitS": 0,
        "relaxAfterS": [], "openingHours": None, "statsDays": 400,
    }  # fmt: skip
    assert (await parts.queue.status("line")).lines == 2

    await asyncio.sleep(0.002)
    changed = await (await client.put(f"{URL}/line", json={"name": "New", "settings": {"maxAttempts": 5}})).json()
    assert changed["settings"] == {**flow["settings"], "maxAttempts": 5}
    assert (changed["name"], changed["type"], changed["hash"]) == ("New", "REALTIME", flow["hash"])
    assert changed["flowData"] == flow["flowData"]
    assert changed["createdDate"] == flow["createdDate"] and changed["updatedDate"] > flow["updatedDate"]

    echo_canvas["nodes"][1]["data"]["inputs"]["directReplyMessage"] = "Other words"
    other = await (await client.put(f"{URL}/line", json={"flowData": echo_canvas, "type": "REALTIME"})).json()
    assert other["hash"] != flow["hash"] and other["name"] == "New" and other["settings"] == changed["settings"]


async def test_lists(client: TestClient, echo_canvas: dict[str, Any]) -> None:
    assert await (await client.get(URL)).json() == []
    for number in range(5):
        await client.post(URL, json={"flowData": echo_canvas, "id": f"f{number}"})
    assert {flow["id"] for flow in await (await client.get(URL)).json()} == {f"f{number}" for number in range(5)}
    seen = []
    for page in (1, 2, 3):
        body = await (await client.get(f"{URL}?page={page}&limit=2")).json()
        assert body["total"] == 5
        seen += [flow["id"] for flow in body["data"]]
    assert sorted(seen) == [f"f{number}" for number in range(5)]
    assert (await client.get(f"{URL}?limit=0")).status == 400


async def test_delete(client: TestClient, parts: Services, echo_canvas: dict[str, Any]) -> None:
    await client.post(URL, json={"flowData": echo_canvas, "id": "line", "type": "REALTIME"})
    await parts.queue.enqueue("line", NewCall(form={"ID": "+386"}), Rules())
    reply = await client.delete(f"{URL}/line")
    assert (reply.status, (await reply.json())["code"]) == (409, "flow_in_use")
    await parts.queue.clear("line")
    assert await (await client.delete(f"{URL}/line")).json() == {"affected": 1, "raw": []}
    for reply in (
        await client.delete(f"{URL}/line"),
        await client.get(f"{URL}/line"),
        await client.put(f"{URL}/line", json={"name": "x"}),
    ):
        assert (reply.status, (await reply.json())["code"]) == (404, "flow_not_found")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ("[]", ""),
        ("{}", "/flowData"),
        ('{"flowData": 7}', "/flowData"),
        ('{"flowData": "{"}', "/flowData"),
        ('{"flowData": {"nodes": [], "edges": []}, "id": "a b"}', "/id"),
        ('{"flowData": {"nodes": [], "edges": []}, "name": 7}', "/name"),
        ('{"flowData": {"nodes": [], "edges": []}, "type": "ASSISTANT"}', "/type"),
        ('{"flowData": {"nodes": [], "edges": []}, "deployed": "yes"}', "/deployed"),
        ('{"flowData": {"nodes": [], "edges": []}, "settings": {"lines": 0}}', "/settings/lines"),
        ('{"flowData": {"nodes": [], "edges": []}, "settings": {"duplicates": "maybe"}}', "/settings/duplicates"),
        ('{"flowData": {"nodes": [], "edges": []}, "settings": {"line": 1}}', "/settings/line"),
    ],
)
async def test_a_wrong_import_names_its_field(client: TestClient, body: str, pointer: str) -> None:
    reply = await client.post(URL, data=body)
    assert reply.status == 400, await reply.text()
    assert (await reply.json())["errors"][0]["pointer"] == pointer
    assert await (await client.get(URL)).json() == []
