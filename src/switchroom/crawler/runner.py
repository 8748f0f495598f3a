"""Runs one crawl job: discovers, reads, keeps, and stops where a login is needed."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

import msgspec
from redis.exceptions import ResponseError
from yarl import URL

from switchroom.crawler import extract, job_store, sites, urls
from switchroom.crawler.desk import Desk, Work
from switchroom.crawler.discover import Admission, why_not
from switchroom.crawler.frontier import Done, Frontier, Step
from switchroom.crawler.jar import Jar
from switchroom.crawler.job import Job, JobEvent, JobState, PageRecord, Waiting
from switchroom.crawler.marks import USE, Choice, Marks
from switchroom.crawler.output import PageFile, file_name, screenshot_name
from switchroom.crawler.page import Link
from switchroom.crawler.patience import patiently, store_is_away
from switchroom.crawler.plan import known_urls, plan, settle_trust
from switchroom.crawler.read import Reader, Reading
from switchroom.crawler.render import RenderSession
from switchroom.crawler.shelf import Shelf
from switchroom.crawler.tools import Tools
from switchroom.crawler.traps import Traps
from switchroom.crawler.walls import MOST_ALIKE, Walls
from switchroom.crawler.warc import WarcArchive
from switchroom.errors import SwitchroomError
from switchroom.net import OutboundError

log = logging.getLogger(__name__)

TRIES = 3
PATIENCE_S = 600.0
"""How long a host that is away altogether is waited for, before its pages count as failed."""
_AWAY = frozenset({"connect", "timeout", "dns", "status_502", "status_504"})
_LIMITED = frozenset({"status_429", "status_503"})
_LIMITED_TRIES = 10
_AGAIN = (
    _AWAY
    | _LIMITED
    | {"protocol", "crashed", "status_408", "status_425", "status_500"}
    | {f"status_{code}" for code in range(520, 531)}
)
_RETRY_PAUSE_S = 0.5
_LONG_CHARS = 3000
"""A page with so much text is no login page, whatever its address and forms."""
_BEAT_S = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended, as the event for the job's state."""

    event: JobEvent
    note: str = ""
    waiting: Waiting | None = None


class Crawl:
    """One process's part in a job. `run()` once; cancel its task to leave: what was under way goes back to the
    frontier. Any number of processes may run the same job."""

    def __init__(self, tools: Tools, job: Job) -> None:
        self._tools = tools
        self._job = job
        self._spec = job.spec
        self._roots = frozenset(job.spec.hosts)
        self._book = Frontier(tools.store, job.id, job.spec.max_pages, tools.runner)
        self._shelf = Shelf(tools, job)
        self._desk = Desk(tools, self._book, self._shelf, lambda: self._job.discovered)
        self._marks = Marks()
        self._old: frozenset[str] = frozenset()
        self._requests = 0
        self._jar = Jar()
        self._version = -1
        self._archive = WarcArchive(tools.output.root, job.id, tools.runner) if job.spec.warc else None
        self._reader = Reader(tools.client, self._browser_session, job.spec, self._jar, self._archive)
        self._session: RenderSession | None = None
        self._session_lock = asyncio.Lock()
        self._hosts = tools.hosts
        self._traps = Traps()
        self._admission = Admission(self._roots, self._traps)
        self._walls = Walls(tools.store, self._read, wait=job.spec.on_login_wall == "wait")
        self._resumed = False
        self._touched: set[str] = set(job.spec.hosts)
        self._read_here: set[str] = set()  # bounded by `max_pages`

    @property
    def cookies_version(self) -> int:
        """The version of the cookies that this run used last."""
        return self._version

    async def run(self) -> Outcome | None:
        """Crawl until nothing is left, a login is needed, or the task is cancelled. None where somebody else ended the
        job (paused, cancelled, another process found the wall)."""
        watcher: asyncio.Task[None] | None = None
        async with self._hosts.at_work():
            try:
                await self._load_cookies()
                await patiently(self._shelf.open)
                await patiently(self._load_marks)
                if self._spec.mode == "fresh":
                    self._old = await patiently(lambda: known_urls(self._tools.store, self._spec.hosts))
                await patiently(self._hear)
                self._resumed = (await patiently(self._book.sizes))["done"] > 0
                watcher = asyncio.create_task(self._watch(), name=f"crawl {self._job.id} watch")
                # What may have changed is found out while pages are read; the others' list is there first.
                first = self._spec.mode != "fresh" and not self._job.discovered
                if first and await patiently(self._book.may_discover):
                    await self._discover()
                async with asyncio.TaskGroup() as group:
                    discovering = group.create_task(self._discover_in_turn())
                    group.create_task(self._serve(discovering))
                    for _ in range(self._tools.workers):
                        group.create_task(self._work())
                if self._job.state != JobState.RUNNING:
                    return None
                return await patiently(self._verdict)
            finally:
                if watcher is not None:
                    watcher.cancel()
                await asyncio.shield(self._tidy())

    async def _tidy(self) -> None:
        if self._session is not None:
            await self._session.close()
        if self._archive is not None:
            await self._archive.close()
        await self._desk.flush()
        await patiently(self._book.leave)
        await self._keep_cookies()
        for host in self._touched:
            await patiently(lambda host=host: self._shelf.write_index(host))  # type: ignore[misc]

    async def _discover(self) -> None:
        async for batch in plan(self._tools, self._shelf, self._spec, self._jar):
            step = Step(links=batch.links, counts=dict(batch.counts))
            await patiently(lambda batch=batch: self._shelf.lastmods(batch.lastmods))  # type: ignore[misc]
            await patiently(lambda step=step: self._book.step(step))  # type: ignore[misc]
            self._desk.look()
        self._job = await patiently(lambda: job_store.update(self._tools.store, self._job.id, discovered=True))
        self._desk.look()

    async def _serve(self, discovering: asyncio.Task[None]) -> None:
        await self._desk.run()
        discovering.cancel()

    async def _discover_in_turn(self) -> None:
        """Read the sitemaps where the process that began with it died."""
        while not self._job.discovered and self._job.state == JobState.RUNNING:
            if await patiently(self._book.may_discover):
                await self._discover()
            else:
                await asyncio.sleep(_BEAT_S)

    async def _verdict(self) -> Outcome:
        sizes = await self._book.sizes()
        if (lost := self._walls.lost) is not None:
            return Outcome(JobEvent.WALLED, f"The session for {lost.domain} is lost; log in again.", lost)
        if sizes["walled"] and self._spec.on_login_wall == "wait":
            wall = self._walls.last
            if wall is None:
                url = (await self._book.walled_urls(1))[0]
                wall = Waiting(urls.host_of(url), url, "password_form")
            return Outcome(JobEvent.WALLED, f"{wall.domain} needs a login; post fresh cookies.", wall)
        if sizes["walled"]:
            walled = await self._book.walled_urls(sizes["walled"])
            counts = {"failed:login_wall": 1}
            done = [
                (url, Done(record=PageRecord(url=url, outcome="failed", cause="login_wall"), counts=counts))
                for url in walled
            ]
            await self._book.step(Step(done=done))
        if self._spec.mode == "fresh":
            for host in self._spec.hosts:
                await settle_trust(self._tools, self._job.id, host)
        notes = []
        if left := sizes["queued"]:
            notes.append(f"The limit of pages is reached; {left} known pages were not read.")
        if unseen := (await self._book.counts()).get("failed:browser_unavailable", 0):
            notes.append(f"{unseen} pages need a browser and none could be started; `switchroom doctor` says why.")
        return Outcome(JobEvent.DRAINED, " ".join(notes))

    # --- workers -----------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while (work := await self._desk.next()) is not None:
            step = await self._one(work)
            if self._requests:
                step.counts["requests"] = step.counts.get("requests", 0) + self._requests
                self._requests = 0
            self._desk.hand_in(work, step)
            if self._walls.lost is not None:
                self._desk.stop()

    async def _one(self, work: Work) -> Step:
        url = work.url
        if work.depth and self._traps.is_closed(url):
            return self._skipped(work, "trap")
        choice = self._marks.of(url)
        if choice.mark != "use":
            return self._skipped(work, "ignored" if choice.mark == "ignore" else "deleted")
        if self._spec.mode == "discover" and work.depth >= self._spec.depth and work.depth:
            return self._found(work)
        try:
            robots = self._hosts.known_robots(url) or await self._hosts.robots(url)
            if not robots.allows(url):
                return self._skipped(work, "robots")
            reading = await self._read(url, known=await self._to_compare(work), choice=choice)
            if reading.wall:
                return await self._walled(work, reading)
            if reading.cause == "logout_link":
                return self._skipped(work, reading.cause)
            if reading.cause == "not_found" and self._signed_in(url) and await self._walls.is_hidden(work):
                reading.wall = "hidden"
                return await self._walled(work, reading)
            if reading.cause:
                return await self._unanswered(work, reading.cause, reading.status)
            return await self._good(work, reading)
        except OutboundError as error:
            return await self._unanswered(work, error.cause)
        except SwitchroomError as error:
            if store_is_away(error):
                return Step(returned=[url])
            log.error("page cannot be read", extra={"url": url, "code": error.code, "cause": error.detail})
            return self._failed(work, error.code)
        except Exception:
            log.exception("page broke the crawler", extra={"url": url})
            return self._failed(work, "internal")

    async def _to_compare(self, work: Work) -> PageRecord | None:
        """The reading to compare with at the site. What only a browser sees may change behind the same HTML."""
        before = work.before
        if before is None or not self._spec.conditional or before.rendered:
            return None
        host = urls.bare_host(urls.host_of(before.url))
        return before if await asyncio.to_thread(self._tools.output.has, host, before.file) else None

    async def _read(
        self, url: str, *, anonymous: bool = False, known: PageRecord | None = None, choice: Choice = USE
    ) -> Reading:
        manners = self._hosts.manners(url)
        async with manners.turn():
            self._requests += 1
            reading = await self._reader.read(url, anonymous=anonymous, known=known, choice=choice)
        if reading.cause in ("status_429", "status_503"):
            wait_s = await manners.pushed_back(reading.retry_after)
            log.info("host asks for patience", extra={"host": URL(url).host, "wait_s": round(wait_s, 1)})
        elif reading.cause not in _AWAY:
            manners.answered()
        return reading

    async def _unanswered(self, work: Work, cause: str, status: int = 0) -> Step:
        """No page came: is it the page, or is the host gone that used to answer? Then it is waited for, for a while."""
        manners = self._hosts.manners(work.url)
        away = cause in _AWAY and (manners.answered_before or self._resumed)
        if not away or not await self._hosts.is_away(work.url):
            if cause in _AGAIN - _LIMITED and work.tries + 1 < TRIES:
                await asyncio.sleep(_RETRY_PAUSE_S * 2**work.tries)  # what fails now may not in a moment
            return self._failed(work, cause, status, tries=_LIMITED_TRIES if cause in _LIMITED else TRIES)
        if manners.is_away() < PATIENCE_S:
            return Step(returned=[work.url], counts={"retried": 1})
        return self._failed(work, cause, status, tries=1)

    def _failed(self, work: Work, cause: str, status: int = 0, *, tries: int = TRIES) -> Step:
        url = work.url
        if cause in _AGAIN and work.tries + 1 < tries:
            return Step(released=[url], counts={"retried": 1})
        record = PageRecord(
            url=url, outcome="failed", cause=cause, status=status, depth=work.depth, fetched_ms=_now_ms()
        )
        return Step(done=[(url, Done(record=record, counts={"failed:" + cause: 1}))])

    def _skipped(self, work: Work, cause: str, final: str = "") -> Step:
        record = PageRecord(
            url=work.url, outcome="skipped", cause=cause, depth=work.depth, fetched_ms=_now_ms(), final_url=final
        )
        return Step(done=[(work.url, Done(record=record, counts={"skipped:" + cause: 1}))])

    async def _good(self, work: Work, reading: Reading) -> Step:
        url, final = work.url, reading.url
        if reading.not_modified and work.before is not None:
            return self._not_modified(work, work.before)
        if final != url and not urls.in_scope(final, self._roots):
            return self._skipped(work, "redirected_out")
        page = reading.page
        if page is not None and page.password_form and urls.is_login_url(final) and len(page.text) < _LONG_CHARS:
            return self._skipped(work, "login_page")
        if final != url and self._signed_in(url) and await self._walls.leads_away(work, final):
            reading.wall = "leads_away"
            return await self._walled(work, reading)
        step = Step()
        if page is not None:
            if page.refresh is not None and why_not(page.refresh, "", self._roots, self._jar) is None:
                step.links.append((page.refresh, work.depth))
            if work.depth < self._spec.depth and not page.nofollow and self._spec.mode != "root":
                admitted, left = self._admission.admit(page.links, work.depth + 1, self._jar)
                step.links += [link for link in admitted if link[0] not in self._old]
                step.counts.update(left)
            if page.canonical is not None and self._spec.mode != "root" and work.depth < self._spec.depth:
                # It may be linked from nowhere else.
                step.links += self._admission.admit([Link(page.canonical, "")], work.depth + 1, self._jar)[0]
            if work.depth:  # starts and sitemaps are what somebody listed, not what links make up
                self._traps.read(url, page.text, work.depth)
                step.closed = self._traps.take_news()
            if page.canonical is not None:
                final = urls.same_page(final, page.canonical)
        text = page.text if page is not None else reading.markdown
        if final != url and final in self._read_here:
            return self._skipped(work, "duplicate", final)
        host = urls.bare_host(urls.host_of(final))
        before = work.before if final == url else await sites.site_page(self._tools.store, host, final)
        signed_in = self._signed_in(final)
        if signed_in and before is not None and await self._walls.is_soft(final, text, before, reading):
            reading.wall = "same_as_anonymous"
            return await self._walled(work, reading)
        if alike := self._walls.alike(url, text):
            return await self._walled_alike(work, reading, "same_body", alike)
        alike = self._walls.repeated(final, text) if text else []
        surely = reading.cookie_cleared or len(alike) > MOST_ALIKE
        if signed_in and (alike or surely) and await self._walls.is_everywhere(work, text, surely=surely):
            return await self._walled_alike(work, reading, "same_everywhere", alike)
        if len(alike) > MOST_ALIKE and await self._walls.is_for_any(final, text):
            return self._skipped(work, "not_a_page")
        if page is not None and not page.text and not reading.markdown.strip():
            empty = self._failed(work, "empty", reading.status)
            empty.add(step)
            return empty
        if self._spec.mode == "discover":
            found = self._found(work, reading)
            found.add(step)
            return found
        self._keep(work, final, host, before, reading, step)
        self._walls.good(host, url, text, signed_in=signed_in)
        return step

    def _found(self, work: Work, reading: Reading | None = None) -> Step:
        """A placeholder: the page is there, and was read for its links only, or not at all."""
        record = PageRecord(url=work.url, outcome="found", depth=work.depth, fetched_ms=_now_ms())
        if reading is not None:
            record = msgspec.structs.replace(record, title=reading.title, status=reading.status)
        counts = {"placeholders": 1} | ({"fetched": 1} if reading is not None else {})
        return Step(done=[(work.url, Done(record=record, counts=counts))])

    def _keep(self, work: Work, final: str, host: str, before: PageRecord | None, reading: Reading, step: Step) -> None:
        digest = extract.content_hash(reading.markdown)
        unchanged = before is not None and before.content_hash == digest
        file = before.file if before is not None and unchanged else file_name(final)
        record = PageRecord(
            url=final,
            outcome="unchanged" if unchanged else "kept",
            status=reading.status,
            depth=work.depth,
            title=reading.title,
            file=file,
            content_hash=digest,
            chars=len(reading.markdown),
            rendered=reading.rendered,
            fetched_ms=_now_ms(),
            etag=reading.etag,
            last_modified=reading.last_modified,
            screenshot=screenshot_name(file) if reading.screenshot else "",
        )
        self._desk.keep(PageFile(host, record, reading.markdown, reading.screenshot))
        self._read_here.add(final)
        self._touched.add(host)
        counts = {"fetched": 1, "unchanged" if unchanged else "kept": 1}
        if reading.rendered:
            counts["rendered"] = 1
        own = record if final == work.url else msgspec.structs.replace(record, url=work.url, final_url=final)
        step.done.append((work.url, Done(record=own, counts=counts, final=final)))

    def _not_modified(self, work: Work, before: PageRecord) -> Step:
        """The site says that the page is as it was: its reading stands, only its time is new."""
        now_ms = _now_ms()
        record = msgspec.structs.replace(before, outcome="unchanged", depth=work.depth, fetched_ms=now_ms)
        self._desk.keep(PageFile(urls.bare_host(urls.host_of(before.url)), record, ""))
        counts = {"fetched": 1, "unchanged": 1, "not_modified": 1}
        return Step(done=[(work.url, Done(record=record, counts=counts, final=work.url))])

    # --- logins ------------------------------------------------------------------------------------------------------

    async def _walled(self, work: Work, reading: Reading) -> Step:
        judged = await self._walls.judge(
            work, reading, signed_in=self._signed_in(work.url), has_cookies=self._has_cookies(work.url)
        )
        if isinstance(judged, Reading):
            return (
                await self._unanswered(work, judged.cause, judged.status)
                if judged.cause
                else await self._good(work, judged)
            )
        return judged if judged.walled else self._failed(work, "forbidden", 403)

    async def _walled_alike(self, work: Work, reading: Reading, sign: str, alike: list[str]) -> Step:
        """A wall that others, which were taken for pages, turn out to be as well."""
        await self._retract(alike)
        reading.wall = sign
        walled = await self._walled(work, reading)
        walled.walled += [other for other in alike if other not in walled.walled]
        return walled

    def _has_cookies(self, url: str) -> bool:
        return bool(len(self._jar) and self._jar.header_for(URL(url)))

    def _signed_in(self, url: str) -> bool:
        return self._has_cookies(url) or self._walls.knew_us(urls.bare_host(urls.host_of(url)))

    async def _retract(self, alike: list[str]) -> None:
        """Take out what this job kept for good before the body showed up on too many URLs."""
        await self._desk.flush()
        for url in alike:
            record = await self._book.record(url)
            if record is None or record.outcome != "kept":
                continue
            page = record.final_url or record.url
            host = urls.bare_host(urls.host_of(page))
            await self._shelf.forget(host, [page])

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
            await session.retire()
        return True

    async def _watch(self) -> None:
        """Every second: say that this runner lives, hear what became of the job, take fresh cookies."""
        while True:
            await asyncio.sleep(_BEAT_S)
            try:
                await self._hear()
                await self._load_marks()
                if self._job.state != JobState.RUNNING:
                    self._desk.stop()
                await self._keep_cookies()
                if await self._load_cookies():
                    self._walls.forget()
                    self._admission.forget()
                    again = await self._book.retry_walled()
                    log.info("fresh cookies in a running job", extra={"job_id": self._job.id, "pages_again": again})
            except (SwitchroomError, ResponseError) as error:
                log.warning("the job cannot be watched now", extra={"job_id": self._job.id, "cause": str(error)})

    async def _load_marks(self) -> None:
        for host in self._spec.hosts:
            self._marks.take(host, await self._shelf.marks(host))

    async def _hear(self) -> None:
        beat = await self._book.beat()
        self._traps.close(beat.closed)
        if beat.job:
            self._job = job_store.decode_job(beat.job)

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


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
