"""One URL to one reading: over HTTP first, in the browser where the HTML is a shell. What it means is the runner's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
from aiohttp import hdrs
from selectolax.lexbor import LexborHTMLParser
from yarl import URL

from switchroom.crawler import extract, kinds, login_wall, pdf, urls
from switchroom.crawler.jar import Jar
from switchroom.crawler.job import JobSpec, PageRecord
from switchroom.crawler.marks import USE, Choice
from switchroom.crawler.page import Page, page_of, parsed, refresh_target
from switchroom.crawler.render import RenderSession
from switchroom.errors import SwitchroomError
from switchroom.net import Fetched, GuardedClient

log = logging.getLogger(__name__)

MAX_PAGE_BYTES = 10_000_000
MAX_PDF_BYTES = 32_000_000
FETCH_TIMEOUT_S = 30.0
RENDER_TIMEOUT_S = 30.0
_PDFS_AT_ONCE = 2
_MOST_IN_VAIN = 5
_INLINE_BYTES = 65_536
"""Pages up to this size are read on the spot, in about a millisecond; a thread's hand-over costs more than it frees."""
_MOVED = frozenset({301, 302, 303, 307, 308})
_ACCEPT = "text/html,application/xhtml+xml,application/pdf;q=0.9,text/plain;q=0.9,*/*;q=0.5"
_HEADERS: dict[str, str] = {hdrs.ACCEPT: _ACCEPT}


class Archive(Protocol):
    """Keeps answers as they came."""

    async def add(self, url: str, got: Fetched) -> None:
        """Keep what `url` answered."""


class Reading(msgspec.Struct, kw_only=True):
    """What a URL answered. `wall` is the sign of a login wall (then `markdown` is empty); `cause` why there is nothing
    to keep; `shell` why the HTML needs a browser; `not_modified` that the page is as it was,
    `cookie_cleared` that the site deleted a cookie that we had sent."""

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
    not_modified: bool = False
    cookie_cleared: bool = False
    etag: str = ""
    last_modified: str = ""
    screenshot: bytes = b""


class Reader:
    """Reads URLs for one crawl. `browser` gives the crawl's browser session, started when first needed."""

    def __init__(
        self,
        client: GuardedClient,
        browser: Callable[[], Awaitable[RenderSession]],
        spec: JobSpec,
        jar: Jar,
        archive: Archive | None = None,
    ) -> None:
        self._client = client
        self._browser = browser
        self._spec = spec
        self._archive = archive
        self.jar = jar
        # Patterns whose HTML was a shell: their pages go on to the browser without a look at the rule again.
        self._shell_patterns: set[str] = set()
        # Pages without links that had none in the browser either, in a row.
        self._vain = 0
        self._pdfs = asyncio.Semaphore(_PDFS_AT_ONCE)

    async def read(
        self, url: str, *, anonymous: bool = False, known: PageRecord | None = None, choice: Choice = USE
    ) -> Reading:
        """Read `url` with the crawl's cookies (none of them with `anonymous`). With `known` the site is asked only for
        what changed since that reading; the options of `choice` win over those of the job. Raises `OutboundError`."""
        spec = self._spec if choice is USE else _own(self._spec, choice)
        jar = Jar() if anonymous else self.jar
        host = URL(url).host or ""
        plain = urls.document_of(url)
        cleared = jar.cleared.get(host, 0)
        got = await self._client.fetch(
            plain,
            cookies=jar,
            max_bytes=MAX_PDF_BYTES if plain.lower().endswith(".pdf") else MAX_PAGE_BYTES,
            timeout_s=FETCH_TIMEOUT_S,
            headers=_HEADERS if known is None else _HEADERS | _conditions(known),
            may_follow=None if anonymous else self._may_follow,
        )
        if self._archive is not None and not anonymous:
            await self._archive.add(plain, got)
        reading = await self._analyse(plain, got, jar.cleared.get(host, 0) > cleared, spec)
        render = spec.render == "always" or (
            spec.render == "auto"
            and (
                reading.shell is not None or bool(self._shell_patterns and urls.pattern_of(url) in self._shell_patterns)
            )
        )
        if not render or anonymous or reading.wall or reading.cause or reading.page is None:
            return reading
        if reading.shell != "no_links":
            if reading.shell is not None:
                self._shell_patterns.add(urls.pattern_of(url))
            return await self._render(url, jar, host, spec)
        if self._vain >= _MOST_IN_VAIN:
            return reading
        try:
            rendered = await self._render(url, jar, host, spec)
        except SwitchroomError as error:
            log.info("page is taken as its HTML", extra={"url": url, "code": error.code})
            return reading
        if rendered.page is not None and rendered.page.links:
            self._shell_patterns.add(urls.pattern_of(url))
            self._vain = 0
        else:
            self._vain += 1
        return rendered

    async def _render(self, url: str, jar: Jar, host: str, spec: JobSpec) -> Reading:
        session = await self._browser()
        cleared = jar.cleared.get(host, 0)
        seen = await session.render(
            url, jar, max_chars=MAX_PAGE_BYTES, timeout_s=RENDER_TIMEOUT_S, screenshot=spec.screenshots
        )
        final = urls.canonical(seen.url) or url
        reading = await asyncio.to_thread(
            self._rendered, url, final, seen.status, seen.html, jar.cleared.get(host, 0) > cleared, spec
        )
        reading.screenshot = seen.screenshot
        return reading

    def _may_follow(self, target: URL) -> bool:
        """A redirect that would log us out is not followed while there is something to lose."""
        return not (urls.ends_session(str(target)) and self.jar.header_for(target))

    async def _analyse(self, asked: str, got: Fetched, cookie_cleared: bool, spec: JobSpec) -> Reading:
        final = urls.canonical(got.url) or asked
        headers = got.headers
        reading = Reading(
            url=final,
            status=got.status,
            etag=headers.get(hdrs.ETAG, "")[:500],
            last_modified=headers.get(hdrs.LAST_MODIFIED, "")[:100],
            cookie_cleared=cookie_cleared,
        )
        if got.status == 304:
            reading.not_modified = True
            return reading
        if got.status in _MOVED and hdrs.LOCATION in headers:
            reading.cause = "logout_link"  # a redirect that was not followed
            return reading
        if got.status in (429, 503):
            reading.cause = f"status_{got.status}"
            reading.retry_after = headers.get(hdrs.RETRY_AFTER)
            return reading
        if login_wall.http_auth(got.status, headers.get(hdrs.WWW_AUTHENTICATE, "")):
            reading.cause = "http_auth"
            return reading
        kind = kinds.kind_of(got.content_type, got.body)
        if kind == "html" and got.body:
            if len(got.body) <= _INLINE_BYTES and spec.extract == "page":
                self._html(reading, asked, got, cookie_cleared, spec)
            else:
                await asyncio.to_thread(self._html, reading, asked, got, cookie_cleared, spec)
            return reading
        reading.wall = login_wall.suspect(asked, final, got.status, None, cookie_cleared=cookie_cleared)
        if (
            reading.wall is None
            and got.status == 200
            and login_wall.told_to_log_in(got.body[:4000].decode("utf-8", "replace"))
        ):
            reading.wall = "asks_to_log_in"
        if reading.wall:
            return reading
        if cause := _cause(got.status):
            reading.cause = cause
        elif not got.body:
            reading.cause = "empty"
        elif kind == "pdf":
            async with self._pdfs:
                await _read_pdf(reading, got.body, final)
        elif kind == "text":
            reading.markdown = (await asyncio.to_thread(got.text)).strip() + "\n"
            reading.title = URL(final).name or final
        else:
            reading.cause = "unsupported_type"
        return reading

    def _html(self, reading: Reading, asked: str, got: Fetched, cookie_cleared: bool, spec: JobSpec) -> None:
        html = got.text()
        tree = parsed(html)
        page = page_of(tree, reading.url)
        if page.refresh is None and (sent := got.headers.get("Refresh")):
            page = msgspec.structs.replace(page, refresh=refresh_target(sent, reading.url))
        reading.page = page
        reading.title, reading.shell = page.title, page.shell
        reading.wall = login_wall.suspect(asked, reading.url, got.status, page, cookie_cleared=cookie_cleared)
        if reading.wall is None:
            reading.cause = _cause(got.status)
            if reading.cause is None:
                reading.markdown = _markdown(html, tree, reading.url, page, spec)

    def _rendered(self, asked: str, final: str, status: int, html: str, cookie_cleared: bool, spec: JobSpec) -> Reading:
        tree = parsed(html)
        page = page_of(tree, final)
        reading = Reading(
            url=final, status=status, page=page, title=page.title, rendered=True, cookie_cleared=cookie_cleared
        )
        reading.wall = login_wall.suspect(asked, final, status, page, cookie_cleared=cookie_cleared)
        if reading.wall is None and status >= 400:
            reading.cause = _cause(status)
        elif reading.wall is None:
            reading.markdown = _markdown(html, tree, final, page, spec)
        return reading


def _markdown(html: str, tree: LexborHTMLParser, url: str, page: Page, spec: JobSpec) -> str:
    if spec.extract == "article":
        found = extract.article(html, tree, url, page.title, images=spec.images)
    else:
        found = extract.document(tree, url, page.title, images=spec.images)
    # A page whose words all stand in what is left out (its footer, say) is not without words.
    return (
        found
        if len(found.strip()) > len(page.title) + 2 or not page.text
        else extract.under_title(page.text, page.title)
    )


def _own(spec: JobSpec, choice: Choice) -> JobSpec:
    """A job's options with those of one page over them."""
    return msgspec.structs.replace(
        spec,
        render=choice.render or spec.render,
        extract=choice.extract or spec.extract,
        images=spec.images if choice.images is None else choice.images,
    )


def _conditions(known: PageRecord) -> dict[str, str]:
    """The headers of a conditional request (RFC 9110 §13)."""
    asked = {hdrs.IF_NONE_MATCH: known.etag, hdrs.IF_MODIFIED_SINCE: known.last_modified}
    return {name: value for name, value in asked.items() if value}


def _cause(status: int) -> str | None:
    if status in (404, 410):
        return "not_found"
    return f"status_{status}" if status >= 300 else None


async def _read_pdf(reading: Reading, body: bytes, url: str) -> None:
    found = await pdf.read_pdf(body)
    reading.cause = found.cause or None
    if not found.cause:
        reading.title = found.title or URL(url).name or url
        reading.markdown = extract.under_title(found.markdown, reading.title)
