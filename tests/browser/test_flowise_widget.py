"""npm `flowise-embed` as it is published, on a customer's page of another origin, in a real Chromium."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from playwright.async_api import Browser, Page, expect

HERE = Path(__file__).parent
HEADERS = {"Authorization": "Bearer a-key-of-sixteen-characters"}
CHATBOT = {
    "chatFeedback": {"status": True},
    "leads": {"status": True, "title": "Who are you?", "name": True, "email": True},
}


@pytest.fixture
async def customer(npm_packages: Path) -> AsyncIterator[str]:
    """The origin of a customer's site: one page, and the widget's script out of its npm package."""
    site = web.Application()

    async def page(_: web.Request) -> web.FileResponse:
        return web.FileResponse(HERE / "widget.html")

    site.router.add_get("/", page)
    site.router.add_static("/flowise-embed", npm_packages / "flowise-embed" / "dist")
    runner = web.AppRunner(site)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def call(method: str, url: str, body: Any = None) -> Any:
    async with aiohttp.ClientSession(headers=HEADERS) as session, session.request(method, url, json=body) as reply:
        assert reply.status == 200, await reply.text()
        return await reply.json()


async def save_flow(base: str, **chat: Any) -> None:
    canvas = json.loads((HERE.parents[1] / "examples" / "support-line.json").read_bytes())
    settings = {"chat": {"chatbot": CHATBOT, **chat}}
    await call(
        "POST",
        f"{base}/api/v1/chatflows",
        {"id": "support", "flowData": canvas.get("flowData", canvas), "settings": settings},
    )


async def opened(chromium: Browser, customer: str, base: str) -> tuple[Page, list[tuple[int, str, str]], list[str]]:
    """The page with the widget open, with what it asked us and what the browser complained about, as they grow."""
    page = await chromium.new_page(viewport={"width": 900, "height": 800})
    asked: list[tuple[int, str, str]] = []
    complaints: list[str] = []
    page.on("response", lambda r: asked.append((r.status, r.request.method, r.url.removeprefix(base))))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    await page.goto(f"{customer}/?flow=support&api={base}")
    await page.locator("flowise-chatbot button[part=button]").click()
    return page, asked, complaints


async def test_the_published_widget_chats(
    npm_packages: Path, served: str, customer: str, chromium: Browser, tmp_path: Path
) -> None:
    await save_flow(served, public=True, allowedOrigins=[customer])
    page, asked, complaints = await opened(chromium, customer, served)
    widget = page.locator("flowise-chatbot")

    await widget.locator("input[name=name]").fill("Ana")
    await widget.locator("input[name=email]").fill("ana@example.com")
    await widget.locator("button[type=submit]").first.click()
    await expect(widget.get_by_text("Thank you for submitting")).to_be_visible()

    words = widget.locator("textarea").last
    talk = [
        ("I have a question about my invoice.", "tell me your order number"),
        ("My order number is 4172.", "4 1 7 2"),
    ]
    for turn, (said, answered) in enumerate(talk, 1):
        await words.fill(said)
        async with page.expect_response(lambda r: "/prediction/" in r.url) as streamed:
            await words.press("Enter")
        reply = await streamed.value
        assert (await reply.header_value("content-type") or "").startswith("text/event-stream"), await reply.text()
        await expect(widget.get_by_test_id("host-bubble").last).to_contain_text(answered)
        await expect(widget.get_by_title("Thumbs Up")).to_have_count(turn)  # comes with the turn's end

    async with page.expect_response(lambda r: "/feedback/" in r.url):
        await widget.get_by_title("Thumbs Up").last.click()
    await widget.get_by_placeholder("What do you think of the response?").fill("Quick and right")
    async with page.expect_response(lambda r: r.request.method == "PUT"):
        await widget.get_by_text("Submit Feedback").click()
    await expect(widget.get_by_text("Submit Feedback")).to_be_hidden()
    picture = tmp_path / "widget.png"
    await page.screenshot(path=picture)
    assert picture.stat().st_size > 5_000

    ours = [one for one in asked if one[2].startswith("/api/")]
    assert {path.partition(".")[0] for _, _, path in ours} == {
        "/api/v1/chatflows-streaming/support",
        "/api/v1/public-chatbotConfig/support",
        "/api/v1/leads/",
        "/api/v1/prediction/support",
        "/api/v1/feedback/support",
    }
    assert {status for status, _, _ in ours} == {200} and complaints == []
    (lead,) = await call("GET", f"{served}/api/v1/leads/support")
    assert (lead["name"], lead["email"]) == ("Ana", "ana@example.com")
    (rating,) = await call("GET", f"{served}/api/v1/feedback/support")
    rows = (await call("GET", f"{served}/api/v1/executions?sessionId={rating['chatId']}"))["data"]
    assert (rating["rating"], rating["content"]) == ("THUMBS_UP", "Quick and right")
    assert [row["state"] for row in rows] == ["FINISHED", "FINISHED"]


async def test_a_page_that_the_owner_did_not_allow_gets_nothing(
    npm_packages: Path, served: str, customer: str, chromium: Browser
) -> None:
    await save_flow(served, public=True, allowedOrigins=["https://shop.example"])
    page, asked, complaints = await opened(chromium, customer, served)
    words = page.locator("flowise-chatbot textarea").last
    await words.fill("Hello")
    async with page.expect_event("console", lambda line: "CORS" in line.text):
        await words.press("Enter")
    assert any("origin" in line.lower() for line in complaints)
    assert not [one for one in asked if one[0] == 200 and "prediction" in one[2] and one[1] == "POST"]
    assert (await call("GET", f"{served}/api/v1/executions"))["total"] == 0
