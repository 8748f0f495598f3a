"""From a page to an answer: a site is crawled, changes, is looked at again, and a flow answers with the page's URL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from switchroom.access import Access
from switchroom.engine import Engine, FlowStore
from switchroom.engine.retriever import KnowledgeRetriever
from switchroom.gateway.app import build_gateway
from switchroom.gateway.services import Services
from switchroom.knowledge import Knowledge
from switchroom.net import Guard, GuardedClient
from switchroom.queue import Feed, Queue
from switchroom.realtime.signalling import SignalClient
from switchroom.records import Executions
from switchroom.records.audio_files import AudioFiles
from switchroom.store import Blobs, Store
from switchroom.webhooks import Webhooks

from .changing_site import ChangingSite

Until = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
async def api(store: Store, tmp_path: Path) -> AsyncIterator[TestClient]:
    """An API node with a data folder of its own, as on another machine than the crawler."""
    flows, knowledge = FlowStore(store), Knowledge(store, tmp_path / "api" / "knowledge")
    blobs = await asyncio.to_thread(Blobs, tmp_path / "api" / "recordings")
    out = GuardedClient()
    parts = Services(
        store=store,
        queue=Queue(store),
        feed=Feed(store),
        flows=flows,
        engine=Engine(flows, retriever=KnowledgeRetriever(knowledge)),
        executions=Executions(store, blobs),
        access=Access(store, (), allow_open=True),
        audio=AudioFiles(blobs),
        signals=SignalClient(store),
        knowledge=knowledge,
        guard=Guard(),
        webhooks=Webhooks(store, out),
    )
    client = TestClient(TestServer(build_gateway(parts)))
    await client.start_server()
    yield client
    await client.close()
    await knowledge.close()
    await out.close()


def canvas(host: str) -> dict[str, Any]:
    """Start → Retriever → LLM, and no model: the embedded responder answers from what was found."""
    stores = {"retrieverKnowledgeDocumentStores": [{"documentStore": f"{host}:Shop"}]}
    nodes = {
        "start_0": ("startAgentflow", {"startInputType": "chatInput"}),
        "retriever_0": ("retrieverAgentflow", {**stores, "retrieverQuery": "{{ question }}"}),
        "llm_0": ("llmAgentflow", {"llmMessages": [{"role": "system", "content": "Answer from: {{ retriever_0 }}"}]}),
    }
    return {
        "nodes": [
            {"id": key, "data": {"id": key, "name": name, "label": key, "inputs": inputs}}
            for key, (name, inputs) in nodes.items()
        ],
        "edges": [
            {"id": "a", "source": "start_0", "sourceHandle": "start_0-output-start", "target": "retriever_0"},
            {"id": "b", "source": "retriever_0", "sourceHandle": "retriever_0-output-retriever", "target": "llm_0"},
        ],
    }


async def test_a_page_that_changed_is_in_the_next_answer_with_its_url(
    sidecar: TestClient, api: TestClient, until: Until
) -> None:
    async with ChangingSite() as site:
        site.put("/", "Welcome.", listed=False)
        site.put("/warranty", "The warranty lasts two years from delivery.")
        saved = await api.post("/api/v1/chatflows", json={"id": "desk", "name": "Desk", "flowData": canvas(site.host)})
        assert saved.status in (200, 201), await saved.text()
        flow = (await saved.json())["id"]

        async def ask() -> dict[str, Any]:
            body = {"question": "How long does the warranty last?"}
            reply = await api.post(f"/api/v1/prediction/{flow}", json=body)
            assert reply.status == 200, await reply.text()
            told: dict[str, Any] = await reply.json()
            print(told["text"], [row["metadata"]["source"] for row in told["sourceDocuments"]])
            return told

        job = await (await sidecar.post("/crawl/jobs", json={"url": site.url("/"), "render": "never"})).json()
        await until(sidecar, job["id"], "completed")
        told = await ask()
        assert told["text"] == f"The warranty lasts two years from delivery.\n\nSource: {site.url('/warranty')}"
        assert [row["metadata"]["source"] for row in told["sourceDocuments"]] == [site.url("/warranty")]

        site.put("/warranty", "The warranty lasts five years from delivery.", "2026-11-02T00:00:00Z")
        run = await (await sidecar.post("/crawl/fresh/runs")).json()
        await until(sidecar, run["sites"][site.host]["job"], "completed")
        assert (await ask())["text"].startswith("The warranty lasts five years from delivery.")
