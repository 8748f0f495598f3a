"""A running sidecar on a real store, and the example member site."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from switchroom.sidecar.app import build_sidecar
from switchroom.sidecar.settings import SidecarSettings
from switchroom.store import Store

SECRET = "open sesame"
Client = TestClient[web.Request, web.Application]
EXAMPLES = Path(__file__).parents[2] / "examples"


def load_member_site() -> ModuleType:
    spec = importlib.util.spec_from_file_location("member_site", EXAMPLES / "member_site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
async def site() -> AsyncIterator[TestClient[web.Request, web.Application]]:
    """The member site, as a client without cookies of its own."""
    client = TestClient(TestServer(load_member_site().build(), host="127.0.0.1"))
    await client.start_server()
    yield client
    await client.close()


@pytest.fixture
async def slow_site() -> AsyncIterator[str]:
    """A chain of pages that takes about two seconds to read."""

    async def answer(request: web.Request) -> web.Response:
        number = int(request.match_info["n"])
        await asyncio.sleep(0.5)
        link = f'<a href="/{number + 1}">on</a>' if number < 3 else ""
        return web.Response(
            text=f"<title>{number}</title><p>The words of page {number}. {link}", content_type="text/html"
        )

    app = web.Application()
    app.router.add_get("/{n:\\d+}", answer)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    yield str(server.make_url("/0"))
    await server.close()


@pytest.fixture
async def start_sidecar(store: Store, data_dir: Path) -> AsyncIterator[Callable[..., Awaitable[Client]]]:
    """Starts sidecars on one store and data folder; each is closed at the end, or earlier by the test."""
    clients: list[Client] = []

    async def start(**changes: Any) -> Client:
        known = {"data_dir": data_dir, "ingest_secret": SECRET, "allow_private": ("127.0.0.1",)}
        app = build_sidecar(SidecarSettings(**{**known, **changes}), store)
        client = TestClient(TestServer(app, host="127.0.0.1"), headers={"X-Ingest-Secret": SECRET})
        await client.start_server()
        clients.append(client)
        return client

    yield start
    for client in clients:
        await client.close()


@pytest.fixture
async def sidecar(start_sidecar: Callable[..., Awaitable[Client]]) -> Client:
    return await start_sidecar()


@pytest.fixture
def until() -> Callable[..., Awaitable[dict[str, Any]]]:
    """Waits until a job is in one of the states."""

    async def wait(client: Client, job_id: str, *states: str, timeout_s: float = 120) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        try:
            async with asyncio.timeout(timeout_s):
                while seen.get("state") not in states:
                    seen = await (await client.get(f"/crawl/jobs/{job_id}")).json()
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pytest.fail(f"job did not get to {states}: {seen}")
        return seen

    return wait
