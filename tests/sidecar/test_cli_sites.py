"""Sites and Always Fresh on the command line, against a running sidecar."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import typer
from aiohttp.test_utils import TestClient

from switchroom.cli_sites import fresh_app, sites_app

from .changing_site import ChangingSite

Until = Callable[..., Awaitable[dict[str, Any]]]


async def test_a_site_is_listed_marked_looked_at_and_forgotten(
    sidecar: TestClient, until: Until, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--sidecar", str(sidecar.make_url("/")), "--secret", "open sesame"]

    async def command(app: typer.Typer, *words: str, code: int = 0) -> str:
        assert (await asyncio.to_thread(lambda: app([*words, *where], standalone_mode=False)) or 0) == code
        return capsys.readouterr().out

    async with ChangingSite() as site:
        site.put("/", "Welcome to the shop.")
        site.put("/hours", "The shop is open from nine to five.")
        site.put("/old/1", "An old page.")
        job = await (await sidecar.post("/crawl/jobs", json={"url": site.url("/"), "render": "never"})).json()
        await until(sidecar, job["id"], "completed")
        assert site.host in await command(sites_app, "list")
        assert "3 of 3" in await command(sites_app, "pages", site.host)
        marked = await command(sites_app, "mark", "ignore", site.url("/old/*"))
        assert marked.split() == ["ignore", "1", "known", "pages", site.url("/old/*")]
        assert "1 of 1" in await command(sites_app, "pages", site.host, "--mark", "ignore")
        site.put("/hours", "The shop is open from ten to six.", "2026-11-02T00:00:00Z")
        report = json.loads(await command(fresh_app, "run", "--json"))
        assert (report["state"], report["changed"]) == ("done", 1)
        told = await command(fresh_app, "changes", report["id"], "--diff")
        assert f"changed  {site.url('/hours')}  +1 -1" in told
        assert "+The shop is open from ten to six." in told
        assert report["id"] in await command(fresh_app, "runs")
        assert site.host in await command(fresh_app, "show", report["id"])
        assert "SWITCHROOM_CRAWL__FRESH_AT" in await command(fresh_app, "schedule")
        assert "left out" in await command(sites_app, "daily", site.host, "--off")
        assert "removed" in await command(sites_app, "forget", site.host, "--yes")
        await command(sites_app, "pages", site.host, code=1)
