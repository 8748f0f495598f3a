"""Runs one crawl job: discovers, reads, keeps, and stops where a login is needed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass

from yarl import URL

from switchroom.crawler import extract, frontier, login_wall, urls
from switchroom.crawler.discover import admit, discover, why_not
from switchroom.crawler.frontier import Frontier, Step
from switchroom.crawler.hosts import Hosts
from switchroom.crawler.jar import Jar
from switchroom.crawler.job import Job, JobEvent, PageRecord, Waiting
from switchroom.crawler.output import rfc3339_ms
from switchroom.crawler.read import Reader, Reading
from switchroom.crawler.render import RenderSession
from switchroom.crawler.tools import Tools
from switchroom.crawler.traps import Traps
from switchroom.errors import SwitchroomError
from switchroom.net import OutboundError

log = logging.getLogger(__name__)

TRIES = 3
_AGAIN = frozenset(
    {"connect", "timeout", "protocol", "crashed", "status_429", "status_503", "status_502", "status_504"}
)
_CONFIRMED_WALLS = 3  # a host's first walls are confirmed by a second look, later ones believed
_COOKIE_LOOK_S = 1.0
_IDLE_LOOK_S = 0.25


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended, as the event for the job's state."""

    event: JobEvent
    note: str = ""
    waiting: Waiting | None = None


class Crawl:
    """One run of a job. `run()` once; cancel its task to pause: what was under way goes back to the frontier."""

    def __init__(self, tools: Tools, job: Job) -> None:
        self._tools = tools
        self._job = job
        self._spec = job.spec
        self._roots = frozenset(job.spec.hosts)
        self._frontier = Frontier(tools.store, job.id, job.spec.max_pages)
        self._jar = Jar()
        self._version = -1
        self._reader = Reader(tools.client, self._browser_session, job.spec.render, self._jar)
        self._session: RenderSession | None = None
        self._session_lock = asyncio.Lock()
        self._hosts = Hosts(tools.client, per_host=tools.per_host, delay_s=tools.delay_s)
        self._traps = Traps()
        self._same_body = login_wall.SameBody()
        self._tries: dict[str, int] = {}
        self._walls: dict[str, int] = {}
        self._last_wall: Waiting | None = None
        self._lost: Waiting | None = None
        self._signed_in_pages: deque[str] = deque(maxlen=5)
        self._touched: set[str] = set(job.spec.hosts)
        self._read_here: set[str] = set()  # bounded by `max_pages`
        self._busy = 0
        self._more = asyncio.Event()

    @property
    def cookies_version(self) -> int:
        """The version of the cookies that this run used last."""
        return self._version

    async def run(self) -> Outcome:
        """Crawl until nothing is left, a login is needed, or the task is cancelled."""
        begun = time.monotonic()
        tools = self._tools
        watcher: asyncio.Task[None] | None = None
        try:
            await self._load_cookies()
            await self._frontier.recover()
            await self._frontier.retry_walled()
            watcher = asyncio.create_task(self._watch_cookies())
            if not self._job.discovered:
                async for links, counts in discover(tools.client, self._hosts, self._spec, self._jar):
                    await self._frontier.step(Step(links=links, counts=dict(counts)))
                self._job = await frontier.update(tools.store, self._job.id, discovered=True)
            async with asyncio.TaskGroup() as group:
                for _ in range(tools.workers):
                    group.create_task(self._work())
            return await self._verdict()
        finally:
            if watcher is not None:
                watcher.cancel()
            self._hosts.close()
            await asyncio.shield(self._tidy(begun))

    async def _tidy(self, begun: float) -> None:
        if self._session is not None:
            await self._session.close()
        await self._frontier.recover()
        await self._keep_cookies()
        for host in self._touched:
            pages = await frontier.site_pages(self._tools.store, host)
            if pages:
                await asyncio.to_thread(self._tools.output.write_index, host, pages)
        active_ms = self._job.active_ms + int((time.monotonic() - begun) * 1000)
        await frontier.update(self._tools.store, self._job.id, active_ms=active_ms)

    async def _verdict(self) -> Outcome:
        sizes = await self._frontier.sizes()
        if self._lost is not None:
            return Outcome(JobEvent.WALLED, f"The session for {self._lost.domain} is lost; log in again.", self._lost)
        if sizes["walled"] and self._spec.on_login_wall == "wait":
            wall = self._last_wall
            if wall is None:
                url = (await self._frontier.walled_urls(1))[0]
                wall = Waiting(urls.host_of(url), url, "password_form")
            return Outcome(JobEvent.WALLED, f"{wall.domain} needs a login; post fresh cookies.", wall)
        if sizes["walled"]:
            walled = await self._frontier.walled_urls(sizes["walled"])
            done = [(url, PageRecord(url=url, outcome="failed", cause="login_wall")) for url in walled]
            await self._frontier.step(Step(done=done, counts={"failed:login_wall": len(done)}))
        notes = []
        if left := sizes["queued"]:
            notes.append(f"The limit of pages is reached; {left} known pages were not read.")
        if unseen := (await self._frontier.counts()).get("failed:browser_unavailable", 0):
            notes.append(f"{unseen} pages need a browser and none could be started; `switchroom doctor` says why.")
        return Outcome(JobEvent.DRAINED, " ".join(notes))

    # --- workers -----------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        step = Step()
        holding = False
        while True:
            stopping = self._lost is not None
            got = await self._frontier.step(step, take=0 if stopping else 1)
            if holding:
                self._busy -= 1
                holding = False
                self._more.set()
            step = Step()
            if got:
                self._busy += 1
                holding = True
                url, depth = got[0]
                step = await self._one(url, depth)
            elif stopping or self._busy == 0:
                self._more.set()
                return
            else:
                self._more.clear()
                try:
                    async with asyncio.timeout(_IDLE_LOOK_S):
                        await self._more.wait()
                except TimeoutError:
                    continue

    async def _one(self, url: str, depth: int) -> Step:
        if depth and self._traps.is_closed(url):
            return self._skipped(url, depth, "trap")
        try:
            robots = await self._hosts.robots(url)
            if not robots.allows(url):
                return self._skipped(url, depth, "robots")
            reading = await self._read(url)
        except OutboundError as error:
            return self._failed(url, depth, error.cause)
        except SwitchroomError as error:
            log.error("page cannot be read", extra={"url": url, "code": error.code, "cause": error.detail})
            return self._failed(url, depth, error.code)
        except Exception:
            log.exception("page broke the crawler", extra={"url": url})
            return self._failed(url, depth, "internal")
        if reading.wall:
            return await self._walled(url, depth, reading)
        if reading.cause:
            return self._failed(url, depth, reading.cause, reading.status)
        return await self._good(url, depth, reading)

    async def _read(self, url: str, *, anonymous: bool = False) -> Reading:
        manners = self._hosts.manners(url)
        async with manners.turn():
            reading = await self._reader.read(url, anonymous=anonymous)
        if reading.cause in ("status_429", "status_503"):
            wait_s = manners.pushed_back(reading.retry_after)
            log.info("host asks for patience", extra={"host": URL(url).host, "wait_s": round(wait_s, 1)})
        else:
            manners.answered()
        return reading

    def _failed(self, url: str, depth: int, cause: str, status: int = 0) -> Step:
        tries = self._tries[url] = self._tries.get(url, 0) + 1
        if cause in _AGAIN and tries < TRIES:
            return Step(released=[url], counts={"retried": 1})
        self._tries.pop(url, None)
        record = PageRecord(url=url, outcome="failed", cause=cause, status=status, depth=depth, fetched_ms=_now_ms())
        return Step(done=[(url, record)], counts={"failed:" + cause: 1}, events=[_told(record)])

    def _skipped(self, url: str, depth: int, cause: str) -> Step:
        record = PageRecord(url=url, outcome="skipped", cause=cause, depth=depth, fetched_ms=_now_ms())
        return Step(done=[(url, record)], counts={"skipped:" + cause: 1}, events=[_told(record)])

    async def _good(self, url: str, depth: int, reading: Reading) -> Step:
        if not urls.in_scope(reading.url, self._roots):
            return self._skipped(url, depth, "redirected_out")
        page = reading.page
        if page is not None and page.password_form and urls.is_login_url(reading.url):
            return self._skipped(url, depth, "login_page")
        counts = {"fetched": 1}
        if reading.rendered:
            counts["rendered"] = 1
        links: list[tuple[str, int]] = []
        if page is not None:
            if page.refresh is not None and why_not(page.refresh, "", self._roots, self._jar) is None:
                links.append((page.refresh, depth))
            if depth < self._spec.depth and not page.nofollow:
                admitted, left = admit(page.links, depth + 1, self._roots, self._jar, self._traps)
                links += admitted
                counts.update(left)
            if depth:  # starts and sitemaps are what somebody listed, not what links make up
                self._traps.read(url, page.text)
        text = page.text if page is not None else reading.markdown
        final = _same_page(reading.url, page.canonical if page is not None else None)
        if final != url and final in self._read_here:
            return self._skipped(url, depth, "duplicate")
        host = urls.bare_host(urls.host_of(final))
        before = await frontier.site_page(self._tools.store, host, final)
        if await self._is_soft_wall(url, final, text, before, reading):
            return await self._walled(url, depth, reading)
        if alike := self._same_body.add(url, text):
            await self._retract(alike)
            reading.wall = "same_body"
            step = await self._walled(url, depth, reading)
            step.walled += [other for other in alike if other not in step.walled]
            return step
        return await self._keep(url, depth, final, host, before, reading, Step(links=links, counts=counts))

    async def _keep(
        self, url: str, depth: int, final: str, host: str, before: PageRecord | None, reading: Reading, step: Step
    ) -> Step:
        digest = extract.content_hash(reading.markdown)
        unchanged = before is not None and before.content_hash == digest
        now_ms = _now_ms()
        file = before.file if before is not None and unchanged else ""
        if not file or not await asyncio.to_thread((self._tools.output.folder(host) / file).exists):
            text = extract.front_matter(
                reading.markdown,
                url=final,
                title=reading.title,
                fetched_at=rfc3339_ms(now_ms),
                rendered=reading.rendered,
            )
            file = await asyncio.to_thread(self._tools.output.write_page, host, final, text)
        record = PageRecord(
            url=final,
            outcome="unchanged" if unchanged else "kept",
            status=reading.status,
            depth=depth,
            title=reading.title,
            file=file,
            content_hash=digest,
            chars=len(reading.markdown),
            rendered=reading.rendered,
            final_url=final if final != url else "",
            fetched_ms=now_ms,
        )
        await frontier.keep_site_page(self._tools.store, host, record)
        self._read_here.add(final)
        self._touched.add(host)
        self._walls.pop(host, None)
        if self._jar.header_for(URL(final)):
            self._signed_in_pages.append(url)
        step.done.append((url, record))
        step.counts["unchanged" if unchanged else "kept"] = 1
        step.events.append(_told(record))
        return step

    # --- logins ------------------------------------------------------------------------------------------------------

    async def _is_soft_wall(self, url: str, final: str, text: str, before: PageRecord | None, reading: Reading) -> bool:
        """A page that would replace good content and speaks of a login: is it what anybody gets to see?"""
        if before is None or not login_wall.speaks_of_login(text) or not self._jar.header_for(URL(final)):
            return False
        if before.content_hash == extract.content_hash(reading.markdown):
            return False
        try:
            anonymous = await self._read(url, anonymous=True)
        except OutboundError:
            return False
        if anonymous.markdown != reading.markdown:
            return False
        reading.wall = "same_as_anonymous"
        return True

    async def _walled(self, url: str, depth: int, reading: Reading) -> Step:
        host = urls.bare_host(urls.host_of(url))
        sign = reading.wall or "password_form"
        signed_in = bool(self._jar.header_for(URL(url)))
        seen = self._walls[host] = self._walls.get(host, 0) + 1
        if seen <= _CONFIRMED_WALLS and sign not in ("same_body", "same_as_anonymous"):
            again = await self._second_look(url)
            if again is not None and not again.wall:
                self._walls[host] -= 1
                return self._failed(url, depth, again.cause) if again.cause else await self._good(url, depth, again)
        lost = signed_in and await self._session_lost(url, host, sign)
        if sign == "status_403" and signed_in and not lost:
            return self._failed(url, depth, "forbidden", 403)
        waiting = Waiting(urls.host_of(url), url, sign, session_lost=lost)
        self._last_wall = waiting
        told = {"event": "login_wall", "domain": waiting.domain, "url": url, "sign": sign, "session_lost": lost}
        if lost and self._spec.on_login_wall == "wait":
            log.warning("session lost", extra={"domain": waiting.domain, "sign": sign})
            self._lost = waiting
        return Step(walled=[url], counts={"login_walls": 1}, events=[told])

    async def _second_look(self, url: str) -> Reading | None:
        try:
            return await self._read(url)
        except SwitchroomError as error:
            log.debug("second look at a login wall failed", extra={"url": url, "code": error.code})
            return None

    async def _session_lost(self, url: str, host: str, sign: str) -> bool:
        """Whether a wall in spite of cookies means that the session is gone, not just that this page needs more.

        It is when the site took our cookie away, when the page was good before, or when one that was good a moment ago
        shows the wall now too.
        """
        if sign == "cookie_cleared" or await frontier.site_page(self._tools.store, host, url) is not None:
            return True
        beside = URL(url).parent
        known = sorted(self._signed_in_pages, key=lambda page: URL(page).parent != beside)
        for page in known[:2]:
            again = await self._second_look(page)
            if again is not None and again.wall:
                return True
        return False

    async def _retract(self, alike: list[str]) -> None:
        """Take out what this job kept for good before the body showed up on too many URLs."""
        for url in alike:
            record = await self._frontier.record(url)
            if record is None or record.outcome != "kept":
                continue
            host = urls.bare_host(urls.host_of(record.url))
            await frontier.forget_site_pages(self._tools.store, host, [record.url])
            await asyncio.to_thread(self._tools.output.remove_page, host, record.file)

    # --- cookies -----------------------------------------------------------------------------------------------------

    async def _load_cookies(self) -> bool:
        stored = await self._tools.cookies.read()
        if stored.version == self._version:
            return False
        self._version = stored.version
        self._jar = self._reader.jar = Jar(stored.cookies)
        async with self._session_lock:
            session, self._session = self._session, None
        if session is not None:
            await session.close()
        return True

    async def _watch_cookies(self) -> None:
        while True:
            await asyncio.sleep(_COOKIE_LOOK_S)
            try:
                await self._keep_cookies()
                if await self._load_cookies():
                    self._walls.clear()
                    again = await self._frontier.retry_walled()
                    log.info("fresh cookies in a running job", extra={"job_id": self._job.id, "pages_again": again})
                    self._more.set()
            except SwitchroomError as error:
                log.warning("cookies cannot be read now", extra={"code": error.code})

    async def _keep_cookies(self) -> None:
        if changes := self._jar.take_changes():
            await self._tools.cookies.refresh(self._version, changes)

    async def _browser_session(self) -> RenderSession:
        async with self._session_lock:
            if self._session is None:
                # A browser holds some 3,300 cookies and drops the oldest: ours of this site go in last.
                ours = [host.partition(":")[0] for host in self._roots]
                cookies = sorted(self._jar.all(), key=lambda cookie: any(host.endswith(cookie.host) for host in ours))
                self._session = await self._tools.browsers.session(cookies)
            return self._session


def _same_page(url: str, canonical: str | None) -> str:
    """The canonical address where it only tidies the URL (query, slash, index file, scheme), else the URL itself: sites
    that name their home page as canonical of everything are common."""
    if canonical is None or canonical == url:
        return url
    here, there = URL(url), URL(canonical)
    same_host = urls.bare_host(urls.host_of(url)) == urls.bare_host(urls.host_of(canonical))
    tidy = [path.removesuffix("index.html").removesuffix("index.php").rstrip("/") for path in (here.path, there.path)]
    return canonical if same_host and tidy[0] == tidy[1] else url


def _told(record: PageRecord) -> dict[str, object]:
    told: dict[str, object] = {
        "event": "page",
        "url": record.url,
        "outcome": record.outcome,
        "rendered": record.rendered,
    }
    return told | ({"cause": record.cause} if record.cause else {"title": record.title})


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
