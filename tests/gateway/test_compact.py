"""The compact export: every way to ask, every way to ask wrongly."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from switchroom.compact import compact_canvas, content_hash, from_json, from_msgpack

URL = "/api/v1/openai-realtime/compact"


async def saved(client: TestClient, canvas: dict[str, Any], flow_id: str = "echo") -> dict[str, Any]:
    reply = await client.post("/api/v1/chatflows", json={"id": flow_id, "flowData": canvas})
    assert reply.status == 200, await reply.text()
    body: dict[str, Any] = await reply.json()
    return body


async def test_a_canvas_in_the_body_as_object_and_as_string(client: TestClient, echo_canvas: dict[str, Any]) -> None:
    expected = compact_canvas(echo_canvas)
    for flow_data in (echo_canvas, json.dumps(echo_canvas)):
        reply = await client.post(URL, json={"flowData": flow_data})
        assert reply.status == 200
        assert from_json(await reply.read()) == expected
        assert reply.headers["ETag"] == f'"{content_hash(expected)}"'


async def test_a_stored_flow_by_each_name(client: TestClient, echo_canvas: dict[str, Any]) -> None:
    flow = await saved(client, echo_canvas)
    for body in ({"flowId": "echo"}, {"chatflowId": "echo"}, {"flowId": "echo", "chatflowId": "echo"}):
        reply = await client.post(URL, json=body)
        assert reply.status == 200
        assert reply.headers["ETag"] == f'"{flow["hash"]}"'
    reply = await client.get("/api/v1/openai-realtime/echo/compact")
    assert from_json(await reply.read()) == compact_canvas(echo_canvas)


async def test_if_none_match(client: TestClient, echo_canvas: dict[str, Any]) -> None:
    flow = await saved(client, echo_canvas)
    url, tag = "/api/v1/openai-realtime/echo/compact", f'"{flow["hash"]}"'
    for given in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        reply = await client.get(url, headers={"If-None-Match": given})
        assert (reply.status, await reply.read(), reply.headers["ETag"]) == (304, b"", tag)
    assert (await client.get(url, headers={"If-None-Match": '"other"'})).status == 200
    # The same graph in its other encoding is another representation.
    assert (await client.get(f"{url}?format=msgpack", headers={"If-None-Match": tag})).status == 200
    echo_canvas["nodes"][1]["data"]["inputs"]["directReplyMessage"] = "Something else"
    await saved(client, echo_canvas)
    assert (await client.get(url, headers={"If-None-Match": tag})).status == 200


async def test_messagepack_by_body_query_and_accept(client: TestClient, echo_canvas: dict[str, Any]) -> None:
    await saved(client, echo_canvas)
    expected = compact_canvas(echo_canvas)
    accept = {"Accept": "text/html, application/msgpack;q=0.9"}
    for reply in (
        await client.post(URL, json={"flowData": echo_canvas, "format": "msgpack"}),
        await client.post(URL, json={"flowData": echo_canvas}, headers=accept),
        await client.get("/api/v1/openai-realtime/echo/compact?format=msgpack"),
        await client.get("/api/v1/openai-realtime/echo/compact", headers=accept),
    ):
        assert (reply.status, reply.content_type) == (200, "application/vnd.msgpack")
        assert from_msgpack(await reply.read()) == expected
    reply = await client.post(URL, json={"flowData": echo_canvas, "format": "json"}, headers=accept)
    assert reply.content_type == "application/json"


@pytest.mark.parametrize(
    ("body", "status", "pointers"),
    [
        ("", 400, None),
        ("{", 400, [""]),
        ("[]", 400, [""]),
        ('"x"', 400, [""]),
        ("{}", 400, None),
        ('{"flowId": null}', 400, None),
        ('{"flowId": "echo", "flowData": {}}', 400, ["/flowId", "/flowData"]),
        ('{"flowId": "echo", "chatflowId": "b"}', 400, ["/chatflowId"]),
        ('{"flowId": 7}', 400, ["/flowId"]),
        ('{"flowData": 7}', 400, ["/flowData"]),
        ('{"flowData": []}', 400, ["/flowData"]),
        ('{"flowData": "{"}', 400, ["/flowData"]),
        ('{"flowData": "[]"}', 400, ["/flowData"]),
        ('{"flowData": {"nodes": [], "edges": []}, "format": "yaml"}', 400, ["/format"]),
        ('{"flowData": {"nodes": [], "edges": []}, "format": 1}', 400, ["/format"]),
        ('{"flowId": "nowhere"}', 404, None),
        ('{"flowId": "../x"}', 404, None),
    ],
)
async def test_a_wrong_body_is_refused_by_name(
    client: TestClient, body: str, status: int, pointers: list[str] | None
) -> None:
    reply = await client.post(URL, data=body)
    assert reply.status == status
    assert reply.content_type == "application/problem+json"
    problem = await reply.json()
    assert [one["pointer"] for one in problem.get("errors", [])] == (pointers or [])


@pytest.mark.parametrize("flow_data", [{}, {"edges": []}, {"nodes": 7}])
async def test_something_that_is_no_canvas_is_400(client: TestClient, flow_data: dict[str, Any]) -> None:
    reply = await client.post(URL, json={"flowData": flow_data})
    assert reply.status == 400
    assert "nodes" in (await reply.json())["detail"]


async def test_every_fault_of_a_canvas_has_its_pointer(client: TestClient, echo_canvas: dict[str, Any]) -> None:
    echo_canvas["edges"][0]["target"] = "nobody"
    echo_canvas["nodes"].append(json.loads(json.dumps(echo_canvas["nodes"][0])) | {"id": "startAgentflow_1"})
    reply = await client.post(URL, json={"flowData": echo_canvas})
    assert reply.status == 422
    problem = await reply.json()
    pointers = [one["pointer"] for one in problem["errors"]]
    assert any(pointer.startswith("/edges/0") for pointer in pointers)
    assert any(pointer.startswith("/nodes/") for pointer in pointers)
    assert (await client.post("/api/v1/chatflows", json={"flowData": echo_canvas})).status == 422


async def test_too_large_is_413(make_services: Any, aiohttp_client: Any, echo_canvas: dict[str, Any]) -> None:
    from switchroom.gateway.app import build_gateway

    client = await aiohttp_client(build_gateway(make_services(max_canvas_bytes=300)))
    reply = await client.post(URL, json={"flowData": echo_canvas})
    assert (reply.status, (await reply.json())["code"]) == (413, "too_large")


async def test_unknown_stored_flow_is_404(client: TestClient) -> None:
    reply = await client.get("/api/v1/openai-realtime/nowhere/compact")
    assert (reply.status, (await reply.json())["code"]) == (404, "flow_not_found")


async def test_what_was_exported_is_imported_again(client: TestClient, echo_canvas: dict[str, Any]) -> None:
    stored = await (await client.post("/api/v1/chatflows", json={"id": "one", "flowData": echo_canvas})).json()
    graph = await (await client.get("/api/v1/openai-realtime/one/compact")).json()
    for given in (graph, json.dumps(graph)):
        again = await client.post("/api/v1/chatflows", json={"id": "two", "flowData": given})
        assert (await again.json())["hash"] == stored["hash"], await again.text()
    assert (await client.post("/api/v1/prediction/two", json={"question": "hello"})).status == 200
    for wrong, status, pointer in (
        ({**graph, "v": 9}, 400, None),
        ({**graph, "e": [["nobody", 0, "nothing"]]}, 422, "/e/0"),
        ({**graph, "n": [{"i": 7}]}, 400, None),
        ({**graph, "n": [*graph["n"], graph["n"][0]]}, 422, "/nodes/2/id"),
    ):
        refused = await client.post("/api/v1/chatflows", json={"flowData": wrong})
        problem = await refused.json()
        assert refused.status == status, problem
        assert pointer is None or pointer in [fault["pointer"] for fault in problem["errors"]], problem
