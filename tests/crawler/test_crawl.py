"""One crawl over a site with difficulties, a browser behind the guard, and a frontier that outlives its process."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from switchroom.crawler import job_store
from switchroom.crawler.cookies import Cookie
from switchroom.crawler.frontier import Done, Frontier, Step
from switchroom.crawler.jar import Jar, Key
from switchroom.crawler.job import Job, JobEvent, JobSpec, PageRecord
from switchroom.crawler.output import Output
from switchroom.crawler.render import BrowserPool
from switchroom.crawler.runner import Crawl
from switchroom.crawler.tools import Tools
from switchroom.net import Guard, GuardedClient, OutboundError
from switchroom.store import Store, keys

HITS: web.AppKey[Counter[str]] = web.AppKey("hits", Counter)


@dataclass
class Cookies:
    """Cookies that a test holds in its hand."""

    version: int = 1
    cookies: tuple[Cookie, ...] = ()
    changes: dict[Key, Cookie | None] = field(default_factory=dict)

    async def read(self) -> Cookies:
        return self

    async def refresh(self, base_version: int, changes: dict[Key, Cookie | None]) -> None:
        self.changes.update(changes)


def html(title: str, body: str) -> web.Response:
    head = f"<!doctype html><html><head><title>{title}</title></head>"
    text = f"{head}<body><main><h1>{title}</h1>{body}</main></body></html>"
    return web.Response(text=text, content_type="text/html")


async def difficult(request: web.Request) -> web.StreamResponse:
    path = request.path
    request.app[HITS][path] += 1
    origin = request.url.origin()
    names = "flaky busy hop0 loop legacy big pdf gone broken dup calendar/2026/1 robots-says-no/x about orphan-not"
    match path:
        case "/robots.txt":
            return web.Response(text=f"User-agent: *\nDisallow: /robots-says-no/\nSitemap: {origin}/maps/index.xml\n")
        case "/maps/index.xml":
            nested = (
                f"<sitemap><loc>{origin}/maps/one.xml.gz</loc></sitemap><sitemap><loc>/maps/gone.xml</loc></sitemap>"
            )
            return web.Response(text=f"<sitemapindex>{nested}</sitemapindex>", content_type="application/xml")
        case "/maps/one.xml.gz":
            body = f"<urlset><url><loc>{origin}/orphan</loc><lastmod>2026-01-01</lastmod></url></urlset>".encode()
            return web.Response(body=gzip.compress(body), content_type="application/gzip")
        case "/":
            links = "".join(f'<a href="/{name}?utm_source=home">{name}</a> ' for name in names.split())
            logout = (
                '<a href="/logout">Log out</a> <a href="https://elsewhere.example/">away</a> <a href="/a.zip">zip</a>'
            )
            return html("Home", f"<p>Everything is linked from here.</p><p>{links}{logout}</p>")
        case "/flaky" if request.app[HITS][path] < 3:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        case "/busy" if request.app[HITS][path] < 3:
            return web.Response(status=429, headers={"Retry-After": "1"})
        case "/hop0" | "/hop1" | "/hop2":
            return web.Response(status=302, headers={"Location": f"/hop{int(path[-1]) + 1}"})
        case "/loop":
            return web.Response(status=301, headers={"Location": "/loop"})
        case "/legacy":
            body = "<html><head><title>Stara</title></head><body><p>Žlahtna šola na Čopovi ulici.</p></body></html>"
            return web.Response(body=body.encode("cp1250"), headers={"Content-Type": "text/html; charset=windows-1250"})
        case "/big":
            response = web.StreamResponse(headers={"Content-Type": "text/html"})
            await response.prepare(request)
            for _ in range(64):
                await response.write(b"x" * 1_000_000)
            return response
        case "/pdf":
            return web.Response(body=b"%PDF-1.7", content_type="application/pdf")
        case "/gone":
            return web.Response(status=410)
        case "/broken":
            return web.Response(status=500)
        case "/dup":
            page = '<link rel=canonical href="/dup"><title>Dup</title><p>Two addresses.</p><a href="/dup?x=1">2</a>'
            return web.Response(text=page, content_type="text/html")
        case "/logout":
            return html("Out", "<p>You are logged out.</p>")
        case _ if path.startswith("/calendar/"):
            _, _, year, month = path.split("/")
            after = int(year) * 12 + int(month)
            ahead = "".join(
                f'<a href="/calendar/{(after + i) // 12}/{(after + i) % 12 + 1}">next</a>' for i in range(4)
            )
            return html("Calendar", f"<p>{year}-{month}: nothing is planned in this month.</p>{ahead}")
        case "/orphan-not":
            raise web.HTTPNotFound
        case _:
            return html(path.strip("/").title(), f"<p>This is the page {path}, with some words of its own.</p>")


@pytest.fixture
async def site() -> AsyncIterator[TestServer]:
    app = web.Application()
    app[HITS] = Counter()
    app.router.add_get("/{path:.*}", difficult)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    yield server
    await server.close()


@pytest.fixture
async def tools(store: Store, data_dir: Path) -> AsyncIterator[Tools]:
    client = GuardedClient(["127.0.0.1"])
    pool = BrowserPool(client.guard)
    yield Tools(store=store, client=client, browsers=pool, cookies=Cookies(), output=Output(data_dir / "sites"))
    await pool.close()
    await client.close()


async def new_job(store: Store, server: TestServer, **changes: object) -> Job:
    start = str(server.make_url("/"))
    spec = JobSpec(starts=(start,), hosts=(f"127.0.0.1:{server.port}",), render="never", **changes)  # type: ignore[arg-type]
    job = await job_store.create_job(store, spec)
    started, _ = await job_store.apply(store, job.id, JobEvent.START)
    return started


async def records(store: Store, job: Job) -> dict[str, PageRecord]:
    _, found = await Frontier(store, job.id, job.spec.max_pages).pages(count=5000)
    return {record.url.split("/", 3)[3]: record for record in found}


async def test_a_difficult_site(store: Store, tools: Tools, site: TestServer, data_dir: Path) -> None:
    job = await new_job(store, site, depth=30, max_pages=500)
    outcome = await Crawl(tools, job).run()
    assert outcome.event == JobEvent.DRAINED
    pages = await records(store, job)
    calendar = {url for url in pages if url.startswith("calendar")}
    fates = {url: (r.outcome, r.cause) for url, r in pages.items() if url not in calendar}
    assert fates == {
        "": ("kept", ""),
        "orphan": ("kept", ""),
        "about": ("kept", ""),
        "flaky": ("kept", ""),
        "busy": ("kept", ""),
        "hop3": ("kept", ""),
        "legacy": ("kept", ""),
        "dup": ("kept", ""),
        "dup?x=1": ("skipped", "duplicate"),
        "loop": ("failed", "redirect_loop"),
        "big": ("failed", "too_large"),
        "pdf": ("failed", "pdf_broken"),
        "gone": ("failed", "not_found"),
        "orphan-not": ("failed", "not_found"),
        "broken": ("failed", "status_500"),
        "robots-says-no/x": ("skipped", "robots"),
    }
    assert len(calendar) < 60
    hits = site.app[HITS]
    assert hits["/logout"] == 0
    assert hits["/robots-says-no/x"] == 0
    assert hits["/a.zip"] == 0
    assert hits["/robots.txt"] == 1
    folder = data_dir / "sites" / f"127.0.0.1_{site.port}"
    legacy = folder / pages["legacy"].file
    assert "Žlahtna šola na Čopovi ulici." in legacy.read_text()


async def test_max_pages_and_depth(store: Store, tools: Tools, site: TestServer) -> None:
    shallow = await new_job(store, site, depth=0, sitemaps=False)
    await Crawl(tools, shallow).run()
    assert set(await records(store, shallow)) == {""}
    few = await new_job(store, site, max_pages=3)
    outcome = await Crawl(tools, few).run()
    assert len(await records(store, few)) == 3
    assert "limit of pages" in outcome.note


async def test_without_a_browser_the_job_says_so(store: Store, tools: Tools, site: TestServer) -> None:
    job = await new_job(store, site, depth=0, sitemaps=False)
    job = msgspec.structs.replace(job, spec=msgspec.structs.replace(job.spec, render="always"))
    broken = BrowserPool(tools.client.guard, executable=Path("/nonexistent/chromium"))
    try:
        outcome = await Crawl(dataclasses.replace(tools, browsers=broken), job).run()
    finally:
        await broken.close()
    assert outcome.event == JobEvent.DRAINED
    assert "1 pages need a browser" in outcome.note
    assert (await records(store, job))[""].cause == "browser_unavailable"


async def test_a_killed_run_goes_on_without_loss_or_double_work(store: Store, tools: Tools, site: TestServer) -> None:
    job = await new_job(store, site, depth=1)
    run = asyncio.create_task(Crawl(tools, job).run())
    book = Frontier(store, job.id, 1000)
    while (await book.sizes())["done"] < 4:
        await asyncio.sleep(0.005)
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    sizes = await book.sizes()
    assert sizes["taken"] == 0
    assert sizes["queued"] > 0
    before = await records(store, job)
    hits = Counter(site.app[HITS])
    await Crawl(tools, await job_store.load_job(store, job.id)).run()
    after = await records(store, job)
    assert set(before) < set(after)
    assert len(after) == 16
    again = [url for url in before if before[url].outcome == "kept" and site.app[HITS]["/" + url] != hits["/" + url]]
    assert again == []


async def test_frontier_scripts(store: Store) -> None:
    book = Frontier(store, "j", max_pages=3, runner="a")

    async def take(step: Step, most: int) -> list[tuple[str, int]]:
        return [(taken.url, taken.depth) for taken in (await book.step(step, most)).urls]

    links = [("u1", 0), ("u2", 1), ("u3", 0), ("u1", 5)]
    assert await take(Step(links=links), 2) == [("u1", 0), ("u3", 0)]
    await book.step(Step(released=["u1"], walled=["u3"]))
    assert await book.sizes() == {"queued": 2, "taken": 0, "walled": 1, "done": 0}
    again = (await book.step(Step(), take=5)).urls
    assert [tuple(taken) for taken in again] == [("u1", 0, 1), ("u2", 1, 0)]
    record = PageRecord(url="u1", outcome="kept")
    done = Done(record=record, counts={"fetched": 1, "kept": 1}, final="u1")
    await book.step(Step(done=[("u1", done)], links=[("u4", 1)]))
    assert await book.record("u1") == record
    assert await take(Step(), 5) == [], "three pages were asked for, and three are under way"
    assert await book.leave() == 1
    assert await book.retry_walled() == 1
    assert await book.sizes() == {"queued": 3, "taken": 0, "walled": 0, "done": 1}
    assert (await book.counts()) == {"found": 4, "fetched": 1, "kept": 1}


async def test_a_dead_runner_loses_its_urls_and_what_it_brings_late_counts_once(store: Store) -> None:
    dead, living = (Frontier(store, "j", 10, runner=name) for name in ("dead", "living"))
    await dead.beat()
    assert (await living.beat()).runners == 2
    await dead.step(Step(links=[("u1", 0), ("u2", 0)]), take=2)
    assert await dead.may_discover()
    assert not await living.may_discover()
    assert (await living.step(Step(), take=2)).urls == []
    await store.call("ZADD", keys.crawl("j", "runners"), 1, "dead")  # its lease is over
    assert (await living.beat()).runners == 1
    assert await living.may_discover()
    assert [taken.url for taken in (await living.step(Step(), take=2)).urls] == ["u1", "u2"]
    for runner in (living, dead):
        done = Done(record=PageRecord(url="u1", outcome="kept"), counts={"kept": 1}, final="u1")
        await runner.step(Step(done=[("u1", done)]))
    # Another address of the same page is no second page.
    done = Done(record=PageRecord(url="u1", outcome="kept"), counts={"kept": 1}, final="u1")
    await living.step(Step(done=[("u2", done)]))
    counts = await living.counts()
    assert (counts["kept"], counts["skipped:duplicate"]) == (1, 1)
    second = await living.record("u2")
    assert second is not None
    assert (second.outcome, second.cause) == ("skipped", "duplicate")


async def test_an_answer_that_got_lost_leaves_no_url_behind(store: Store) -> None:
    book = Frontier(store, "j", 10, runner="a")
    step = Step(links=[("u1", 0), ("u2", 0)], counts={})
    await book.step(step, take=2)  # suppose that nobody read the answer
    took = await book.step(step, take=2, holding=[])
    assert [taken.url for taken in took.urls] == ["u1", "u2"]
    assert took.held == 2


APP = """<!doctype html><html><head><title>App</title></head><body><div id="app"></div>
<script>%s</script></body></html>"""


async def test_browser_stays_behind_the_guard(tools: Tools) -> None:
    """127.0.0.1 is allowed here, 127.0.0.2 is not: neither for subresources nor redirects, fetches, sockets."""
    reached: list[str] = []

    async def outside(request: web.Request) -> web.Response:
        reached.append(request.path)
        return web.Response(text="secret", headers={"Access-Control-Allow-Origin": "*"})

    async def inside(request: web.Request) -> web.Response:
        other = f"http://127.0.0.2:{forbidden.port}"
        match request.path:
            case "/fetch":
                script = f"""fetch('{other}/fetched').then(r => r.text(), e => 'refused').then(t => {{
                    document.getElementById('app').innerText = 'answer: ' + t; }});
                    new Image().src = '{other}/image'; new WebSocket('ws://127.0.0.2:{forbidden.port}/socket');"""
                return web.Response(text=APP % script, content_type="text/html")
            case "/go":
                return web.Response(status=302, headers={"Location": other + "/redirected"})
            case "/jsgo":
                return web.Response(text=APP % f"location.href = '{other}/js'", content_type="text/html")
            case "/late":
                script = "setTimeout(() => location.replace('/end'), 50)"
                return web.Response(text=APP % script, content_type="text/html")
            case "/slowjson":
                await asyncio.sleep(0.8)
                return web.json_response({"words": "came late"})
            case "/slow":
                script = """alert('stop here'); window.open('/end');
                    fetch('/slowjson').then(r => r.json())
                    .then(d => { document.getElementById('app').innerText = d.words; });"""
                return web.Response(text=APP % script, content_type="text/html")
            case "/download":
                return web.Response(body=b"x", headers={"Content-Disposition": "attachment; filename=a.bin"})
            case "/cookie":
                answer = web.Response(text=f"<p>session {request.cookies.get('sid')}</p>", content_type="text/html")
                answer.set_cookie("sid", "renewed", path="/")
                return answer
            case _:
                return web.Response(text="<title>End</title><p>the end</p>", content_type="text/html")

    pair = []
    for handler, host in ((outside, "127.0.0.2"), (inside, "127.0.0.1")):
        app = web.Application()
        app.router.add_get("/{path:.*}", handler)
        server = TestServer(app, host=host)
        await server.start_server()
        pair.append(server)
    forbidden, allowed = pair
    pool = BrowserPool(Guard(["127.0.0.1"]))
    base = f"http://127.0.0.1:{allowed.port}"
    sid = Cookie(name="sid", value="first", domain="127.0.0.1")
    jar = Jar([sid])
    try:
        async with await pool.session([sid]) as session:

            async def render(path: str) -> str:
                return (await session.render(base + path, jar, max_chars=100_000)).html

            assert "answer: refused" in await render("/fetch")
            for path in ("/go", "/download"):
                with pytest.raises(OutboundError) as caught:
                    await render(path)
                assert caught.value.cause == {"/go": "address_refused", "/download": "download"}[path]
            await render_or_refuse(render("/jsgo"))
            assert reached == []
            assert "the end" in await render("/late")
            assert "came late" in await render("/slow")
            assert "session first" in await render("/cookie")
            assert jar.take_changes()[sid.key] == Cookie(name="sid", value="renewed", domain="127.0.0.1")
            assert "session renewed" in await render("/cookie")
            with pytest.raises(OutboundError) as caught:
                await session.render(base + "/slow", jar, max_chars=10)
            assert caught.value.cause == "too_large"
            browser = await pool.browser()
            await browser.close()
            assert "the end" in await render("/end"), "a browser that died is replaced"
    finally:
        await pool.close()
        for server in pair:
            await server.close()


async def render_or_refuse(rendering: asyncio.Future[str] | object) -> None:
    """A page that sends itself away by script may end as an error page or as an error."""
    try:
        await rendering  # type: ignore[misc]
    except OutboundError as error:
        assert error.cause in ("address_refused", "connect", "download")
