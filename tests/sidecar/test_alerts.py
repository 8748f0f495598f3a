"""A login that is needed is told to the job's webhook: signed, once, again after a refusal, and never inwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from standardwebhooks.webhooks import Webhook

from switchroom.webhooks import retries

Until = Callable[..., Awaitable[dict[str, Any]]]
COOKIES = "/sitemap/web-cookies"


class Receiver:
    """Takes messages; the first `refuse` are answered 503."""

    def __init__(self) -> None:
        self.got: list[tuple[bytes, dict[str, str]]] = []
        self.refuse = 0
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        self.got.append((await request.read(), dict(request.headers)))
        return web.Response(status=503 if len(self.got) <= self.refuse else 204)

    async def told(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.got) < count:
                await asyncio.sleep(0.02)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hook", receiver.take)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    receiver.url = str(server.make_url("/hook"))
    yield receiver
    await server.close()


async def create(sidecar: TestClient, site: TestClient, **body: Any) -> dict[str, Any]:
    reply = await sidecar.post("/crawl/jobs", json={"url": str(site.make_url("/")), "render": "never", **body})
    assert reply.status == 202, await reply.text()
    return dict(await reply.json())


async def test_the_webhook_hears_of_each_wait_once(
    sidecar: TestClient, site: TestClient, until: Until, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "DELAYS_S", (0, 0.1, 0.1, 0.1))
    receiver.refuse = 1
    job = await create(sidecar, site, webhook=receiver.url)
    await until(sidecar, job["id"], "waiting_login")
    await receiver.told(2)
    (_, first), (body, second) = receiver.got
    assert first["webhook-id"] == second["webhook-id"], "a retry is the same message"
    told = Webhook(job["webhookSecret"]).verify(body, second)
    assert told["type"] == "crawl.login_needed"
    domain = f"127.0.0.1:{site.port}"
    assert (told["data"]["job"], told["data"]["domain"]) == (job["id"], domain)
    assert told["data"]["sessionLost"] is False

    # Cookies that do not help: it waits again, and that is news.
    await sidecar.post(COOKIES, json=[{"name": "session", "value": "stale", "domain": "127.0.0.1"}])
    await receiver.told(3)
    assert receiver.got[2][1]["webhook-id"] != second["webhook-id"]
    await sidecar.post(f"/crawl/jobs/{job['id']}/cancel")
    assert len(receiver.got) == 3
    events = await (await sidecar.get(f"/crawl/jobs/{job['id']}/events")).text()
    assert '"event":"webhook","type":"crawl.login_needed","delivered":false,"tries":1,"status":503' in events
    assert "whsec_" not in events
    shown = await (await sidecar.get(f"/crawl/jobs/{job['id']}")).text()
    assert "whsec_" not in shown


async def test_a_secret_may_be_given_and_a_private_receiver_is_refused(
    start_sidecar: Callable[..., Awaitable[TestClient]], site: TestClient, until: Until, receiver: Receiver
) -> None:
    sidecar = await start_sidecar()
    secret = "whsec_" + "QUJD" * 8
    job = await create(sidecar, site, webhook={"url": receiver.url, "secret": secret})
    assert "webhookSecret" not in job
    await receiver.told(1)
    assert Webhook(secret).verify(*receiver.got[0])["data"]["job"] == job["id"]

    inward = await create(sidecar, site, webhook=receiver.url.replace("127.0.0.1", "127.0.0.2"))
    await until(sidecar, inward["id"], "waiting_login")
    async with asyncio.timeout(30):
        while True:
            reply = await sidecar.get(f"/crawl/jobs/{inward['id']}/events", timeout=None)
            chunk = (await reply.content.readuntil(b'"event":"webhook"')) + await reply.content.readline()
            reply.close()
            break
    assert b'"cause":"address_refused"' in chunk
    assert len(receiver.got) == 1


@pytest.mark.parametrize(
    ("webhook", "pointer"),
    [
        ("ftp://x.example/", "/webhook"),
        (7, "/webhook"),
        ({"url": "nope"}, "/webhook/url"),
        ({"url": "https://x.example/", "secret": "short"}, "/webhook/secret"),
    ],
)
async def test_a_wrong_webhook_is_named(sidecar: TestClient, webhook: Any, pointer: str) -> None:
    reply = await sidecar.post("/crawl/jobs", json={"url": "https://a.example/", "webhook": webhook})
    assert reply.status == 400
    assert [fault["pointer"] for fault in (await reply.json())["errors"]] == [pointer]
