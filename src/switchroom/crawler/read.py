"""One URL to one reading: over HTTP first, in the browser where the HTML is a shell. What it means is the runner's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import hdrs
from yarl import URL

from switchroom.crawler import extract, login_wall, urls
from switchroom.crawler.jar import Jar
from switchroom.crawler.job import RenderMode
from switchroom.crawler.page import Page, read_page
from switchroom.crawler.render import RenderSession
from switchroom.net import Fetched, GuardedClient

MAX_PAGE_BYTES = 10_000_000
FETCH_TIMEOUT_S = 30.0
RENDER_TIMEOUT_S = 30.0
_HTML = frozenset({"text/html", "application/xhtml+xml", ""})
_TEXT = frozenset({"text/plain", "text/markdown", "text/x-markdown"})


class Reading(msgspec.Struct, kw_only=True):
    """What a URL answered. `wall` is the sign of a login wall (then `markdown` is empty); `cause` why there is nothing
    to keep; `shell` why the HTML needs a browser."""

    url: str
    status: int
    page: Page | None = None
    markdown: str = ""
    title: str = ""
    rendered: bool = False
    wall: str | None = None
    cause: str | None = None
    shell: str | None = None
    retry_after: str | None = None


class Reader:
    """Reads URLs for one crawl. `browser` gives the crawl's browser session, started when first needed."""

    def __init__(
        self, client: GuardedClient, browser: Callable[[], Awaitable[RenderSession]], mode: RenderMode, jar: Jar
    ) -> None:
        self._client = client
        self._browser = browser
        self._mode = mode
        self.jar = jar
        # Patterns whose HTML was a shell: their pages go on to the browser without a look at the rule again.
        self._shell_patterns: set[str] = set()

    async def read(self, url: str, *, anonymous: bool = False) -> Reading:
        """Read `url` with the crawl's cookies (none of them with `anonymous`). Raises `OutboundError`."""
        jar = Jar() if anonymous else self.jar
        host = URL(url).host or ""
        cleared = jar.cleared.get(host, 0)
        got = await self._client.fetch(
            url,
            cookies=jar,
            max_bytes=MAX_PAGE_BYTES,
            timeout_s=FETCH_TIMEOUT_S,
            headers={hdrs.ACCEPT: "text/html,application/xhtml+xml,text/plain;q=0.9,*/*;q=0.5"},
        )
        reading = await asyncio.to_thread(_analyse, url, got, jar.cleared.get(host, 0) > cleared)
        render = self._mode == "always" or (
            self._mode == "auto" and (reading.shell is not None or urls.pattern_of(url) in self._shell_patterns)
        )
        if not render or anonymous or reading.wall or reading.cause or reading.page is None:
            return reading
        if reading.shell is not None:
            self._shell_patterns.add(urls.pattern_of(url))
        session = await self._browser()
        cleared = jar.cleared.get(host, 0)
        seen = await session.render(url, jar, max_chars=MAX_PAGE_BYTES, timeout_s=RENDER_TIMEOUT_S)
        final = urls.canonical(seen.url) or url
        return await asyncio.to_thread(
            _rendered, url, final, seen.status, seen.html, jar.cleared.get(host, 0) > cleared
        )


def _analyse(asked: str, got: Fetched, cookie_cleared: bool) -> Reading:
    final = urls.canonical(got.url) or asked
    reading = Reading(url=final, status=got.status, retry_after=got.headers.get(hdrs.RETRY_AFTER))
    if got.status in (429, 503):
        reading.cause = f"status_{got.status}"
        return reading
    if login_wall.http_auth(got.status, got.headers.get(hdrs.WWW_AUTHENTICATE, "")):
        reading.cause = "http_auth"
        return reading
    kind = got.content_type
    if kind in _HTML and got.body:
        html = got.text()
        reading.page = read_page(html, final)
        reading.title = reading.page.title
        reading.shell = reading.page.shell
    reading.wall = login_wall.suspect(asked, final, got.status, reading.page, cookie_cleared=cookie_cleared)
    if reading.wall:
        return reading
    if got.status in (404, 410):
        reading.cause = "not_found"
    elif got.status >= 300:
        reading.cause = f"status_{got.status}"
    elif reading.page is not None:
        reading.markdown = extract.to_markdown(html, final, reading.title)
    elif kind in _TEXT:
        reading.markdown = got.text().strip() + "\n"
        reading.title = URL(final).name or final
    elif not got.body:
        reading.cause = "empty"
    else:
        reading.cause = "unsupported_type"
    return reading


def _rendered(asked: str, final: str, status: int, html: str, cookie_cleared: bool) -> Reading:
    page = read_page(html, final)
    reading = Reading(url=final, status=status, page=page, title=page.title, rendered=True)
    reading.wall = login_wall.suspect(asked, final, status, page, cookie_cleared=cookie_cleared)
    if reading.wall is None and status >= 400:
        reading.cause = f"status_{status}"
    elif reading.wall is None:
        reading.markdown = extract.to_markdown(html, final, page.title)
    return reading
