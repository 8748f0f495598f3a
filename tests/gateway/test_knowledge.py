"""Knowledge over HTTP: documents in, found, shown with a prediction, and out again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from switchroom.access import Scope
from switchroom.cli_knowledge import knowledge_app
from switchroom.engine import Engine
from switchroom.engine.retriever import KnowledgeRetriever
from switchroom.gateway.app import build_gateway
from switchroom.gateway.services import Services

from .conftest import MakeServices, edge, node

BASE = "/api/v1/knowledge"
DOCS = f"{BASE}/Product%20docs"
WARRANTY = "# Warranty\n\nThe warranty lasts two years from the day of the delivery."


async def put(client: TestClient, *documents: dict[str, Any]) -> dict[str, Any]:
    answer = await client.put(f"{DOCS}/documents", json=list(documents))
    assert answer.status == 200, await answer.text()
    body: dict[str, Any] = await answer.json()
    return body


async def test_documents_are_kept_found_and_removed(client: TestClient) -> None:
    page = {"url": "https://x.example/w", "title": "Warranty", "text": WARRANTY, "metadata": {"by": "Ana"}}
    note = {"key": "note-1", "text": "Parcels leave the house on Tuesdays."}
    assert await put(client, page, note) == {"received": 2, "changed": 2}
    assert await put(client, page) == {"received": 1, "changed": 0}
    (listed,) = await (await client.get(BASE)).json()
    assert (listed["name"], listed["documents"]) == ("Product docs", 2)
    shown = await (await client.get(DOCS, params={"limit": 1})).json()
    assert (shown["total"], [row["key"] for row in shown["data"]]) == (2, ["note-1"])
    one = await (await client.get(f"{DOCS}/document", params={"key": "https://x.example/w"})).json()
    assert (one["text"], one["metadata"]) == (WARRANTY, {"by": "Ana"})
    found = await (await client.get(f"{DOCS}/search", params={"q": "How long is the warranty?"})).json()
    (hit,) = found["hits"]
    assert hit["snippet"] == "The warranty lasts two years from the day of the delivery."
    assert (hit["url"], hit["metadata"]) == ("https://x.example/w", {"by": "Ana"})
    assert (await client.delete(f"{DOCS}/documents", params={"key": "note-1"})).status == 200
    assert (await client.delete(f"{DOCS}/documents", params={"key": "note-1"})).status == 404
    assert await (await client.delete(DOCS)).json() == {"removed": 1}
    assert (await client.get(DOCS)).status == 404


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ([], ""),
        ([{"text": "no key"}], "/0/key"),
        ([{"key": "a"}], "/0/text"),
        ([{"key": "a", "text": 7}], "/0/text"),
        ([{"key": "a" * 3000, "text": "x"}], "/0/key"),
    ],
)
async def test_a_wrong_document_is_named(client: TestClient, body: Any, pointer: str) -> None:
    answer = await client.put(f"{DOCS}/documents", json=body)
    problem = await answer.json()
    assert (answer.status, problem["errors"][0]["pointer"]) == (400, pointer)


async def test_a_key_needs_the_scope(make_services: MakeServices, aiohttp_client: Callable[..., Any]) -> None:
    parts = make_services()
    client = await aiohttp_client(build_gateway(parts))
    reader, _ = await parts.access.create("reader", (Scope.KNOWLEDGE_READ,))
    key = {"Authorization": f"Bearer {reader}"}
    assert (await client.get(BASE, headers=key)).status == 200
    assert (await client.put(f"{DOCS}/documents", json=[{"key": "a", "text": "b"}], headers=key)).status == 403


async def test_a_prediction_says_its_sources(make_services: MakeServices, aiohttp_client: Callable[..., Any]) -> None:
    parts: Services = make_services()
    object.__setattr__(parts, "engine", Engine(parts.flows, retriever=KnowledgeRetriever(parts.knowledge)))
    client = await aiohttp_client(build_gateway(parts))
    await put(client, {"url": "https://x.example/w", "title": "Warranty", "text": WARRANTY})
    stores = [{"documentStore": "17:Product docs", "returnSourceDocuments": True}]
    canvas = {
        "nodes": [node("s_0", "startAgentflow"), node("a_0", "agentAgentflow", agentKnowledgeDocumentStores=stores)],
        "edges": [edge("s_0", "a_0")],
    }
    await parts.flows.save(canvas, flow_id="desk")
    answer = await client.post("/api/v1/prediction/desk", json={"question": "How long does the warranty last?"})
    told = await answer.json()
    assert told["text"].startswith("The warranty lasts two years")
    assert told["sourceDocuments"][0]["metadata"]["source"] == "https://x.example/w"
    streamed = await client.post(
        "/api/v1/prediction/desk", json={"question": "How long does the warranty last?", "streaming": True}
    )
    assert '"event":"sourceDocuments"' in await streamed.text()


async def test_the_command_line_does_all_of_it(
    client: TestClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs" / "more").mkdir(parents=True)
    (tmp_path / "docs" / "warranty.md").write_text(WARRANTY)
    (tmp_path / "docs" / "more" / "parcels.txt").write_text("Parcels leave the house on Tuesdays.")
    server = str(client.make_url("/"))

    async def command(*words: str, code: int = 0) -> str:
        def run() -> int:
            return knowledge_app([*words, "--server", server], standalone_mode=False) or 0

        assert await asyncio.to_thread(run) == code
        return capsys.readouterr().out

    assert await command("add", "handbook", str(tmp_path / "docs")) == "2 documents, 2 of them new or changed\n"
    assert "handbook" in await command("list")
    assert "more/parcels.txt" in await command("show", "handbook")
    found = await command("search", "handbook", "when do parcels leave")
    assert "Parcels leave the house on Tuesdays." in found
    assert await command("get", "handbook", "warranty.md") == WARRANTY + "\n"
    assert await command("remove", "handbook", "warranty.md") == "removed warranty.md\n"
    assert await command("drop", "handbook", "--yes") == "removed handbook with 1 documents\n"
    await command("show", "handbook", code=1)
