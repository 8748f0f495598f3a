"""The API's documents: OpenAPI 3.1 by an outside validator, every reference of both, and the page in Chromium."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from switchroom.crawler.render import find_chromium
from switchroom.gateway import examples
from switchroom.gateway.asyncapi_media import REALTIME
from switchroom.realtime import served

ROOT = Path(__file__).parents[2]


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def follow(document: Any, reference: str) -> Any:
    for part in reference.removeprefix("#/").split("/"):
        document = document[part.replace("~1", "/").replace("~0", "~")]
    return document


async def test_the_openapi_document_is_valid(client: TestClient) -> None:
    document = await (await client.get("/openapi.json")).json()
    faults = await asyncio.to_thread(lambda: [str(one) for one in OpenAPIV31SpecValidator(document).iter_errors()])
    assert faults == []
    operations = [one["operationId"] for path in document["paths"].values() for one in path.values()]
    assert len(operations) == len(set(operations)) > 40


async def test_the_openapi_document_tells_headers_forms_and_every_media_type(client: TestClient) -> None:
    paths = (await (await client.get("/openapi.json")).json())["paths"]
    enqueue = paths["/api/v1/openai-realtime/{flowId}/queue/enqueue"]["post"]
    assert [one["name"] for one in enqueue["parameters"] if one["in"] == "header"] == ["Idempotency-Key"]
    predict = paths["/api/v1/prediction/{flowId}"]["post"]
    assert set(predict["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert set(predict["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    rows = paths["/api/v1/executions"]["get"]["responses"]["200"]["content"]
    assert set(rows) == {"application/json", "application/x-ndjson"}


async def test_every_example_of_the_document_works(client: TestClient) -> None:
    line = json.loads(await asyncio.to_thread((ROOT / "examples" / "support-line.json").read_text))
    assert (await client.post("/api/v1/chatflows", json={**line, "id": "support-line"})).status == 200
    document = await (await client.get("/openapi.json")).json()
    sent = 0
    for path, operations in document["paths"].items():
        for method, one in operations.items():
            if method == "head" or "requestBody" not in one:
                continue
            for parameter in one["parameters"]:
                if parameter["in"] == "path":
                    path = path.replace("{" + parameter["name"] + "}", parameter.get("example", ""))
            for name, example in one["requestBody"]["content"].get("application/json", {}).get("examples", {}).items():
                sent += 1
                answer = await client.request(method, path, json=example["value"])
                assert answer.status < 300, (path, name, await answer.text())
    assert sent == sum(len(bodies) for bodies in examples.BODIES.values())


async def test_the_asyncapi_document_describes_every_socket(client: TestClient) -> None:
    document = await (await client.get("/asyncapi.json")).json()
    assert document["asyncapi"] == "3.0.0"
    assert {one["address"] for one in document["channels"].values()} == {
        "/ws",
        "/api/v1/openai-realtime/{flowId}/kiosk",
        "/v1/realtime",
        "/api/v1/twilio/{flowId}/stream",
        "/api/v1/twilio/{flowId}/stream/{token}",
    }
    found = list(references(document))
    assert len(found) > 10
    for reference in found:
        assert follow(document, reference), reference
    for operation in document["operations"].values():
        channel = follow(document, operation["channel"]["$ref"])
        assert {one["$ref"].rpartition("/")[2] for one in operation["messages"]} <= set(channel["messages"])
    titles = {one["title"] for one in document["components"]["messages"].values()}
    assert titles >= {"offer", "state", "lost", "token", "turnEnd", "hello", "accept", "question", "assetsChanged"}
    assert document["components"]["schemas"]["AssetsChanged"]["properties"]["type"]["enum"] == ["assetsChanged"]
    for message in document["components"]["messages"].values():
        Draft202012Validator.check_schema(message["payload"])


def test_every_event_of_a_served_session_is_described() -> None:
    """The words of the code that serves them, against the document's."""
    code = "".join(path.read_text() for path in Path(served.__file__).parent.glob("*.py"))
    heard = set(
        re.findall(r'case "((?:session|input_audio_buffer|output_audio_buffer|conversation|response)\.[^"]+)"', code)
    )
    told = set(re.findall(r'_?tell\(\s*{"type": "([^"]+)"', code))
    assert heard == set(REALTIME.received)
    assert len(told) > 20 and told <= set(REALTIME.sent)


async def test_the_page_shows_the_document_and_tries_it(client: TestClient, tmp_path: Any) -> None:
    playwright_api = pytest.importorskip("playwright.async_api")
    program = await asyncio.to_thread(find_chromium, None)
    base = f"http://{client.host}:{client.port}"
    asked: list[str] = []
    complaints: list[str] = []
    async with playwright_api.async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=program, chromium_sandbox=os.geteuid() != 0, args=["--disable-gpu"]
        )
        page = await browser.new_page(viewport={"width": 1100, "height": 900})
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
        await page.goto(f"{base}/docs")
        await page.get_by_text("The process is up").click(timeout=60_000)
        await page.get_by_role("button", name="Try it out").click()
        await page.get_by_role("button", name="Execute").click()
        await page.locator(".live-responses-table").get_by_text('"status": "ok"').wait_for(timeout=60_000)
        await page.screenshot(path=tmp_path / "docs.png")
        await browser.close()
    assert all(url.startswith((base, "data:")) for url in asked), "nothing from elsewhere"
    assert f"{base}/healthz" in asked and complaints == []
