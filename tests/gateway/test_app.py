"""The gateway as a whole: who is let in where, health, its description, errors of no dialect."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from pydantic import SecretStr

from switchroom.access import Scope
from switchroom.errors import NotFound
from switchroom.gateway.app import build_gateway
from switchroom.gateway.openapi import document
from switchroom.gateway.operation import operation_of
from switchroom.gateway.services import Services
from switchroom.realtime import registry
from switchroom.realtime.registry import MediaProcess

PUBLIC = {
    "/docs",
    "/asyncapi.json",
    "/api/v1/node-icon/x",
    "/healthz",
    "/softphone",
    "/readyz",
    "/openapi.json",
    "/api/v1/chatflows-streaming/x",
    "/api/v1/openai-realtime/compact/schema",
}


@pytest.fixture
async def guarded(make_services: Any, aiohttp_client: Any) -> TestClient:
    client: TestClient = await aiohttp_client(build_gateway(make_services(configured=(SecretStr("right-key"),))))
    return client


async def test_every_route_but_health_asks_for_a_key(guarded: TestClient) -> None:
    app = guarded.app
    assert app is not None
    tried = 0
    for route in app.router.routes():
        assert route.resource is not None
        path = re.sub(r"{[^}]+}", "x", route.resource.canonical)
        # Speech names its flow in the body: only then is it known who may.
        speech = {"chatflowId": "x", "chatId": "x", "chatMessageId": "x", "text": "x"}
        body = speech if "text-to-speech" in path else {}
        reply = await guarded.request(route.method, path, json=body)
        # Has a secret of its own (see test_notify); files that are not there.
        if path in ("/ws", "/docs/x", "/softphone/x"):
            continue
        if path in PUBLIC:
            assert reply.status == 200, path
            continue
        tried += 1
        assert reply.status == 401, f"{route.method} {path}"
        assert reply.headers["WWW-Authenticate"] == "Bearer"
        if route.method != "HEAD":
            assert (await reply.json())["code"] == "unauthorized"
        for headers in ({"Authorization": "Bearer wrong"}, {"X-API-Key": "wrong"}):
            assert (await guarded.request(route.method, path, json=body, headers=headers)).status == 401
    assert tried > 15


async def test_the_right_key_by_each_header(guarded: TestClient) -> None:
    for headers in ({"Authorization": "Bearer right-key"}, {"x-api-key": "right-key"}):
        assert (await guarded.get("/api/v1/executions", headers=headers)).status == 200


async def test_a_key_with_one_scope_gets_that_far(guarded: TestClient) -> None:
    app = guarded.app
    assert app is not None
    from switchroom.gateway.services import SERVICES

    key, _ = await app[SERVICES].access.create("reader", [Scope.RECORDS_READ])
    headers = {"X-API-Key": key}
    assert (await guarded.get("/api/v1/executions", headers=headers)).status == 200
    reply = await guarded.delete("/api/v1/executions", json={"executionIds": ["x"]}, headers=headers)
    assert (reply.status, (await reply.json())["scope"]) == (403, "records:write")


async def test_a_protected_flow_on_an_open_server(
    client: TestClient, parts: Services, echo_canvas: dict[str, Any]
) -> None:
    await parts.flows.save(echo_canvas, flow_id="locked", settings={"protected": True}, kind="realtime")
    assert (await client.get("/api/v1/chatflows/locked")).status == 200
    for method, path, body in (
        ("POST", "/api/v1/prediction/locked", {"question": "x"}),
        ("POST", "/api/v1/openai-realtime/locked/queue/enqueue", {"form": {"ID": "7"}}),
        ("GET", "/api/v1/openai-realtime/locked/compact", None),
    ):
        reply = await client.request(method, path, json=body)
        assert (reply.status, (await reply.json())["code"]) == (401, "unauthorized"), path


async def test_health(client: TestClient, parts: Services) -> None:
    assert (await (await client.get("/healthz")).json())["status"] == "ok"
    ready = await (await client.get("/readyz")).json()
    assert (ready["status"], ready["store"], ready["media"]) == ("ready", "ok", [])
    await registry.announce(parts.store, MediaProcess(id="m1", legs=2, max_legs=16, loop_lag_ms=0.4))
    (media,) = (await (await client.get("/readyz")).json())["media"]
    assert (media["id"], media["legs"]) == ("m1", 2)
    await parts.store.close()
    reply = await client.get("/readyz")
    assert reply.status == 503 and (await reply.json())["store"] != "ok"
    assert (await client.get("/healthz")).status == 200


async def test_no_such_path_and_no_such_method(client: TestClient) -> None:
    reply = await client.get("/api/v1/nothing")
    assert (reply.status, reply.content_type) == (404, "application/problem+json")
    reply = await client.patch("/api/v1/executions")
    assert reply.status == 405 and "GET" in reply.headers["Allow"]
    assert reply.headers["X-Correlation-Id"] == (await reply.json())["correlationId"]


def test_a_route_that_says_not_who_may_call_it_is_not_built(
    make_services: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from switchroom.gateway import executions

    async def forgotten(request: web.Request) -> web.Response:
        raise NotFound("x")

    monkeypatch.setattr(executions, "routes", lambda: [web.get("/forgotten", forgotten)])
    with pytest.raises(TypeError, match="/forgotten"):
        build_gateway(make_services())


async def test_openapi_describes_every_route(client: TestClient) -> None:
    described = await (await client.get("/openapi.json")).json()
    app = client.app
    assert app is not None
    assert described == msgspec.json.decode(msgspec.json.encode(document(app)))
    assert described["openapi"] == "3.1.0"
    count = 0
    for route in app.router.routes():
        if route.method == "HEAD" or route.resource is None or route.resource.canonical.endswith("/"):
            continue
        path = re.sub(r"{(\w+)_id}", r"{\1Id}", route.resource.canonical)
        found = described["paths"][path][route.method.lower()]
        declared = operation_of(route.handler)
        assert declared is not None and found["summary"] == declared.summary
        assert ("security" in found) == (declared.scope is not None)
        parameters = {one["name"] for one in found["parameters"] if one["in"] == "path"}
        assert parameters == set(re.findall(r"{(\w+)}", path))
        count += 1
    assert count == sum(len(one) for one in described["paths"].values()) > 15
    ids = [one["operationId"] for path in described["paths"].values() for one in path.values()]
    schemas = described["components"]["schemas"]
    references = set(re.findall(r"#/components/schemas/([\w.\[\]-]+)", str(described)))
    assert {"Problem", "ExecutionPage", "CompactGraph"} <= references <= set(schemas)
    assert schemas["Problem"]["required"] == [
        "type", "title", "status", "detail", "instance", "code", "correlationId",
    ]  # fmt: skip
    assert len(ids) == len(set(ids))
