"""A frontier that outlives its process and is shared by several, and a browser behind the guard."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from aiohttp.typedefs import Handler
from warcio.archiveiterator import ArchiveIterator
from yarl import URL

from switchroom.crawler import job_store
from switchroom.crawler.cookies import Cookie
from switchroom.crawler.frontier import Done, Frontier, Step
from switchroom.crawler.jar import Jar
from switchroom.crawler.job import Job, JobEvent, PageRecord
from switchroom.crawler.manners import Manners
from switchroom.crawler.render import BrowserPool
from switchroom.crawler.runner import Crawl
from switchroom.crawler.tools import Tools
from switchroom.net import Guard, GuardedClient, OutboundError
from switchroom.store import Store, keys

Serve = Callable[[web.Application], Awaitable[TestServer]]
NewJob = Callable[..., Awaitable[Job]]
Records = Callable[[Job], Awaitable[dict[str, PageRecord]]]
HITS: web.AppKey[Counter[str]] = web.AppKey("hits", Counter)


def plain_site(pages: int) -> web.Application:
    """Pages that all link to each other, each with words of its own; counts who is asked for."""
    app = web.Application()
    app[HITS] = Counter()

    async def answer(request: web.Request) -> web.Response:
        app[HITS][request.path] += 1
        app[HITS][request.headers["User-Agent"]] += 1
        if request.path in ("/robots.txt", "/sitemap.xml", "/sitemap_index.xml"):
            raise web.HTTPNotFound
        links = "".join(f'<a href="/p{number}">{number}</a> ' for number in range(pages))
        text = f"<title>{request.path}</title><p>The words of {request.path} alone.</p>{links}"
        return web.Response(text=text, content_type="text/html")

    app.router.add_get("/{path:.*}", answer)
    return app


async def test_max_pages_and_depth(tools: Tools, serve: Serve, new_job: NewJob, records: Records) -> None:
    site = await serve(plain_site(10))
    shallow = await new_job(site, depth=0, sitemaps=False)
    await Crawl(tools, shallow).run()
    assert set(await records(shallow)) == {""}
    few = await new_job(site, max_pages=3)
    outcome = await Crawl(tools, few).run()
    assert len(await records(few)) == 3
    assert outcome is not None
    assert "limit of pages" in outcome.note


async def test_without_a_browser_the_job_says_so(tools: Tools, serve: Serve, new_job: NewJob, records: Records) -> None:
    job = await new_job(await serve(plain_site(1)), depth=0, sitemaps=False, render="always")
    broken = BrowserPool(tools.client.guard, executable=Path("/nonexistent/chromium"))
    try:
        outcome = await Crawl(dataclasses.replace(tools, browsers=broken), job).run()
    finally:
        await broken.close()
    assert outcome is not None
    assert outcome.event == JobEvent.DRAINED
    assert "1 pages need a browser" in outcome.note
    assert (await records(job))[""].cause == "browser_unavailable"


async def test_a_stopped_run_goes_on_without_loss_or_double_work(
    store: Store, tools: Tools, serve: Serve, new_job: NewJob, records: Records
) -> None:
    site = await serve(plain_site(60))
    job = await new_job(site, depth=1)
    run = asyncio.create_task(Crawl(tools, job).run())
    book = Frontier(store, job.id, 1000)
    while (await book.sizes())["done"] < 4:
        await asyncio.sleep(0.005)
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    sizes = await book.sizes()
    assert sizes["taken"] == 0
    assert sizes["queued"] > 0
    before = await records(job)
    hits = Counter(site.app[HITS])
    await Crawl(tools, await job_store.load_job(store, job.id)).run()
    after = await records(job)
    assert set(before) < set(after)
    assert len(after) == 61
    assert [url for url in before if site.app[HITS]["/" + url] != hits["/" + url]] == []


async def test_answers_are_archived_without_cookies(
    tools: Tools, serve: Serve, new_job: NewJob, data_dir: Path
) -> None:
    app = web.Application()

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/":
            return web.Response(status=302, headers={"Location": "/home"})
        if request.path != "/home":
            raise web.HTTPNotFound
        page = web.Response(text="<title>Home</title><p>The words of the home page.</p>", content_type="text/html")
        page.set_cookie("sid", "sEcReT")
        return page

    app.router.add_get("/{path:.*}", answer)
    site = await serve(app)
    job = await new_job(site, depth=0, sitemaps=False, warc=True)
    await Crawl(tools, job).run()
    (file,) = (data_dir / "sites" / "archives").iterdir()
    assert file.name.startswith(job.id)
    assert file.stat().st_mode & 0o077 == 0
    with file.open("rb") as stream:
        told = [
            (record.rec_type, record.rec_headers.get_header("WARC-Target-URI"), record.content_stream().read())
            for record in ArchiveIterator(stream)
        ]
    kinds = [(kind, URL(uri).path if uri else None) for kind, uri, _ in told]
    assert kinds == [("warcinfo", None), ("response", "/"), ("response", "/home")]
    assert b"The words of the home page." in told[2][2]
    assert b"sEcReT" not in gzip.decompress(file.read_bytes())


async def test_two_processes_share_a_job_and_a_hosts_limits(
    store: Store, tools: Tools, serve: Serve, new_job: NewJob, records: Records
) -> None:
    """Two sets of tools are two processes to each other: another runner, other hosts, another client."""
    open_now, most = 0, 0
    shared = asyncio.Event()
    app = plain_site(40)

    @web.middleware
    async def watch(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        try:
            if request.path.startswith("/p"):
                await shared.wait()
            await asyncio.sleep(0.02)
            return await handler(request)
        finally:
            open_now -= 1

    app.middlewares.append(watch)
    site = await serve(app)
    job = await new_job(site, depth=1, sitemaps=False)
    first = dataclasses.replace(tools, per_host=2)
    async with GuardedClient(["127.0.0.1"], user_agent="second") as client:
        second = dataclasses.replace(tools, client=client, per_host=2, runner="second")
        began = asyncio.create_task(Crawl(first, job).run())
        while (await Frontier(store, job.id, 1000).sizes())["done"] < 1:
            await asyncio.sleep(0.005)
        joined = asyncio.create_task(Crawl(second, await job_store.load_job(store, job.id)).run())
        while b"second" not in await store.call("HVALS", keys.crawl(job.id, "taken")):
            await asyncio.sleep(0.005)
        shared.set()
        outcomes = await asyncio.gather(began, joined)
    assert {outcome.event for outcome in outcomes if outcome} == {JobEvent.DRAINED}
    pages = await records(job)
    assert len(pages) == 41
    assert {record.outcome for record in pages.values()} == {"kept"}
    hits = site.app[HITS]
    assert hits["second"] > 1, "the second one did a part"  # beside its robots.txt
    assert [path for path, n in hits.items() if n > 1 and path.startswith("/p")] == []
    # robots.txt is asked for outside the gate, once a process.
    assert most <= 3


async def test_a_delay_holds_over_all_processes(store: Store) -> None:
    delay_s, starts = 0.1, []

    async def go(runner: str) -> None:
        manners = Manners(store, "x.example", runner, 4, delay_s)
        await manners.beat()
        for _ in range(4):
            async with manners.turn():
                starts.append(time.monotonic())

    await asyncio.gather(go("a"), go("b"))
    starts.sort()
    assert starts[-1] - starts[0] >= 7 * delay_s - 0.05
    assert (await store.call("ZCARD", keys.crawl_host("x.example", "tokens"))) == 0


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


async def test_a_host_that_complains_is_asked_more_slowly(store: Store) -> None:
    manners = Manners(store, "limited.example", "r", 4, 0.0)
    await manners.beat()
    assert [round(await manners.pushed_back(None)) for _ in range(4)] == [1, 1, 1, 1], "one burst, one wait"
    assert await manners.pushed_back("0") == 0
    begun = time.monotonic()
    for _ in range(4):
        async with manners.turn():
            pass
    assert time.monotonic() - begun >= 1.0 + 3 * 0.05, "the wait, and then a pace"


async def test_old_jobs_are_forgotten(
    tools: Tools, store: Store, serve: Serve, new_job: NewJob, records: Records
) -> None:
    site = await serve(plain_site(2))
    over, daily, at_work = await new_job(site), await new_job(site, mode="fresh"), await new_job(site)
    for job in (over, daily):
        await job_store.apply(store, job.id, JobEvent.CANCEL)
    await Frontier(store, over.id, 10).step(Step(links=[("https://x.example/", 0)]))
    assert await job_store.forget_old(store, 1) == 0
    late = time.time_ns() // 1_000_000 + 60_000
    assert await job_store.forget_old(store, late) == 1
    left = {job.id for job in await job_store.list_jobs(store)}
    assert left == {daily.id, at_work.id}, "a daily run's job goes with its run; one that is not over stays"
    assert await store.call("EXISTS", keys.crawl(over.id, "queue"), keys.crawl(over.id, "events")) == 0


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
