"""The crawl jobs of one sidecar: starts or joins what is to be run, pauses, cancels, wakes what waits."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import Any

from switchroom.crawler import job_store
from switchroom.crawler.frontier import Frontier
from switchroom.crawler.job import FINAL, Job, JobEvent, JobSpec, JobState, Waiting
from switchroom.crawler.output import rfc3339_ms
from switchroom.crawler.patience import patiently
from switchroom.crawler.runner import Crawl, Outcome
from switchroom.crawler.tools import Tools
from switchroom.errors import Conflict, SwitchroomError
from switchroom.sidecar.alerts import Alerts
from switchroom.sidecar.cookies import CookieFile

log = logging.getLogger(__name__)

_LOOK_S = 2.0
_STOP_S = 15.0
_SWEEP_S = 600.0
_ACTIVE = frozenset({JobState.QUEUED, JobState.RUNNING})


class Jobs:
    """Runs jobs, `at_once` at most, those that other processes run already among them: a job's pages are shared by all
    that have room for it. `stop()` leaves all resumable. Jobs that are over are forgotten after `keep_ms`."""

    def __init__(
        self, tools: Tools, cookies: CookieFile, alerts: Alerts, *, at_once: int, keep_ms: int = 30 * 86_400_000
    ) -> None:
        self._tools = tools
        self._cookies = cookies
        self.alerts = alerts
        self._at_once = at_once
        self._keep_ms = keep_ms
        self._sweep_at = 0.0
        self._running: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to run what is queued, and to join what others run or left when they died."""
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Stop running; jobs under way go on at the next start, or with the other processes."""
        tasks = [task for task in (self._keeper, *self._running.values()) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_STOP_S)
            if late:
                log.error("crawl jobs did not stop in time", extra={"jobs": len(late)})

    async def create(self, spec: JobSpec) -> Job:
        """Queue a job."""
        job = await job_store.create_job(self._tools.store, spec)
        self._wake.set()
        return job

    async def at_work_on(self, host: str) -> bool:
        """Whether a job that is not over reads this host."""
        found = await job_store.list_jobs(self._tools.store, limit=1000)
        return any(host in job.spec.hosts and job.state not in FINAL for job in found)

    async def act(self, job_id: str, event: JobEvent) -> Job:
        """`pause`, `resume` or `cancel` a job; `Conflict` where its state does not allow it. Other processes hear of it
        within a second."""
        job, changed = await job_store.apply(self._tools.store, job_id, event, note=f"{event} was asked for")
        if changed and job.state in (JobState.PAUSED, JobState.CANCELLED):
            task = self._running.get(job.id)
            if task is not None:
                task.cancel()
                await asyncio.wait([task], timeout=_STOP_S)
        self._wake.set()
        return await job_store.load_job(self._tools.store, job.id)

    async def cookies_posted(self) -> list[str]:
        """Fresh cookies are there: jobs that wait for a login go on. Returns their IDs."""
        stored = await self._cookies.read()
        woken = []
        for job in await job_store.list_jobs(self._tools.store, limit=1000):
            if job.state == JobState.WAITING_LOGIN and job.cookies_version != stored.version:
                try:
                    await job_store.apply(self._tools.store, job.id, JobEvent.COOKIES, note="fresh cookies are there")
                except Conflict:
                    continue  # cancelled at this moment
                woken.append(job.id)
        if woken:
            self._wake.set()
        return woken

    async def _keep(self) -> None:
        while True:
            self._wake.clear()
            try:
                # Also cookies that another process put into the file, or that came while no sidecar ran.
                await self.cookies_posted()
                await self._take_up()
                await self._sweep()
                for job in await job_store.list_jobs(self._tools.store, limit=1000):
                    self.alerts.look(job)
            except SwitchroomError as error:
                log.warning("crawl jobs cannot be looked at now", extra={"code": error.code})
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _sweep(self) -> None:
        """Remove the records of jobs that have been over for long; what they read of sites stays."""
        now = time.monotonic()
        if now < self._sweep_at:
            return
        self._sweep_at = now + _SWEEP_S
        if gone := await job_store.forget_old(self._tools.store, time.time_ns() // 1_000_000 - self._keep_ms):
            log.info("old jobs are forgotten", extra={"jobs": gone})

    async def _take_up(self) -> None:
        for job in reversed(await job_store.list_jobs(self._tools.store, limit=1000)):
            if len(self._running) >= self._at_once:
                return
            if job.state not in _ACTIVE or job.id in self._running:
                continue
            if job.state == JobState.QUEUED:
                await Frontier(self._tools.store, job.id, job.spec.max_pages).retry_walled()
                try:
                    job, _ = await job_store.apply(self._tools.store, job.id, JobEvent.START, note="")
                except Conflict:
                    continue  # another process was first; this one joins at its next look
            task = asyncio.create_task(self._run(job), name=f"crawl {job.id}")
            self._running[job.id] = task
            task.add_done_callback(lambda _, job_id=job.id: self._ended(job_id))  # type: ignore[misc]

    def _ended(self, job_id: str) -> None:
        self._running.pop(job_id, None)
        self._wake.set()

    async def _run(self, job: Job) -> None:
        log.info("crawl begins", extra={"job_id": job.id, "hosts": list(job.spec.hosts)})
        crawl = Crawl(self._tools, job)
        outcome: Outcome | None
        try:
            outcome = await crawl.run()
        except asyncio.CancelledError:
            raise
        except SwitchroomError as error:
            log.error("crawl failed", extra={"job_id": job.id, "code": error.code}, exc_info=error)
            outcome = Outcome(JobEvent.ERROR, error.detail)
        except Exception as error:
            log.exception("crawl failed", extra={"job_id": job.id})
            outcome = Outcome(JobEvent.ERROR, _why(error))
        if outcome is None:
            return
        end = outcome
        try:
            ended, _ = await patiently(
                lambda: job_store.apply(
                    self._tools.store,
                    job.id,
                    end.event,
                    note=end.note,
                    waiting=end.waiting,
                    cookies_version=crawl.cookies_version,
                )
            )
        except Conflict:
            log.info("crawl ended after it was stopped", extra={"job_id": job.id})
            return
        log.info("crawl ends", extra={"job_id": job.id, "state": str(ended.state)})


def _why(error: BaseException) -> str:
    """What a person can do something about, from the error that ended a crawl."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, SwitchroomError):
        return error.detail
    if isinstance(error, OSError) and error.errno is not None:
        return f"Pages cannot be written to the data folder: {os.strerror(error.errno)}."
    return "The crawler met an error of its own; the log has it."


async def describe(tools: Tools, job: Job) -> dict[str, Any]:
    """A job as the API shows it: what was asked, its state, and its progress."""
    book = Frontier(tools.store, job.id, job.spec.max_pages)
    counts, sizes, runners = await asyncio.gather(book.counts(), book.sizes(), book.runners())
    active_s = (counts.get("active_ms", 0) / 1000) or None
    done = sizes["done"]
    rate = done / active_s if active_s else None
    left = min(sizes["queued"] + sizes["taken"], max(job.spec.max_pages - done, 0))
    return {
        "id": job.id,
        "state": str(job.state),
        "note": job.note,
        "urls": list(job.spec.starts),
        "hosts": list(job.spec.hosts),
        "mode": job.spec.mode,
        "collection": job.spec.collection or None,
        "depth": job.spec.depth,
        "maxPages": job.spec.max_pages,
        "render": job.spec.render,
        "onLoginWall": job.spec.on_login_wall,
        "extract": job.spec.extract,
        "images": job.spec.images,
        "warc": job.spec.warc,
        "screenshots": job.spec.screenshots,
        "webhook": job.spec.webhook or None,
        "processes": runners if job.state == JobState.RUNNING else 0,
        "createdAt": rfc3339_ms(job.created_ms),
        "startedAt": rfc3339_ms(job.started_ms) if job.started_ms else None,
        "endedAt": rfc3339_ms(job.ended_ms) if job.ended_ms else None,
        "login": None if job.waiting is None else _login(job.waiting),
        "progress": {
            "found": counts.get("found", 0),
            "queued": sizes["queued"],
            "inFlight": sizes["taken"],
            "waitingLogin": sizes["walled"],
            "done": done,
            "fetched": counts.get("fetched", 0),
            "rendered": counts.get("rendered", 0),
            "kept": counts.get("kept", 0),
            "unchanged": counts.get("unchanged", 0),
            "notModified": counts.get("not_modified", 0),
            "retried": counts.get("retried", 0),
            "failed": _group(counts, "failed:"),
            "skipped": _group(counts, "skipped:"),
            "linksLeft": _group(counts, "links_left:"),
            "pagesPerSecond": None if rate is None else round(rate, 2),
            "timeLeftS": None if not rate or job.state != JobState.RUNNING else round(left / rate, 1),
        },
    }


def _login(waiting: Waiting) -> dict[str, Any]:
    return {
        "domain": waiting.domain,
        "url": waiting.url,
        "sign": waiting.sign,
        "sessionLost": waiting.session_lost,
    }


def _group(counts: dict[str, int], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): n for name, n in sorted(counts.items()) if name.startswith(prefix)}
