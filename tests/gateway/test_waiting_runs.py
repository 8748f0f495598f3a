"""Runs that wait, and uploads to models, as clients see them: over HTTP, and over two API processes of one store."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import FormData
from aiohttp.test_utils import TestClient

from switchroom.engine import Engine
from switchroom.gateway.app import build_gateway

from ..engine.model_server import ModelServer, Say  # noqa: TID252 - one scripted service for both rooms
from .conftest import MakeServices, edge, node

pytest.importorskip("openai")
from switchroom.engine.providers import Models, ProviderSettings

Client = Callable[..., Awaitable[TestClient]]
URL = "/api/v1/prediction/flow"
MODEL = {"agentModel": "chatOpenAI", "agentModelConfig": {"modelName": "m"}}


@contextlib.asynccontextmanager
async def process(
    make_services: MakeServices, aiohttp_client: Client, server: ModelServer
) -> AsyncIterator[TestClient]:
    """An API process with a model."""
    models = Models({"openai": ProviderSettings(base_url=server.url, api_key="k", retries=0)})
    parts = make_services()
    parts = dataclasses.replace(parts, engine=Engine(parts.flows, responder=models))
    try:
        yield await aiohttp_client(build_gateway(parts))
    finally:
        await models.close()


async def save(client: TestClient, *nodes: dict[str, Any]) -> None:
    chain = [edge(one["id"], other["id"]) for one, other in pairwise(nodes)]
    body = {"id": "flow", "name": "flow", "flowData": json.dumps({"nodes": nodes, "edges": chain})}
    reply = await client.post("/api/v1/chatflows", json=body)
    assert reply.status == 200, await reply.text()


async def records(client: TestClient) -> list[tuple[str, list[tuple[str, str]]]]:
    rows = (await (await client.get("/api/v1/executions?agentflowId=flow")).json())["data"]
    return [
        (row["state"], [(one["nodeId"], one["status"]) for one in json.loads(row["executionData"])]) for row in rows
    ]


async def test_a_tool_waits_for_consent_over_two_processes(make_services: MakeServices, aiohttp_client: Client) -> None:
    tools = [{"agentSelectedTool": "calculator", "agentSelectedToolRequiresHumanInput": True}]

    def script(body: dict[str, Any]) -> Say:
        last = body["messages"][-1]
        return (
            Say("It is " + last["content"]) if last["role"] == "tool" else Say(calls=[("calculator", {"input": "6*7"})])
        )

    async with ModelServer(script) as server:
        async with process(make_services, aiohttp_client, server) as client:
            await save(client, node("s", "startAgentflow"), node("a", "agentAgentflow", agentTools=tools, **MODEL))
            body = await (await client.post(URL, json={"question": "six times seven", "chatId": "c"})).json()
            assert (body["action"]["data"]["nodeId"], body["state"], body["resumesAt"]) == ("a", "STOPPED", None)
            assert body["text"] == 'a wants to call `calculator` with `{"input":"6*7"}`. Proceed?'
            assert await records(client) == [("STOPPED", [("s", "FINISHED"), ("a", "STOPPED")])]
        async with process(make_services, aiohttp_client, server) as client:
            answer = {"chatId": "c", "humanInput": {"type": "proceed", "startNodeId": "a"}}
            body = await (await client.post(URL, json=answer)).json()
            assert (body["text"], body["action"], body["state"], len(server.requests)) == (
                "It is 42",
                None,
                "FINISHED",
                2,
            )
            assert await records(client) == [("FINISHED", [("s", "FINISHED"), ("a", "FINISHED")])]
            # New words instead of an answer end the run that waits.
            for question in ("again", "something else"):
                await client.post(URL, json={"question": question, "chatId": "c"})
            assert [state for state, _ in await records(client)] == ["STOPPED", "TERMINATED", "FINISHED"]


async def test_uploads_reach_the_model(make_services: MakeServices, aiohttp_client: Client) -> None:
    picture = base64.b64encode(b"\x89PNG").decode()
    async with (
        ModelServer(lambda body: Say("A dot.")) as server,
        process(make_services, aiohttp_client, server) as client,
    ):
        await save(client, node("s", "startAgentflow"), node("a", "agentAgentflow", **MODEL))
        upload = {"name": "a.png", "type": "file", "mime": "image/png", "data": f"data:image/png;base64,{picture}"}
        reply = await client.post(URL, json={"question": "What is it?", "uploads": [upload]})
        assert (reply.status, (await reply.json())["text"]) == (200, "A dot.")
        form = FormData()
        form.add_field("question", "What is it?")
        form.add_field("files", b"\x89PNG", filename="a.png", content_type="image/png")
        assert (await client.post(URL, data=form)).status == 200
        for request in server.requests:
            words, seen = request["messages"][-1]["content"]
            assert words == {"type": "text", "text": "What is it?"}
            assert seen["image_url"]["url"] == f"data:image/png;base64,{picture}"
        sound = {"name": "a.wav", "type": "audio", "mime": "audio/wav", "data": "data:audio/wav;base64,UklGRg=="}
        reply = await client.post(URL, json={"question": "Listen", "uploads": [sound]})
        problem = await reply.json()
        assert (reply.status, problem["code"]) == (415, "upload_not_supported")
        assert "`accepts` of the provider `openai`" in problem["detail"]


async def test_a_run_that_waits_for_a_time_says_until_when(make_services: MakeServices, aiohttp_client: Client) -> None:
    client = await aiohttp_client(build_gateway(make_services(turn_timeout_s=30.0)))
    start = node("s", "startAgentflow", startInputType="chatInput")
    await save(client, start, node("w", "waitAgentflow", waitAmount=2, waitUnit="days"))
    body = await (await client.post(URL, json={"question": "later"})).json()
    left = datetime.fromisoformat(body["resumesAt"]) - datetime.now(UTC)
    assert (body["state"], body["text"], body["action"]) == ("STOPPED", "", None)
    assert timedelta(days=1, hours=23) < left <= timedelta(days=2)
