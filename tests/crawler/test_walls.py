"""Sessions that end in the middle of a crawl, in every way in which sites say so: noticed, waited for, nothing missed.

`pytest -s` prints what became of each.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from switchroom.crawler import job_store
from switchroom.crawler.cookies import Cookie
from switchroom.crawler.frontier import Frontier
from switchroom.crawler.job import Job, JobEvent, PageRecord
from switchroom.crawler.runner import Crawl
from switchroom.crawler.tools import Tools

Serve = Callable[[web.Application], Awaitable[TestServer]]
NewJob = Callable[..., Awaitable[Job]]
Records = Callable[[Job], Awaitable[dict[str, PageRecord]]]

MEMBERS = [f"bills/{number}" for number in range(9)]
ARTICLES = ["help/how-to-log-out", "help/delete-an-account"]
WAYS_OUT = ["bye", "x/9", "log-me-out", "do?cmd=delete&id=7", "account/close"]
PAGE = "text/html"


class Portal:
    """Shows bills to whoever has the cookie, until `lasts` of them were shown; then answers as `manner` says."""

    def __init__(self, manner: str) -> None:
        self.manner = manner
        self.session = "one"
        self.lasts = 4
        self.followed: list[str] = []

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.Response:
        path = request.path_qs.removeprefix("/")
        if path in ("robots.txt", "sitemap.xml", "sitemap_index.xml"):
            raise web.HTTPNotFound
        if path in WAYS_OUT:
            self.followed.append(path)
        if path == "":
            words = {"bye": "Log out", "x/9": "Delete this entry", "account/close": "Close"}
            links = [*MEMBERS, *ARTICLES, *WAYS_OUT]
            listed = "".join(f'<a href="/{link}">{words.get(link, "Read")}</a> ' for link in links)
            return web.Response(text=f"<title>Portal</title><p>What you find here.</p>{listed}", content_type=PAGE)
        signed_in = request.cookies.get("session") == self.session
        if signed_in and path in MEMBERS:
            self.lasts -= 1
            if self.lasts < 0:
                self.session, signed_in = "ended", False
        if signed_in or path in ARTICLES:
            text = f"<title>{path}</title><p>What stands on the page {path}, for those who may.</p>"
            return web.Response(text=text, content_type=PAGE)
        return self._gate(path)

    def _gate(self, path: str) -> web.Response:
        guest = "<title>Portal</title><p>Good morning, guest of ours, the weather is fine.</p>"
        match self.manner:
            case "led home, cookie deleted":
                answer = web.Response(status=302, headers={"Location": "/"})
                answer.del_cookie("session")
                return answer
            case "led home":
                return web.Response(status=302, headers={"Location": "/"})
            case "led to a gate that knows where from":
                if path.startswith("welcome"):
                    return web.Response(text="<p>Who are you?</p><form><input type=email></form>", content_type=PAGE)
                return web.Response(status=303, headers={"Location": f"/welcome?back=%2F{path.replace('/', '%2F')}"})
            case "not found":
                return web.Response(status=404, text="<p>There is no such page.</p>", content_type=PAGE)
            case "one page for all, without a word of logins":
                return web.Response(text=guest, content_type=PAGE)
            case "data":
                return web.json_response({"error": "login"})
            case "Refresh header":
                return web.Response(text="<p>…</p>", content_type=PAGE, headers={"Refresh": "0; url=/login"})
        raise AssertionError(self.manner)


@pytest.mark.parametrize(
    "manner",
    [
        "led home, cookie deleted",
        "led home",
        "led to a gate that knows where from",
        "not found",
        "one page for all, without a word of logins",
        "data",
        "Refresh header",
    ],
)
async def test_a_session_that_ends_is_noticed_and_nothing_is_missed(
    manner: str, tools: Tools, serve: Serve, new_job: NewJob, records: Records, cookies: object
) -> None:
    portal = Portal(manner)
    site = await serve(portal.app())
    cookies.cookies = tuple(  # type: ignore[attr-defined]
        Cookie(name=name, value="one", domain="127.0.0.1") for name in ("session", "language")
    )
    job = await new_job(site)
    outcome = await Crawl(tools, job).run()
    assert outcome is not None
    assert outcome.event == JobEvent.WALLED, await records(job)
    assert outcome.waiting is not None
    print(f"{manner:44} {outcome.waiting.sign:20} {outcome.note}")
    assert outcome.waiting.session_lost

    portal.session, portal.lasts = "two", 100
    cookies.version, cookies.cookies = 2, (Cookie(name="session", value="two", domain="127.0.0.1"),)  # type: ignore[attr-defined]
    await Frontier(tools.store, job.id, 1000).retry_walled()
    outcome = await Crawl(tools, await job_store.load_job(tools.store, job.id)).run()
    assert outcome is not None
    assert outcome.event == JobEvent.DRAINED
    fates = {path: record.outcome for path, record in (await records(job)).items()}
    assert fates == dict.fromkeys(["", *MEMBERS, *ARTICLES], "kept")
    assert portal.followed == []
