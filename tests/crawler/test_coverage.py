"""The difficult site, signed in: what is found, what is kept, and why the rest is not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from switchroom.crawler.cookies import Cookie
from switchroom.crawler.frontier import Frontier
from switchroom.crawler.job import Job, JobEvent, PageRecord
from switchroom.crawler.runner import Crawl
from switchroom.crawler.tools import Tools

Records = Callable[[Job], Awaitable[dict[str, PageRecord]]]


async def test_every_address_of_the_difficult_site(
    difficult: ModuleType,
    serve: Callable[[web.Application], Awaitable[TestServer]],
    tools: Tools,
    cookies: Any,
    new_job: Callable[..., Awaitable[Job]],
    records: Records,
    data_dir: Path,
) -> None:
    site = await serve(difficult.build())
    cookies.cookies = (Cookie(name="session", value="good", domain="127.0.0.1"),)
    job = await new_job(site, depth=30, max_pages=1000)
    outcome = await Crawl(tools, job).run()
    assert outcome is not None
    assert outcome.event == JobEvent.DRAINED, outcome

    pages = await records(job)
    traps = {url: pages.pop(url) for url in list(pages) if url.startswith(("calendar", "sorted", "shop?"))}
    fates = {url: (record.outcome, record.cause) for url, record in pages.items()}
    for url, want in difficult.EXPECTED.items():  # the coverage table: pytest -s
        print(f"{'ok ' if fates.get(url) == want else 'NOT'} /{url:24} {' '.join(fates.get(url, ('-',)))}")
    assert fates == difficult.EXPECTED

    # A calendar without end is left after a few pages.
    assert 25 <= len([url for url in traps if url.startswith("calendar")]) < 80
    # Of the lists that filters make in all combinations, some are read; they say nothing new.
    lists = [trap.cause for url, trap in traps.items() if url.startswith("shop?")]
    assert lists.count("") < 60
    assert "trap" in lists
    hits = site.app[difficult.HITS]
    assert [path for path in difficult.NEVER if hits[path]] == []
    assert site.app[difficult.SIGNED_IN] == [True]
    assert hits["/robots.txt"] == 1
    # Nothing good is asked for twice, and nothing huge is taken whole.
    troubled = {"/flaky", "/busy", "/overloaded", "/not-http", "/always-torn", "/broken", "/broken-once", "/vip"} | {
        "/maps/flaky.xml"
    }
    again = {path: n for path, n in hits.items() if n > 1 and path not in troubled}
    # A few are read again to tell whether the session is lost: after a 403, a 404, a redirect; one a second at most.
    assert sum(again.values()) - len(again) <= 25, again
    assert max(site.app[difficult.SENT].values(), default=0) < 40_000_000

    counts = await Frontier(tools.store, job.id, 1000).counts()
    assert counts["links_left:logout_link"] == 2, "one by its address, one by what its picture is called"
    assert counts["links_left:action_link"] == 1

    folder = data_dir / "sites" / f"127.0.0.1_{site.port}"

    def text(path: str) -> str:
        return (folder / pages[path].file).read_text()

    for path in ("cp1250", "says-latin1-is-utf8", "utf16", "html-as-text", "html-as-octets"):
        assert "Žlahtna šola na Čopovi ulici" in text(path), path
    assert "電気料金" in text("shift-jis")
    assert "The water price stays at 1.20 EUR in 2027." in text("report.pdf")
    assert "Call 112." in text("pdf-as-html")
    assert "deep words" in text("deep")
    assert "never end" in text("unclosed")
    assert len(text("long")) > 2_000_000, "its file has all of it, though knowledge takes less"
    assert "some words of its own" in text("footer")


def _near_walls() -> set[str]:
    """Pages that were read once more to find out whether a 403 beside them means that the session is gone."""
    return {"/members/hard", "/members/soft", "/members/clears", "/plain", "/", "/orphan", "/nested-orphan"}


async def test_pages_and_links_that_only_javascript_makes(
    difficult: ModuleType,
    serve: Callable[[web.Application], Awaitable[TestServer]],
    tools: Tools,
    new_job: Callable[..., Awaitable[Job]],
    records: Records,
    data_dir: Path,
) -> None:
    site = await serve(difficult.build())
    job = await new_job(site, start="js-only", depth=2, render="auto", sitemaps=False)
    await Crawl(tools, job).run()
    pages = await records(job)
    assert {url: (page.outcome, page.cause) for url, page in pages.items()} == difficult.JAVASCRIPT
    plain = {"js-linked", "js-in-shadow", "js-far-down", "js-by-menu"}
    assert {url for url, page in pages.items() if not page.rendered} == plain
    folder = data_dir / "sites" / f"127.0.0.1_{site.port}"
    for path, page in pages.items():
        text = (folder / page.file).read_text()
        assert f"/{path.partition('#')[0]}, with some words of its own" in text, path
    assert "Entry 5 of the list" in (folder / pages["js-scrolls"].file).read_text()
    assert "Route #/prices" in (folder / pages["js-routes#/prices"].file).read_text()
    pictured = await new_job(site, start="js-only", depth=0, render="auto", sitemaps=False, screenshots=True)
    await Crawl(tools, pictured).run()
    assert (folder / (await records(pictured))["js-only"].screenshot).read_bytes()[:3] == b"\xff\xd8\xff"
    assert pages["js-linked"].screenshot == "", "only what a browser showed can be pictured"
