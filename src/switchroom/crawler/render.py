"""Pages that only JavaScript fills: a Chromium behind the guard, with a few pages that are used again and again."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Self

from playwright.async_api import Browser, BrowserContext, Page, Playwright, Response, async_playwright
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import TimeoutError as PlaywrightTimeout
from yarl import URL

from switchroom.crawler.cookies import Cookie
from switchroom.crawler.jar import Jar, browser_cookie
from switchroom.errors import Unavailable
from switchroom.net import Guard, GuardedSocks, OutboundError

log = logging.getLogger(__name__)

EXECUTABLES = (
    "/usr/bin/chromium-headless-shell",
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
)
PAGE_USES = 200  # then a page is made new: some sites leak
_QUIET_MS = 150
_SETTLE_MS = 6000
_FOLDER = resources.files("switchroom.crawler") / "browser"
_WATCH = (_FOLDER / "watch.js").read_text()
_SETTLED = (_FOLDER / "settled.js").read_text()
_COOKIES_EVERY_S = 1.0
_LAUNCH_TIMEOUT_S = 30.0
_HEAVY = [
    "*.png",
    "*.jpg",
    "*.jpeg",
    "*.gif",
    "*.webp",
    "*.avif",
    "*.svg",
    "*.ico",
    "*.woff",
    "*.woff2",
    "*.ttf",
    "*.mp4",
    "*.webm",
]


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered page: where it ended, the main answer's status, its HTML. `screenshot` is a JPEG
    of the whole page where one was asked for."""

    url: str
    status: int
    html: str
    screenshot: bytes = b""


@dataclass(slots=True)
class _Slot:
    """One browser page and how often it was used."""

    page: Page | None = None
    uses: int = 0


@dataclass(slots=True)
class _Session:
    """A browser context of one crawl with its pages, and the cookies as they were put in."""

    context: BrowserContext
    slots: asyncio.Queue[_Slot] = field(default_factory=asyncio.Queue)
    sent: dict[tuple[str, str, str], Cookie] = field(default_factory=dict)
    visible: str | None = None
    taken_at: float = 0.0
    jar_revision: int = -1
    site_sets_cookies: bool = False

    def cookies_may_be_new(self, visible: str) -> bool:
        """Whether to ask the browser for its cookies: when those that scripts see changed, on sites that set some while
        they are crawled, else now and then. Asking costs as much CPU as a tenth of a page."""
        now = time.monotonic()
        if not self.site_sets_cookies and visible == self.visible and now - self.taken_at < _COOKIES_EVERY_S:
            return False
        self.visible, self.taken_at = visible, now
        return True


def find_chromium(configured: Path | None = None) -> Path | None:
    """The browser to start: the configured one, Debian's headless shell, one on PATH; None leaves it to Playwright."""
    if configured is not None:
        return configured
    for name in EXECUTABLES:
        if found := shutil.which(name):
            return Path(found)
    return None


class BrowserPool:
    """One Chromium for all crawls of a process, started at the first page that needs it.

    All its connections go through a SOCKS server that applies `guard`. Downloads, service workers and WebRTC outside
    the proxy are off.
    """

    def __init__(self, guard: Guard, *, executable: Path | None = None, pages: int = 2) -> None:
        self._guard = guard
        self._executable = executable
        self._pages = pages
        self._playwright: Playwright | None = None
        self._browser: Browser | None = None
        self.socks: GuardedSocks | None = None
        self._starting = asyncio.Lock()
        self.gate = asyncio.Semaphore(pages)

    async def close(self) -> None:
        """End the browser."""
        async with self._starting:
            browser, self._browser = self._browser, None
            playwright, self._playwright = self._playwright, None
            socks, self.socks = self.socks, None
            try:
                async with asyncio.timeout(10):
                    if browser is not None:
                        await browser.close()
                    if playwright is not None:
                        await playwright.stop()
            except (PlaywrightError, TimeoutError) as error:
                log.warning("browser did not end in time", extra={"cause": str(error)})
            if socks is not None:
                await socks.close()

    async def browser(self) -> Browser:
        """The running browser, started where it is not. Raises `Unavailable` where none can be started."""
        async with self._starting:
            if self._browser is not None and self._browser.is_connected():
                return self._browser
            if self.socks is None:
                self.socks = await GuardedSocks(self._guard).start()
            if self._playwright is None:
                try:
                    async with asyncio.timeout(_LAUNCH_TIMEOUT_S):
                        self._playwright = await async_playwright().start()
                except Exception as error:
                    # The driver is a program of its own; what a broken one raises has no common class.
                    raise Unavailable(
                        "Playwright's driver does not start; `switchroom doctor` says what is missing.",
                        code="browser_unavailable",
                    ) from error
            executable = await asyncio.to_thread(find_chromium, self._executable)
            root = os.geteuid() == 0
            try:
                self._browser = await self._playwright.chromium.launch(
                    executable_path=executable,
                    headless=True,
                    chromium_sandbox=not root,  # Chromium refuses its sandbox as root
                    proxy={"server": f"socks5://127.0.0.1:{self.socks.port}", "bypass": "<-loopback>"},
                    timeout=_LAUNCH_TIMEOUT_S * 1000,
                    args=[
                        "--disable-dev-shm-usage",
                        "--disable-gpu",
                        "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
                        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
                    ],
                )
            except PlaywrightError as error:
                raise Unavailable(
                    "No Chromium could be started; `apt-get install chromium-headless-shell` brings one.",
                    code="browser_unavailable",
                ) from error
            log.info("browser started", extra={"executable": str(executable), "version": self._browser.version})
            return self._browser

    async def session(self, cookies: list[Cookie]) -> RenderSession:
        """A crawl's own browser context with `cookies`; `close()` it."""
        context = await self.new_context(cookies)
        return RenderSession(self, context, cookies)

    async def new_context(self, cookies: list[Cookie]) -> _Session:
        browser = await self.browser()
        context = await browser.new_context(accept_downloads=False, service_workers="block", bypass_csp=False)
        await context.add_init_script(_WATCH)
        session = _Session(context)
        for _ in range(self._pages):
            session.slots.put_nowait(_Slot())
        await _give(session, cookies)
        return session


class RenderSession:
    """The browser context of one crawl. It survives a browser that died: the next page gets a new one."""

    def __init__(self, pool: BrowserPool, session: _Session, cookies: list[Cookie]) -> None:
        self._pool = pool
        self._session = session
        self._cookies = cookies
        self._renewing = asyncio.Lock()
        self._under_way = 0
        self._retired = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the context and its pages."""
        try:
            async with asyncio.timeout(5):
                await self._session.context.close()
        except (PlaywrightError, TimeoutError):
            log.debug("browser context was gone already")

    async def retire(self) -> None:
        """Close once the pages under way are read; nobody asks for another one."""
        self._retired = True
        if self._under_way == 0:
            await self.close()

    async def render(
        self, url: str, jar: Jar, *, max_chars: int, timeout_s: float = 30.0, screenshot: bool = False
    ) -> Rendered:
        """Open `url` and wait until it has settled; what the site sets as cookies goes into `jar`.

        Raises `OutboundError` with the causes of the guarded client, and `download` and `crashed`.
        """
        self._under_way += 1
        try:
            return await self._render(url, jar, max_chars, timeout_s, screenshot)
        finally:
            self._under_way -= 1
            if self._retired and self._under_way == 0:
                await self.close()

    async def _render(self, url: str, jar: Jar, max_chars: int, timeout_s: float, screenshot: bool) -> Rendered:
        async with self._pool.gate:
            session = await self._alive()
            slot = await session.slots.get()
            refused = self._pool.socks.refused if self._pool.socks else 0
            try:
                async with asyncio.timeout(timeout_s):
                    await _renew(session, jar, url)
                    rendered, visible = await _visit(session, slot, url, timeout_s, screenshot)
                    if session.cookies_may_be_new(visible):
                        await _take_cookies(session, jar, rendered.url)
            except (TimeoutError, PlaywrightTimeout):
                await _drop(slot)
                raise OutboundError(
                    "timeout", f"The page did not load in the browser within {timeout_s:g} s."
                ) from None
            except PlaywrightError as error:
                await _drop(slot)
                guarded = self._pool.socks is not None and self._pool.socks.refused > refused
                raise _translate(error, guarded) from error
            except BaseException:
                await _drop(slot)
                raise
            finally:
                session.slots.put_nowait(slot)
        if len(rendered.html) > max_chars:
            raise OutboundError("too_large", f"The rendered page has more than {max_chars} characters.")
        return rendered

    async def _alive(self) -> _Session:
        async with self._renewing:
            browser = self._session.context.browser
            if browser is None or not browser.is_connected():
                log.warning("browser is gone, a new one is started")
                self._session = await self._pool.new_context(self._cookies)
            return self._session


async def _visit(session: _Session, slot: _Slot, url: str, timeout_s: float, screenshot: bool) -> tuple[Rendered, str]:
    if slot.page is None or slot.page.is_closed() or slot.uses >= PAGE_USES:
        await _drop(slot)
        slot.page = await _new_page(session.context, pictures=screenshot)
        slot.uses = 0
    slot.uses += 1
    page = slot.page
    answer: Response | None = await page.goto(url, wait_until="domcontentloaded", timeout=timeout_s * 1000)
    seen: dict[str, Any] = {}
    for _ in range(3):
        if page.url.startswith("chrome-error:"):
            raise PlaywrightError("the page sent itself to an address that could not be reached")
        try:
            seen = await page.evaluate(_SETTLED, [_QUIET_MS, _SETTLE_MS])
            break
        except PlaywrightError as error:
            # The page went elsewhere by itself (a client-side redirect): wait for that one.
            if "context was destroyed" not in str(error) and "navigat" not in str(error):
                raise
            await page.wait_for_load_state("domcontentloaded", timeout=timeout_s * 1000)
    picture = b""
    if screenshot:
        picture = await page.screenshot(type="jpeg", quality=60, full_page=True, timeout=timeout_s * 1000)
    status = answer.status if answer is not None else 200
    final, html = str(seen.get("url", page.url)), str(seen.get("html") or await page.content())
    rendered = Rendered(final, status, html, screenshot=picture)
    return rendered, str(seen.get("cookie", ""))


async def _new_page(context: BrowserContext, *, pictures: bool) -> Page:
    page = await context.new_page()
    page.on("dialog", _dismiss)
    page.on("popup", _close)
    cdp = await context.new_cdp_session(page)
    await cdp.send("Network.enable")
    if not pictures:
        # By the browser itself: a route of Playwright's would bring each request through Python.
        await cdp.send("Network.setBlockedURLs", {"urls": _HEAVY})
    return page


async def _dismiss(dialog: Any) -> None:
    try:
        # A page that asks whether to leave would stay, and the next one could not be opened.
        await (dialog.accept() if dialog.type == "beforeunload" else dialog.dismiss())
    except PlaywrightError:
        log.debug("dialog was gone already")


async def _close(page: Page) -> None:
    try:
        await page.close()
    except PlaywrightError:
        log.debug("page was gone already")


async def _drop(slot: _Slot) -> None:
    page, slot.page = slot.page, None
    if page is not None:
        try:
            async with asyncio.timeout(3):
                await page.close()
        except (PlaywrightError, TimeoutError):
            log.debug("page was gone already")


async def _give(session: _Session, cookies: list[Cookie]) -> None:
    """Put cookies in; where the browser refuses the lot, one by one, so that a bad one costs only itself."""
    try:
        await session.context.add_cookies([browser_cookie(cookie) for cookie in cookies])  # type: ignore[misc]
    except PlaywrightError:
        for cookie in cookies:
            try:
                await session.context.add_cookies([browser_cookie(cookie)])  # type: ignore[list-item]
            except PlaywrightError:
                log.warning("browser refused a cookie", extra={"domain": cookie.host})
    held = {(c["name"], c["domain"], c["path"]) for c in await session.context.cookies()}
    dropped = sum((cookie.name, cookie.domain, cookie.path) not in held for cookie in cookies)
    if dropped:
        log.warning("browser dropped cookies", extra={"dropped": dropped, "given": len(cookies)})
    session.sent = {(c.name, c.domain, c.path): c for c in cookies}


async def _renew(session: _Session, jar: Jar, url: str) -> None:
    """Bring what the site changed over HTTP to the browser: a session that rotates would be lost otherwise."""
    if session.jar_revision == jar.revision:
        return
    session.site_sets_cookies = session.jar_revision >= 0
    session.jar_revision = jar.revision
    for cookie in jar.matching(URL(url)):
        place = (cookie.name, cookie.domain, cookie.path)
        known = session.sent.get(place)
        if known is None or known.value != cookie.value:
            try:
                await session.context.add_cookies([browser_cookie(cookie)])  # type: ignore[list-item]
            except PlaywrightError:
                log.warning("browser refused a cookie", extra={"domain": cookie.host})
            session.sent[place] = cookie


async def _take_cookies(session: _Session, jar: Jar, url: str) -> None:
    """Bring what the site changed in the browser's jar over to ours."""
    host = URL(url).host or ""
    now = {(c["name"], c["domain"], c["path"]): c for c in await session.context.cookies([url])}
    for place, shaped in now.items():
        known = session.sent.get(place)
        expires = shaped.get("expires", -1)
        cookie = Cookie(
            name=place[0],
            value=shaped["value"],
            domain=place[1],
            path=place[2],
            expires=None if expires is None or expires < 0 else expires,
            http_only=bool(shaped.get("httpOnly")),
            secure=bool(shaped.get("secure")),
            same_site=known.same_site if known is not None else shaped.get("sameSite"),
            partition_key=known.partition_key if known is not None else None,
        )
        if known is None or known.value != cookie.value:
            session.sent[place] = cookie
            jar.put(cookie)
    for cookie in jar.matching(URL(url)):
        place = (cookie.name, cookie.domain, cookie.path)
        if place in session.sent and place not in now:
            del session.sent[place]
            jar.remove(cookie.key, host)
    session.jar_revision = jar.revision


def _translate(error: PlaywrightError, guarded: bool) -> OutboundError:
    words = str(error)
    for sign, cause, detail in (
        ("Download is starting", "download", "The address leads to a download."),
        ("ERR_ABORTED", "download", "The address leads to no page."),
        ("crashed", "crashed", "The page crashed the browser."),
        ("has been closed", "crashed", "The browser ended."),
        ("ERR_TOO_MANY_REDIRECTS", "too_many_redirects", "The page redirects in a circle."),
        ("ERR_CERT", "tls", "No trusted TLS connection could be made."),
        ("ERR_SSL", "tls", "No trusted TLS connection could be made."),
    ):
        if sign in words:
            return OutboundError(cause, detail)
    if guarded:
        return OutboundError("address_refused", "The page leads to an address that is not public.")
    return OutboundError("connect", "The browser could not reach the page.")
