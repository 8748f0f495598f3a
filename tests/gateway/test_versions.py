"""Versions of a flow: kept by hash, deployed back and forth, exported and imported; the palette."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp.test_utils import TestClient

from switchroom.compact.kinds import KINDS
from switchroom.gateway.services import Services
from switchroom.store import keys

URL = "/api/v1/chatflows"


async def test_versions_are_kept_and_deployed_back(client: TestClient, parts: Services, echo_canvas: Any) -> None:
    reply = echo_canvas["nodes"][1]["data"]["inputs"]
    hashes = []
    for words in ("One", "Two", "Two"):
        reply["directReplyMessage"] = words
        echo_canvas["nodes"][0]["position"]["x"] += 100  # a moved box makes no new version
        flow = await (await client.post(URL, json={"id": "f", "name": words, "flowData": echo_canvas})).json()
        hashes.append(flow["hash"])
        await asyncio.sleep(0.002)
    first, second = hashes[0], hashes[1]
    assert hashes[2] == second != first
    versions = await (await client.get(f"{URL}/f/versions")).json()
    assert [(row["hash"], row["name"], row["live"]) for row in versions] == [
        (second, "Two", True),
        (first, "One", False),
    ]

    back = await (await client.post(f"{URL}/f/versions/{first}/deploy")).json()
    assert (back["hash"], back["name"]) == (first, "One")
    said = await (await client.post("/api/v1/prediction/f", json={"question": "x"})).json()
    assert said["text"] == "One", "what is deployed is what runs"
    shown = await (await client.get(f"{URL}/f/versions/{second}")).json()
    assert shown["live"] is False and "Two" in shown["flowData"]
    assert (await client.post(f"{URL}/f/versions/{second}/deploy")).status == 200
    assert (await (await client.get(f"{URL}/f")).json())["hash"] == second
    for path in ("versions/sha256:none", "versions/sha256:none/deploy"):
        assert (await client.request("POST" if "deploy" in path else "GET", f"{URL}/f/{path}")).status == 404
    assert (await client.get(f"{URL}/nowhere/versions")).status == 404
    await client.delete(f"{URL}/f")
    assert await parts.store.call("EXISTS", keys.chat_rows("f", "versions")) == 0


async def test_an_export_is_imported_as_the_same_flow_without_its_credentials(
    client: TestClient, echo_canvas: dict[str, Any]
) -> None:
    echo_canvas["nodes"][1]["data"]["credential"] = "a-credential-id"
    saved = await (await client.post(URL, json={"id": "f", "flowData": echo_canvas})).json()
    reply = await client.get(f"{URL}/f/export")
    assert reply.headers["Content-Disposition"] == 'attachment; filename="f.json"'
    assert b"credential-id" not in await reply.read()
    again = await (await client.post(URL, json={"id": "g", "flowData": await reply.json()})).json()
    assert again["hash"] == saved["hash"]


async def test_the_palette_declares_what_the_engine_knows(client: TestClient) -> None:
    nodes = await (await client.get("/api/v1/nodes")).json()
    assert {node["name"] for node in nodes} == {kind.wire for kind in KINDS}
    one = await (await client.get("/api/v1/nodes/conditionAgentflow")).json()
    assert one["outputs"] == "many" and any(field["name"] == "conditions" for field in one["inputs"])
    assert (one["label"], one["type"]) == ("Condition", "Condition")
    agent = await (await client.get("/api/v1/nodes/conditionAgentAgentflow")).json()
    assert (agent["label"], agent["type"]) == ("Condition Agent", "ConditionAgent")
    assert (await client.get("/api/v1/nodes/nothing")).status == 404


async def test_a_function_is_tried_as_flows_run_it(client: TestClient) -> None:
    url = "/api/v1/node-custom-function"
    body = {"javascriptFunction": "return {sum: $a + $b.length}", "functionInputVariables": {"a": 40, "$b": "ab"}}
    assert await (await client.post(url, json=body)).json() == {"sum": 42}
    body["functionInputVariables"] = '{"a": 1, "b": []}'
    assert await (await client.post(url, json=body)).json() == {"sum": 1}
    for wrong, status, code in (
        ({"javascriptFunction": "while(true){}"}, 422, "script_error"),
        ({"javascriptFunction": "return ("}, 422, "script_error"),
        ({"javascriptFunction": "return 1", "functionInputVariables": "["}, 400, "bad_input"),
        ({"javascriptFunction": 7}, 400, "bad_input"),
        ({}, 400, "bad_input"),
    ):
        reply = await client.post(url, json=wrong)
        assert (reply.status, (await reply.json())["code"]) == (status, code), wrong
