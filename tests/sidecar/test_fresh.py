"""Always Fresh and the marks of pages, end to end: a site that changes, a sidecar, and what flows find afterwards."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import time as Time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from aiohttp.test_utils import TestClient

from switchroom.crawler.tools import Tools
from switchroom.errors import BadInput, NotFound
from switchroom.knowledge import Knowledge
from switchroom.sidecar.context import TOOLS
from switchroom.sidecar.freshness import Freshness, time_of_day
from switchroom.store import Store

from .changing_site import ChangingSite

Until = Callable[..., Awaitable[dict[str, Any]]]
Start = Callable[..., Awaitable[TestClient]]
LATER = "2026-11-01T08:00:00Z"


@pytest.fixture
async def shop() -> AsyncIterator[ChangingSite]:
    async with ChangingSite() as site:
        site.put("/", "Welcome to the shop.", listed=False)
        site.links["/"] = ["/hours", "/returns", "/team", "/old"]
        site.put("/hours", "The shop is open from nine to five.")
        site.put("/returns", "Goods may be returned within thirty days.")
        site.put("/team", "Ana and Bojan work here.", listed=False)
        site.put("/old", "A page that will be taken away.")
        yield site


@pytest.fixture
async def knowledge(store: Store, tmp_path: Path) -> AsyncIterator[Knowledge]:
    held = Knowledge(store, tmp_path / "knowledge")
    yield held
    await held.close()


class Desk:
    """A sidecar, its site, and what can be found afterwards."""

    def __init__(self, sidecar: TestClient, site: ChangingSite, knowledge: Knowledge, until: Until) -> None:
        self.sidecar, self.site, self.knowledge, self._until = sidecar, site, knowledge, until

    async def crawl(self, **body: Any) -> dict[str, Any]:
        reply = await self.sidecar.post("/crawl/jobs", json={"url": self.site.url("/"), "render": "never", **body})
        assert reply.status == 202, await reply.text()
        return await self._until(self.sidecar, (await reply.json())["id"], "completed", "failed")

    async def fresh(self, **body: Any) -> dict[str, Any]:
        self.site.forget_counts()
        reply = await self.sidecar.post("/crawl/fresh/runs", json=body or None)
        assert reply.status == 202, await reply.text()
        run = await reply.json()
        async with asyncio.timeout(30):
            while run["state"] != "done":
                await asyncio.sleep(0.05)
                run = await (await self.sidecar.get(f"/crawl/fresh/runs/{run['id']}")).json()
        return run  # type: ignore[no-any-return]

    async def changes(self, run: dict[str, Any]) -> dict[str, dict[str, Any]]:
        job = run["sites"][self.site.host]["job"]
        found = await (await self.sidecar.get(f"/crawl/jobs/{job}/changes")).json()
        return {row["url"].removeprefix(self.site.url("")): row for row in found["changes"]}

    async def mark(self, *rows: dict[str, Any]) -> dict[str, int]:
        body = [{**row, "url": self.site.url(row["url"])} for row in rows]
        reply = await self.sidecar.patch(f"/crawl/sites/{self.site.host}/pages", json=body)
        assert reply.status == 200, await reply.text()
        return (await reply.json())["marked"]  # type: ignore[no-any-return]

    async def pages(self, **query: Any) -> dict[str, dict[str, Any]]:
        found = await (await self.sidecar.get(f"/crawl/sites/{self.site.host}/pages", params=query)).json()
        return {row["url"].removeprefix(self.site.url("")): row for row in found["pages"]}

    async def answer(self, question: str) -> str:
        hits = await self.knowledge.search(self.site.host, question, limit=1)
        return hits[0].snippet if hits and hits[0].coverage >= 0.5 else ""

    async def found(self) -> set[str]:
        """The paths that a search can find."""
        rows, _ = await self.knowledge.library.documents(self.site.host, 0, 500)
        return {row.url.removeprefix(self.site.url("")) for row in rows}


@pytest.fixture
async def desk(sidecar: TestClient, shop: ChangingSite, knowledge: Knowledge, until: Until) -> Desk:
    return Desk(sidecar, shop, knowledge, until)


async def test_what_changed_is_found_and_nothing_else_is_read(desk: Desk, data_dir: Path) -> None:
    done = await desk.crawl()
    assert done["progress"]["kept"] == 5
    assert await desk.answer("When is the shop open?") == "The shop is open from nine to five."

    first = await desk.fresh()
    # The two that the sitemap does not name, and a sample of the three that it does.
    assert (first["vouched"], first["requests"], first["notModified"], first["changed"]) == (2, 3, 3, 0)

    desk.site.put("/hours", "The shop is open from ten to six.", LATER)
    desk.site.put("/team", "Ana and Cene work here.", listed=False)
    desk.site.put("/sale", "Everything is sold for half of its price.", LATER)
    del desk.site.pages["/old"], desk.site.lastmod["/old"]
    run = await desk.fresh()
    changes = await desk.changes(run)
    assert {path: row["kind"] for path, row in changes.items()} == {
        "/hours": "changed",
        "/team": "changed",
        "/sale": "new",
        "/old": "gone",
    }
    assert (run["vouched"], run["requests"], run["changed"], run["new"], run["gone"]) == (1, 5, 2, 1, 1)
    assert desk.site.asked["/returns"] == 0
    assert await desk.answer("When is the shop open?") == "The shop is open from ten to six."
    assert await desk.answer("For what price is everything sold?") == "Everything is sold for half of its price."
    hours = changes["/hours"]
    assert (hours["added"], hours["removed"]) == (1, 1)
    text = await (await desk.sidecar.get(f"/crawl/sites/{desk.site.host}/{hours['diff']}")).text()
    assert "-The shop is open from nine to five." in text
    assert "+The shop is open from ten to six." in text
    folder = data_dir / "sites" / desk.site.host.replace(":", "_")
    rows = [json.loads(line) for line in (folder / "pages.jsonl").read_text().splitlines()]
    assert {row["url"].removeprefix(desk.site.url("")) for row in rows if row["gone_at"]} == {"/old"}
    assert all((folder / row["file"]).is_file() for row in rows)
    sitemap = (folder / "sitemap.xml").read_text()
    assert desk.site.url("/old") not in sitemap
    assert desk.site.url("/sale") in sitemap


async def test_pages_that_are_gone_go_after_the_grace(desk: Desk, data_dir: Path) -> None:
    await desk.crawl()
    old = desk.site.pages.pop("/old")
    del desk.site.lastmod["/old"]
    await desk.fresh()
    assert (await desk.pages())["/old"]["state"] == "gone"
    assert "/old" in await desk.found()
    desk.site.put("/old", old)
    assert {row["kind"] for row in (await desk.changes(await desk.fresh())).values()} == {"back"}
    assert (await desk.pages())["/old"]["state"] == "kept"
    del desk.site.pages["/old"], desk.site.lastmod["/old"]
    await desk.fresh()
    tools: Tools = desk.sidecar.app[TOOLS]  # type: ignore[union-attr]
    object.__setattr__(tools, "grace_ms", 0)
    run = await desk.fresh()
    assert (await desk.changes(run))["/old"]["kind"] == "removed"
    assert "/old" not in await desk.found()
    assert not list((data_dir / "sites").glob("*/pages/old-*"))
    assert desk.site.asked["/old"] == 0


async def test_old_runs_go_with_their_jobs(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("switchroom.sidecar.freshness.MAX_RUNS", 1)
    crawled = await desk.crawl()
    first, second = await desk.fresh(), await desk.fresh()
    runs = (await (await desk.sidecar.get("/crawl/fresh/runs")).json())["runs"]
    assert [run["id"] for run in runs] == [second["id"]]
    assert (await desk.sidecar.get(f"/crawl/fresh/runs/{first['id']}")).status == 404
    jobs = (await (await desk.sidecar.get("/crawl/jobs")).json())["jobs"]
    assert [job["id"] for job in jobs] == [second["sites"][desk.site.host]["job"], crawled["id"]]
    assert [job["mode"] for job in jobs] == ["fresh", "crawl"]


async def test_a_page_that_moves_is_known_under_its_new_address(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("switchroom.crawler.plan.SAMPLE_SHARE", 0.0)
    await desk.crawl()
    desk.site.put("/people", desk.site.pages.pop("/team"), LATER)
    desk.site.moved["/team"] = "/people"
    changes = await desk.changes(await desk.fresh())
    assert {path: row["kind"] for path, row in changes.items()} == {"/team": "moved", "/people": "new"}
    again = await desk.fresh()
    assert desk.site.asked["/people"] == 0
    assert again["changed"] == again["new"] == 0


async def test_a_sitemap_that_is_not_kept_is_found_out_by_a_sample(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("switchroom.crawler.plan.SAMPLE_SHARE", 0.34)
    await desk.crawl()
    # Two of the three listed pages change, and two are looked at: at least one of these shows that the sitemap lies.
    desk.site.pages["/hours"] = "The shop is closed for good."
    desk.site.pages["/returns"] = "Nothing may be returned."
    run = await desk.fresh()
    assert (run["changed"], run["vouched"], run["requests"]) == (2, 0, 5)


async def test_a_lastmod_that_lies_now_and_then_is_found_out(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("switchroom.crawler.plan.SAMPLE_SHARE", 0.0)
    await desk.crawl()
    tools: Tools = desk.sidecar.app[TOOLS]  # type: ignore[union-attr]
    desk.site.pages["/hours"] = "The shop is closed for good."
    assert (await desk.fresh())["changed"] == 0
    # After a while each page is asked for although its lastmod vouches for it.
    object.__setattr__(tools, "verify_ms", 0)
    assert (await desk.fresh())["changed"] == 1
    object.__setattr__(tools, "verify_ms", 7 * 86_400_000)
    # From then on the site's lastmod is not believed: what changes behind it is found at once.
    desk.site.pages["/returns"] = "Nothing may be returned."
    run = await desk.fresh()
    assert (run["changed"], run["vouched"]) == (1, 0)
    # Until it tells the truth again.
    desk.site.put("/hours", "The shop is open again.", LATER)
    await desk.fresh()
    assert (await desk.fresh())["vouched"] == 3


async def test_without_lastmod_and_etags_all_pages_are_compared(desk: Desk) -> None:
    desk.site.etags = False
    desk.site.lastmod = dict.fromkeys(desk.site.lastmod)
    await desk.crawl()
    desk.site.pages["/returns"] = "Nothing may be returned."
    run = await desk.fresh()
    assert (run["requests"], run["unchanged"], run["changed"], run["notModified"]) == (5, 4, 1, 0)


async def test_a_site_that_is_away_loses_nothing(desk: Desk) -> None:
    await desk.crawl()
    pages, desk.site.pages = desk.site.pages, {}
    desk.site.lastmod = {}
    run = await desk.fresh()
    assert run["gone"] == 5
    assert len(await desk.found()) == 5
    desk.site.pages = pages
    run = await desk.fresh()
    assert run["back"] == 5


async def test_discover_then_choose_then_read(desk: Desk) -> None:
    done = await desk.crawl(mode="discover", depth=2)
    assert done["progress"]["kept"] == 0
    assert await desk.knowledge.library.collections() == []
    assert {row["state"] for row in (await desk.pages()).values()} == {"found"}
    assert set(await desk.pages()) == {"/", "/hours", "/returns", "/team", "/old"}
    counted = await desk.mark(
        {"url": "/old", "mark": "delete"}, {"url": "/t*", "mark": "ignore"}, {"url": "/hours", "extract": "article"}
    )
    assert {url.removeprefix(desk.site.url("")): count for url, count in counted.items()} == {
        "/old": 1,
        "/t*": 1,
        "/hours": 1,
    }
    desk.site.forget_counts()
    desk.site.links["/"].append("/not-known")
    read = await desk.crawl(mode="root")
    assert read["progress"]["kept"] == 3
    assert await desk.found() == {"/", "/hours", "/returns"}
    assert {path for path in desk.site.asked if path in desk.site.pages} == {"/", "/hours", "/returns"}
    shown = await desk.pages(mark="use")
    assert set(shown) == {"/", "/hours", "/returns"}
    assert shown["/hours"]["extract"] == "article"


async def test_marks_hold_for_crawls_freshness_and_knowledge(desk: Desk, data_dir: Path) -> None:
    await desk.crawl()
    assert "/team" in await desk.found()
    await desk.mark({"url": "/team", "mark": "ignore"}, {"url": "/old", "mark": "delete"})
    assert await desk.found() == {"/", "/hours", "/returns"}
    folder = data_dir / "sites" / desk.site.host.replace(":", "_")
    assert list(folder.glob("pages/team-*")) and not list(folder.glob("pages/old-*"))
    rows = [json.loads(line) for line in (folder / "pages.jsonl").read_text().splitlines()]
    assert {row["url"].removeprefix(desk.site.url("")): row["mark"] for row in rows} == {
        "/": "use",
        "/hours": "use",
        "/returns": "use",
        "/team": "ignore",
    }
    assert desk.site.url("/team") not in (folder / "sitemap.xml").read_text()
    run = await desk.fresh()
    assert desk.site.asked["/team"] == desk.site.asked["/old"] == 0
    assert run["gone"] == 0
    done = await desk.crawl()
    assert done["progress"]["skipped"] == {"ignored": 1, "deleted": 1}
    assert await desk.found() == {"/", "/hours", "/returns"}
    # Used again, it is found at once: its text is still in the folder.
    await desk.mark({"url": "/team", "mark": None})
    assert await desk.answer("Who works here?") == "Ana and Bojan work here."
    await desk.mark({"url": "/old", "mark": "use"})
    await desk.crawl()
    assert "/old" in await desk.found()


async def test_wrong_marks_are_named(desk: Desk) -> None:
    await desk.crawl()
    base = f"/crawl/sites/{desk.site.host}/pages"
    for body, pointer in (
        ([{"url": "https://elsewhere.example/"}], "/0/url"),
        ([{"url": "*"}], "/0/url"),
        ([{"url": desk.site.url("/"), "mark": "burn"}], ""),
        ([{"url": desk.site.url("/"), "colour": "red"}], ""),
    ):
        reply = await desk.sidecar.patch(base, json=body)
        assert (reply.status, (await reply.json())["errors"][0]["pointer"]) == (400, pointer)
    assert (await desk.sidecar.get("/crawl/sites/nowhere.example")).status == 404
    assert (await desk.sidecar.get(f"/crawl/sites/{desk.site.host}/changes/..%2F..%2Fweb-cookies.json")).status == 404


async def test_a_site_is_left_out_or_forgotten(desk: Desk, data_dir: Path) -> None:
    await desk.crawl(collection="Shop")
    (site,) = (await (await desk.sidecar.get("/crawl/sites")).json())["sites"]
    assert (site["host"], site["collection"], site["pages"], site["alwaysFresh"]) == (desk.site.host, "Shop", 5, True)
    path = f"/crawl/sites/{desk.site.host}"
    assert (await desk.sidecar.patch(path, json={"alwaysFresh": False})).status == 200
    assert (await desk.fresh())["sites"] == {}
    assert desk.site.host in (await desk.fresh(hosts=[desk.site.host]))["sites"]
    assert (await desk.knowledge.library.collection("Shop")).documents == 5
    assert (await (await desk.sidecar.delete(path)).json())["removedPages"] == 5
    assert (await desk.knowledge.library.collection("Shop")).documents == 0
    assert list((data_dir / "sites").glob("127*")) == []
    assert (await desk.sidecar.get(path)).status == 404
    with pytest.raises(NotFound):
        await desk.knowledge.search(desk.site.host, "open")


async def test_the_day_s_run_comes_once_for_all_sidecars(
    start_sidecar: Start, shop: ChangingSite, knowledge: Knowledge, until: Until
) -> None:
    desk = Desk(await start_sidecar(), shop, knowledge, until)
    await desk.crawl()
    at = time.strftime("%H:%M", time.localtime(time.time() - 60))
    sidecars = [await start_sidecar(fresh_at=at), await start_sidecar(fresh_at=at)]
    async with asyncio.timeout(20):
        while not (runs := (await (await sidecars[0].get("/crawl/fresh/runs")).json())["runs"]):
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.3)
    runs = (await (await sidecars[1].get("/crawl/fresh/runs")).json())["runs"]
    assert [run["trigger"] for run in runs] == ["schedule"]
    shown = await (await sidecars[1].get("/crawl/fresh")).json()
    assert (shown["at"], shown["zone"]) == (at, None)
    assert shown["nextRunAt"] > runs[0]["startedAt"]


def _freshness(at: str, zone: str) -> Freshness:
    return Freshness(tools=_NONE, jobs=_NONE, at=time_of_day(at), zone=ZoneInfo(zone))


_NONE: Any = type("None_", (), {"store": None})()


@pytest.mark.parametrize(
    ("now", "at", "zone", "due"),
    [
        ("2026-11-21T22:00:00+00:00", "03:30", "Europe/Ljubljana", "2026-11-22T02:30:00+00:00"),
        ("2026-11-22T02:30:00+00:00", "03:30", "Europe/Ljubljana", "2026-11-23T02:30:00+00:00"),
        ("2026-11-21T22:00:00+00:00", "23:15", "America/New_York", "2026-11-22T04:15:00+00:00"),
        # In the night in which clocks go forward 02:30 does not come, but the run does; and once in the other night.
        ("2026-03-28T20:00:00+00:00", "02:30", "Europe/Ljubljana", "2026-03-29T01:30:00+00:00"),
        ("2026-10-24T20:00:00+00:00", "02:30", "Europe/Ljubljana", "2026-10-25T00:30:00+00:00"),
        ("2026-10-25T00:30:01+00:00", "02:30", "Europe/Ljubljana", "2026-10-26T01:30:00+00:00"),
    ],
)
def test_the_next_run_is_by_the_zones_own_clock(now: str, at: str, zone: str, due: str) -> None:
    from datetime import UTC, datetime

    found = _freshness(at, zone).next_run(datetime.fromisoformat(now).timestamp())
    assert found is not None
    assert datetime.fromtimestamp(found, UTC) == datetime.fromisoformat(due)


@pytest.mark.parametrize("text", ["", "24:00", "3", "03:60", "noon"])
def test_what_is_no_time_of_day_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        time_of_day(text)
    assert time_of_day("3:05") == Time(3, 5)


async def test_a_session_lost_in_a_run_is_waited_for_and_nothing_is_marked(
    sidecar: TestClient, site: TestClient, until: Until
) -> None:
    async def cookies() -> list[dict[str, Any]]:
        reply = await site.post("/login?as=json", data={"user": "ana", "password": "switchroom"})
        site.session.cookie_jar.clear()
        return await reply.json()  # type: ignore[no-any-return]

    assert (await sidecar.post("/sitemap/web-cookies", json=await cookies())).status == 200
    job = await (await sidecar.post("/crawl/jobs", json={"url": str(site.make_url("/")), "render": "never"})).json()
    await until(sidecar, job["id"], "completed")
    host = f"127.0.0.1:{site.port}"
    before = await (await sidecar.get(f"/crawl/sites/{host}/pages", params={"state": "kept"})).json()
    assert (await sidecar.post("/sitemap/web-cookies?replace=empty", json=[])).status == 200
    run = await (await sidecar.post("/crawl/fresh/runs")).json()
    async with asyncio.timeout(30):
        while run["state"] != "waiting":
            await asyncio.sleep(0.05)
            run = await (await sidecar.get(f"/crawl/fresh/runs/{run['id']}")).json()
    again = await (await sidecar.post("/crawl/fresh/runs")).json()
    assert again["skipped"] == {host: "waiting_login"}
    assert (await sidecar.post("/sitemap/web-cookies", json=await cookies())).status == 200
    async with asyncio.timeout(30):
        while run["state"] != "done":
            await asyncio.sleep(0.05)
            run = await (await sidecar.get(f"/crawl/fresh/runs/{run['id']}")).json()
    assert (run["gone"], run["changed"], run["failed"]) == (0, 0, 0)
    after = await (await sidecar.get(f"/crawl/sites/{host}/pages", params={"state": "kept"})).json()
    assert [row["url"] for row in after["pages"]] == [row["url"] for row in before["pages"]]
