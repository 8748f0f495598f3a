"""Always Fresh: once a day, at a time of the server's own clock, every site is looked at for what changed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from datetime import time as Time
from typing import Any, Literal
from zoneinfo import ZoneInfo

import msgspec

from switchroom.crawler import job_store, sites
from switchroom.crawler.adopt import adopt
from switchroom.crawler.frontier import Frontier
from switchroom.crawler.job import FINAL, Job, JobSpec, JobState
from switchroom.crawler.output import LOCAL_PDF, rfc3339_ms
from switchroom.crawler.shelf import Change
from switchroom.crawler.tools import Tools
from switchroom.errors import BadInput, Fault, NotFound, SwitchroomError
from switchroom.sidecar.jobs import Jobs
from switchroom.store import keys

log = logging.getLogger(__name__)

MAX_RUNS = 120
_MOST_S = 60.0
_LATE_S = 3_600.0
"""A run that no sidecar was there for is made up for within so long."""
_DAY_LOCK_MS = 3 * 86_400_000
_FRESH_PAGES = 500_000


class FreshRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run over some sites: a job each; `skipped` names sites that another job is at, with the job's state."""

    id: str
    trigger: Literal["schedule", "person"]
    started_ms: int
    jobs: dict[str, str]
    skipped: dict[str, str] = {}


class Freshness:
    """The schedule and its runs. `at` is the time of day (None: only by hand), in `zone` or, where that is None, in the
    server's own time zone."""

    def __init__(self, tools: Tools, jobs: Jobs, *, at: Time | None, zone: ZoneInfo | None) -> None:
        self._tools = tools
        self._store = tools.store
        self._jobs = jobs
        self.at = at
        self.zone = zone
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to keep the time."""
        if self.at is not None:
            self._task = asyncio.create_task(self._keep(), name="always fresh")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def next_run(self, now_s: float | None = None) -> float | None:
        """When the next run is due, as Unix seconds. A time that the clock leaps over in spring counts as the same time
        by the clock from before; one that comes twice in autumn, as the first."""
        if self.at is None:
            return None
        now = time.time() if now_s is None else now_s
        today = datetime.fromtimestamp(now, self.zone).date()
        for ahead in range(-1, 3):
            due = self._due_s(today + timedelta(days=ahead))
            if due > now:
                return due
        raise AssertionError("no day of the next three has that time")

    def _due_s(self, day: Any) -> float:
        assert self.at is not None
        return datetime.combine(day, self.at, self.zone).timestamp()

    async def _keep(self) -> None:
        while True:
            try:
                await self._run_due()
            except SwitchroomError as error:
                log.warning("always fresh cannot run now", extra={"code": error.code})
            due = self.next_run()
            assert due is not None
            # In steps: the clock of a machine that slept, or was set, is looked at again.
            await asyncio.sleep(min(max(due - time.time(), 0.05), _MOST_S))

    async def _run_due(self) -> None:
        now = time.time()
        today = datetime.fromtimestamp(now, self.zone).date()
        for day in (today - timedelta(days=1), today):
            due = self._due_s(day)
            if 0 <= now - due < _LATE_S:
                name = keys.crawl_fresh_day(f"{day.isoformat()}T{self.at:%H:%M}")
                if await self._store.call("SET", name, "1", "NX", "PX", _DAY_LOCK_MS):
                    await self.run("schedule")

    async def run(self, trigger: Literal["schedule", "person"], hosts: Sequence[str] = ()) -> FreshRun:
        """Look at all sites now, or at `hosts`. Raises `NotFound` for a host that is no site."""
        jobs: dict[str, str] = {}
        skipped: dict[str, str] = {}
        if not hosts:
            await self.adopt()
        under_way = await self._under_way()
        for host in hosts or await sites.all_sites(self._store):
            if host == LOCAL_PDF:
                if hosts:
                    raise BadInput("Local_PDF has no site to look at; `/crawl/sites/local_pdf/look` reads its folder.")
                continue
            spec = await sites.spec_of(self._store, host)
            if not hosts and not await sites.is_fresh(self._store, host):
                continue
            if (job := under_way.get(host)) is not None:
                skipped[host] = str(job.state)
                continue
            jobs[host] = (await self._jobs.create(_fresh(spec))).id
        run = FreshRun(
            id=str(uuid.uuid4()),
            trigger=trigger,
            started_ms=time.time_ns() // 1_000_000,
            jobs=jobs,
            skipped=skipped,
        )
        await self._store.call("SET", keys.crawl_fresh_run(run.id), msgspec.json.encode(run))
        await self._store.call("ZADD", keys.crawl_fresh_runs(), run.started_ms, run.id)
        await self._forget_old()
        log.info("always fresh begins", extra={"run_id": run.id, "sites": len(jobs), "skipped": len(skipped)})
        return run

    async def _forget_old(self) -> None:
        for name in await self._store.call("ZRANGE", keys.crawl_fresh_runs(), 0, -MAX_RUNS - 1):
            with contextlib.suppress(NotFound):  # a process died in the middle of this
                for job_id in (await self.load(name.decode())).jobs.values():
                    await job_store.delete_job(self._store, job_id)
            await self._store.call("DEL", keys.crawl_fresh_run(name.decode()))
            await self._store.call("ZREM", keys.crawl_fresh_runs(), name)

    async def adopt(self) -> dict[str, str]:
        """Make sites of folders with a sitemap; returns the job that reads the pages of each."""
        return {spec.hosts[0]: (await self._jobs.create(spec)).id for spec in await adopt(self._tools)}

    async def _under_way(self) -> dict[str, Job]:
        found: dict[str, Job] = {}
        for job in await job_store.list_jobs(self._store, limit=1000):
            if job.spec.mode in ("fresh", "root") and job.state not in FINAL:
                found |= dict.fromkeys(job.spec.hosts, job)
        return found

    async def runs(self, limit: int) -> list[FreshRun]:
        """The newest runs first."""
        names = await self._store.call("ZRANGE", keys.crawl_fresh_runs(), 0, limit - 1, "REV")
        found = [await self._store.call("GET", keys.crawl_fresh_run(name.decode())) for name in names]
        return [msgspec.json.decode(raw, type=FreshRun) for raw in found if raw is not None]

    async def load(self, run_id: str) -> FreshRun:
        """One run; `NotFound` where there is none by that ID."""
        raw = await self._store.call("GET", keys.crawl_fresh_run(run_id)) if len(run_id) == 36 else None
        if raw is None:
            raise NotFound("There is no such run.", code="run_not_found")
        return msgspec.json.decode(raw, type=FreshRun)

    async def report(self, run: FreshRun) -> dict[str, Any]:
        """What a run found, a site at a time and in all; `state` is `running`, `waiting` (for a login) or `done`."""
        rows = {host: await self._site(job_id) for host, job_id in run.jobs.items()}
        states = {row["state"] for row in rows.values()}
        ended = [row["endedAt"] for row in rows.values()]
        over = states <= {str(state) for state in FINAL}
        waiting = str(JobState.WAITING_LOGIN) in states or str(JobState.PAUSED) in states
        sums: Counter[str] = Counter()
        for row in rows.values():
            sums.update({name: row[name] for name in _SUMS})
        return {
            "id": run.id,
            "trigger": run.trigger,
            "state": "done" if over else "waiting" if waiting and not states & {"running", "queued"} else "running",
            "startedAt": rfc3339_ms(run.started_ms),
            "endedAt": max(filter(None, ended), default=rfc3339_ms(run.started_ms)) if over else None,
            **{name: sums[name] for name in _SUMS},
            "sites": rows,
            "skipped": run.skipped,
        }

    async def _site(self, job_id: str) -> dict[str, Any]:
        job = await job_store.load_job(self._store, job_id)
        counts = await Frontier(self._store, job_id, job.spec.max_pages).counts()
        plan = {name.removeprefix("plan:"): count for name, count in counts.items() if name.startswith("plan:")}
        failed = {name.removeprefix("failed:"): count for name, count in counts.items() if name.startswith("failed:")}
        raw = await self._store.call("LRANGE", keys.crawl(job_id, "changes"), 0, -1)
        kinds = Counter(msgspec.json.decode(row, type=Change).kind for row in raw)
        return {
            "job": job_id,
            "state": str(job.state),
            "note": job.note,
            "endedAt": rfc3339_ms(job.ended_ms) if job.ended_ms else None,
            "requests": counts.get("requests", 0),
            "vouched": plan.pop("vouched", 0),
            "asked": plan,
            "notModified": counts.get("not_modified", 0),
            "unchanged": counts.get("unchanged", 0),
            **{name: kinds[name] for name in ("new", "changed", "back", "gone", "moved", "removed")},
            "failed": sum(failed.values()),
            "failedBy": failed,
        }


_SUMS = (
    "requests",
    "vouched",
    "notModified",
    "unchanged",
    "new",
    "changed",
    "back",
    "gone",
    "moved",
    "removed",
    "failed",
)


def _fresh(spec: JobSpec) -> JobSpec:
    """A site's own job, to look for what changed."""
    return msgspec.structs.replace(
        spec, mode="fresh", conditional=True, max_pages=_FRESH_PAGES, warc=False, screenshots=False
    )


async def changes_of(tools: Tools, job_id: str, offset: int, limit: int) -> tuple[list[Change], int]:
    """What a job found different, in the order in which it did, and how much in all."""
    name = keys.crawl(job_id, "changes")
    raw = await tools.store.call("LRANGE", name, offset, offset + limit - 1)
    return [msgspec.json.decode(row, type=Change) for row in raw], int(await tools.store.call("LLEN", name))


def time_of_day(text: str) -> Time:
    """`HH:MM` as a time; `BadInput` for anything else."""
    try:
        return datetime.strptime(text.strip(), "%H:%M").time()
    except ValueError:
        raise BadInput(f"{text!r} is no time of day like 03:30.", faults=[Fault("is no time like 03:30", "")]) from None
