"""Whoever closes a turn does not wait for it: whatever its node is at, the turn is over within 100 ms."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from switchroom.compact import compact_canvas
from switchroom.engine import Engine, FlowStore, Session
from switchroom.engine.custom_tool import CustomTool
from switchroom.engine.events import NodeFinished, TurnInput
from switchroom.engine.providers import Models, ProviderSettings
from switchroom.engine.retriever import Passage
from switchroom.net import GuardedClient

from .conftest import draw

pytest.importorskip("openai")
MODEL = {"modelName": "m"}
ENDLESS = CustomTool(name="endless", schema={"type": "object", "properties": {}}, code="while(true){}")
WAIT = ("waitAgentflow", {"waitAmount": 30})


class Silent:
    """A server that takes every request and never answers; and a store that never finds. `reached` says that the turn
    waits for one of them."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.url = ""

    async def any(self, request: web.Request) -> web.Response:
        self.reached.set()
        await asyncio.sleep(30)
        return web.Response()

    async def search(self, store: str, query: str, *, limit: int) -> list[Passage]:
        self.reached.set()
        await asyncio.sleep(30)
        return []

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", self.any)
        server = TestServer(app)
        await server.start_server()
        self.url = str(server.make_url("/"))
        try:
            yield
        finally:
            await server.close()


def nodes_of(kind: str, url: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The node in question as `n`, and what stands inside of it."""
    found: dict[str, tuple[str, dict[str, Any]]] = {
        "llm": ("llmAgentflow", {"llmModel": "chatOpenAI", "llmModelConfig": MODEL}),
        "agent": ("agentAgentflow", {"agentModel": "chatOpenAI", "agentModelConfig": MODEL}),
        "condition-agent": (
            "conditionAgentAgentflow",
            {
                "conditionAgentModel": "chatOpenAI",
                "conditionAgentModelConfig": MODEL,
                "conditionAgentScenarios": [{"scenario": "One"}, {"scenario": "Two"}],
            },
        ),
        "human-input": (
            "humanInputAgentflow",
            {"humanInputDescriptionType": "dynamic", "humanInputModel": "chatOpenAI", "humanInputModelConfig": MODEL},
        ),
        "http": ("httpAgentflow", {"method": "POST", "url": url, "body": "{}"}),
        "tool": (
            "toolAgentflow",
            {
                "toolAgentflowSelectedTool": "requestsGet",
                "toolAgentflowSelectedToolConfig": {"requestsGetUrl": url},
                "toolInputArgs": [],
            },
        ),
        "custom-tool": ("toolAgentflow", {"toolAgentflowSelectedTool": "endless"}),
        "retriever": ("retrieverAgentflow", {"retrieverKnowledgeDocumentStores": [{"documentStore": "1:papers"}]}),
        "custom-function": ("customFunctionAgentflow", {"customFunctionJavascriptFunction": "while(true){}"}),
        "condition": ("conditionAgentflow", {"conditionExpression": "(() => { while(true){} })()"}),
        "wait": WAIT,
        "execute-flow": ("executeFlowAgentflow", {"executeFlowSelectedFlow": "inner"}),
        "iteration": ("iterationAgentflow", {"iterationInput": "[1, 2]"}),
    }
    nodes = {"s": ("startAgentflow", {}), "n": found[kind]}
    return (nodes | {"w": WAIT}, {"w": "n"}) if kind == "iteration" else (nodes, {})


KINDS = (
    "llm", "agent", "condition-agent", "human-input", "http", "tool", "custom-tool", "retriever", "custom-function",
    "condition", "wait", "execute-flow", "iteration",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
async def test_closing_a_turn_ends_it_at_once(flows: FlowStore, kind: str) -> None:
    silent = Silent()
    async with silent.served(), GuardedClient(["127.0.0.1"]) as client:
        models = Models({"openai": ProviderSettings(base_url=silent.url, api_key="k", retries=0)})
        engine = Engine(flows, responder=models, client=client, retriever=silent)
        await flows.save(draw({"s": ("startAgentflow", {}), "w": WAIT}, [("s", "w")]), flow_id="inner")
        nodes, inside = nodes_of(kind, silent.url)
        graph = compact_canvas(draw(nodes, [("s", "n")], **inside))
        session = Session(session_id="s")
        events = engine.run(graph, session, TurnInput(text="go"), tools=[ENDLESS])
        seen: list[Any] = []
        asks = kind in ("llm", "agent", "condition-agent", "human-input", "http", "tool", "retriever")
        while len(seen) < 3:  # Start has begun and ended, the node has begun
            seen.append(await anext(events))
        if asks:
            await asyncio.wait_for(silent.reached.wait(), 30)
        else:
            await asyncio.sleep(0.03)
        async with Lag() as lag:
            started = time.perf_counter()
            await events.aclose()
            took = time.perf_counter() - started
        await models.close()
    # A pause of the shared machine itself is not the turn's.
    assert took < 0.5 + lag.worst
    assert not [event for event in seen if isinstance(event, NodeFinished) and event.node_id == "n"]
    assert [message.role for message in session.messages] == ["caller"]


class Lag:
    """How late the loop woke a task at worst, while the body ran."""

    async def __aenter__(self) -> Lag:
        self.worst = 0.0
        self._task = asyncio.create_task(self._watch())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            self.worst = max(self.worst, time.perf_counter() - before - 0.005)
