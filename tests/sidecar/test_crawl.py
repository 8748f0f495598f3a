"""Authenticated crawls end to end: a real site, a real browser, a real store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

Until = Callable[..., Awaitable[dict[str, Any]]]
COOKIES = "/sitemap/web-cookies"


async def unity_cookies(site: TestClient) -> list[dict[str, Any]]:
    """Log in at the member site; the cookies as a Unity WebView exports them."""
    reply = await site.post("/login?as=json", data={"user": "ana", "password": "switchroom"})
    site.session.cookie_jar.clear()
    cookies: list[dict[str, Any]] = await reply.json()
    return cookies


async def create(sidecar: TestClient, site: TestClient, **body: Any) -> str:
    reply = await sidecar.post("/crawl/jobs", json={"url": str(site.make_url("/")), **body})
    assert reply.status == 202, await reply.text()
    return str((await reply.json())["id"])


async def pages_of(sidecar: TestClient, job: str) -> dict[str, dict[str, Any]]:
    listed = await (await sidecar.get(f"/crawl/jobs/{job}/pages")).json()
    return {page["url"].partition("/")[2].partition("/")[2].partition("/")[2]: page for page in listed["pages"]}


async def events_of(sidecar: TestClient, job: str) -> list[dict[str, Any]]:
    text = await (await sidecar.get(f"/crawl/jobs/{job}/events")).text()
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


async def test_wall_then_cookies_then_members(
    sidecar: TestClient, site: TestClient, until: Until, data_dir: Path
) -> None:
    job = await create(sidecar, site)
    waiting = await until(sidecar, job, "waiting_login", "completed", "failed")
    domain = f"127.0.0.1:{site.port}"
    assert waiting["state"] == "waiting_login"
    assert waiting["login"]["domain"] == domain
    assert waiting["login"]["sign"] == "redirected_to_login"
    assert waiting["login"]["sessionLost"] is False
    assert waiting["progress"]["kept"] == 2
    shown = await (await sidecar.get(COOKIES)).json()
    assert shown["waitingJobs"] == [{"job": job, "domain": domain, "sessionLost": False}]
    folder = data_dir / "sites" / f"127.0.0.1_{site.port}"
    assert not list(folder.glob("pages/*login*"))

    posted = await sidecar.post(COOKIES, json=await unity_cookies(site))
    assert posted.status == 200
    done = await until(sidecar, job, "completed", "failed")
    assert done["state"] == "completed"
    pages = await pages_of(sidecar, job)
    assert set(pages) == {"", "prices", "members/", "members/outages", "members/refunds", "members/balance"}
    assert {page["outcome"] for page in pages.values()} == {"kept"}
    assert pages["members/balance"]["rendered"] is True
    assert pages["members/outages"]["rendered"] is False
    assert done["progress"]["linksLeft"] == {"logout_link": 1}

    balance = await (
        await sidecar.get(f"/crawl/jobs/{job}/content", params={"url": pages["members/balance"]["url"]})
    ).text()
    assert "| September | 61.40 EUR |" in balance
    assert balance.startswith(f'---\nurl: "http://{domain}/members/balance"\ntitle: "Your balance"\nfetched_at: "20')
    members = next(folder.glob("pages/members-" + "[0-9a-f]" * 10 + ".md")).read_text()
    assert f"[Planned outages](http://{domain}/members/outages)" in members
    lines = [json.loads(line) for line in (folder / "pages.jsonl").read_text().splitlines()]
    assert len(lines) == 6
    assert all((folder / line["file"]).is_file() for line in lines)
    assert (folder / "sitemap.xml").read_text().count("<loc>") == 6
    told = [(event["event"], event.get("state", event.get("sign"))) for event in await events_of(sidecar, job)]
    states = [state for event, state in told if event == "state"]
    assert states == ["queued", "running", "waiting_login", "queued", "running", "completed"]
    assert ("login_wall", "redirected_to_login") in told


async def test_a_session_lost_in_between_never_replaces_good_pages(
    sidecar: TestClient, site: TestClient, until: Until, data_dir: Path
) -> None:
    await sidecar.post(COOKIES, json=await unity_cookies(site))
    first = await create(sidecar, site, render="never")
    assert (await until(sidecar, first, "completed", "waiting_login"))["state"] == "completed"
    folder = data_dir / "sites" / f"127.0.0.1_{site.port}"
    before = {path.name: path.read_bytes() for path in folder.glob("pages/*")}

    again = await create(sidecar, site, render="never")
    unchanged = await until(sidecar, again, "completed", "waiting_login")
    assert unchanged["progress"]["unchanged"] == unchanged["progress"]["fetched"] > 4

    # The site forgets the session; the cookies are sent all the same.
    sessions = next(value for key, value in site.app.items() if "sessions" in str(key))
    sessions.clear()
    lost = await create(sidecar, site, render="never")
    waiting = await until(sidecar, lost, "completed", "waiting_login")
    assert waiting["state"] == "waiting_login"
    assert waiting["login"]["sessionLost"] is True
    assert "lost" in waiting["note"]
    assert {path.name: path.read_bytes() for path in folder.glob("pages/*")} == before

    await sidecar.post(COOKIES, json=await unity_cookies(site))
    assert (await until(sidecar, lost, "completed", "failed"))["state"] == "completed"
    assert {path.name for path in folder.glob("pages/*")} == set(before)
    events = await events_of(sidecar, lost)
    for event in events:  # the event log: pytest -s
        print(json.dumps(event))
    states = [event["state"] for event in events if event["event"] == "state"]
    assert states == ["queued", "running", "waiting_login", "queued", "running", "completed"]
    assert any(event["event"] == "login_wall" and event["session_lost"] for event in events)


async def test_cookies_that_do_not_help_leave_it_waiting(sidecar: TestClient, site: TestClient, until: Until) -> None:
    job = await create(sidecar, site, render="never")
    await until(sidecar, job, "waiting_login")
    bad = [{"name": "session", "value": "stale", "domain": "127.0.0.1"}]
    await sidecar.post(COOKIES, json=bad)
    await until(sidecar, job, "queued", "running")
    assert (await until(sidecar, job, "waiting_login", "completed"))["state"] == "waiting_login"


async def test_walls_can_be_skipped(sidecar: TestClient, site: TestClient, until: Until) -> None:
    job = await create(sidecar, site, on_login_wall="skip", render="never")
    done = await until(sidecar, job, "completed", "waiting_login")
    assert done["state"] == "completed"
    assert done["progress"]["failed"] == {"login_wall": 3}


async def test_pause_resume_cancel(sidecar: TestClient, site: TestClient, until: Until) -> None:
    job = await create(sidecar, site, render="never")
    await until(sidecar, job, "waiting_login")
    paused = await (await sidecar.post(f"/crawl/jobs/{job}/pause")).json()
    assert paused["state"] == "paused"
    await sidecar.post(COOKIES, json=await unity_cookies(site))
    await asyncio.sleep(0.2)
    assert (await (await sidecar.get(f"/crawl/jobs/{job}")).json())["state"] == "paused"
    assert (await sidecar.post(f"/crawl/jobs/{job}/resume")).status == 200
    assert (await until(sidecar, job, "completed", "waiting_login"))["state"] == "completed"
    late = await sidecar.post(f"/crawl/jobs/{job}/pause")
    assert late.status == 409
    assert (await late.json())["state"] == "completed"
    other = await create(sidecar, site, render="never")
    assert (await (await sidecar.post(f"/crawl/jobs/{other}/cancel")).json())["state"] == "cancelled"
    listed = await (await sidecar.get("/crawl/jobs")).json()
    assert [row["id"] for row in listed["jobs"]] == [other, job]


async def test_a_waiting_job_outlives_the_sidecar(
    start_sidecar: Callable[..., Awaitable[TestClient]], site: TestClient, until: Until
) -> None:
    first = await start_sidecar()
    job = await create(first, site, render="never")
    await until(first, job, "waiting_login")
    await first.close()
    second = await start_sidecar()
    assert (await (await second.get(f"/crawl/jobs/{job}")).json())["state"] == "waiting_login"
    await second.post(COOKIES, json=await unity_cookies(site))
    assert (await until(second, job, "completed", "failed"))["state"] == "completed"


async def test_private_addresses_are_the_servers_decision(
    start_sidecar: Callable[..., Awaitable[TestClient]], site: TestClient
) -> None:
    strict = await start_sidecar(allow_private=())
    for host in ("127.0.0.1", "localhost", "169.254.169.254", "[::1]", "0x7f.1"):
        reply = await strict.post(
            "/crawl/jobs", json={"url": f"http://{host}:{site.port}/", "allow_private": ["127.0.0.1"]}
        )
        assert reply.status == 422, host
        assert (await reply.json())["code"] == "address_refused"


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, [""]),
        ({"url": "https://a.example/", "domain": "a.example"}, [""]),
        ({"url": "ftp://a.example/"}, ["/url"]),
        ({"urls": ["https://a.example/", 7, "x"]}, ["/urls/1", "/urls/2"]),
        (
            {"url": "https://a.example/", "depth": -1, "max_pages": 0, "render": "maybe"},
            ["/depth", "/max_pages", "/render"],
        ),
        ({"url": "https://a.example/", "depth": True, "maxPages": "9"}, ["/depth", "/maxPages"]),
    ],
)
async def test_bad_jobs_name_every_place(sidecar: TestClient, body: dict[str, Any], pointers: list[str]) -> None:
    reply = await sidecar.post("/crawl/jobs", json=body)
    assert reply.status == 400
    assert [fault["pointer"] for fault in (await reply.json())["errors"]] == pointers


async def test_unknown_jobs_are_404(sidecar: TestClient) -> None:
    for name in ("nope", "00000000-0000-4000-8000-000000000000", "%2e%2e"):
        for path in ("", "/pages", "/events", "/content?url=http://x.example/"):
            assert (await sidecar.get(f"/crawl/jobs/{name}{path}")).status == 404
    assert (await sidecar.post("/crawl/jobs/nope/cancel")).status == 404


async def test_a_watcher_sees_pages_progress_and_the_end(sidecar: TestClient, until: Until, slow_site: str) -> None:
    reply = await sidecar.post("/crawl/jobs", json={"url": slow_site, "render": "never", "sitemaps": False})
    job = str((await reply.json())["id"])
    told = await events_of(sidecar, job)  # from the first event to the last, while it runs
    progress = [event for event in told if event["event"] == "progress"]
    assert progress
    assert progress[-1]["pagesPerSecond"] > 0
    assert 0 < progress[-1]["done"] <= progress[-1]["found"]
    assert {event["event"] for event in told} >= {"state", "page", "progress"}
    assert told[-1]["event"] == "state"
    assert told[-1]["state"] == "completed"
    shown = await (await sidecar.get(f"/crawl/jobs/{job}")).json()
    assert shown["progress"]["timeLeftS"] is None, "only while it runs"
