"""The stored jobs: created, listed, and moved from state to state, each change with its event in one script."""

from __future__ import annotations

import time
import uuid
from typing import Any

import msgspec

from switchroom.crawler.frontier import MAX_EVENTS, PARTS
from switchroom.crawler.job import FINAL, Job, JobEvent, JobSpec, JobState, Waiting, next_state
from switchroom.errors import NotFound
from switchroom.store import Script, Store, keys

_SAVE = Script("""
local job, events = unpack(KEYS)
local held = redis.call('GET', job)
local revision = 0
if held then revision = cjson.decode(held).revision or 0 end
if revision ~= tonumber(ARGV[1]) then return 0 end
redis.call('SET', job, ARGV[2])
redis.call('XADD', events, 'MAXLEN', '~', ARGV[4], '*', 'data', ARGV[3])
return 1
""")

_encode = msgspec.json.encode
_decoder = msgspec.json.Decoder(Job)


async def create_job(store: Store, spec: JobSpec) -> Job:
    """Store a new job, queued."""
    job = Job(id=str(uuid.uuid4()), spec=spec, created_ms=_now_ms(), revision=1)
    await _save(store, job, 0, {"event": "state", "state": str(job.state)})
    await store.call("ZADD", keys.crawl_jobs(), job.created_ms, job.id)
    return job


async def delete_job(store: Store, job_id: str) -> None:
    """Remove a job that is over, with its record of pages; what it kept of sites stays."""
    await store.call("ZREM", keys.crawl_jobs(), job_id)
    await store.call("DEL", *(keys.crawl(job_id, part) for part in (*PARTS, "lastmods", "changes")))


async def forget_old(store: Store, before_ms: int, most: int = 200) -> int:
    """Remove jobs that were over before `before_ms` (Unix milliseconds), `most` at once; returns how many. Those of
    Always Fresh go with the run that they belong to."""
    gone = 0
    for raw in await store.call("ZRANGE", keys.crawl_jobs(), "-inf", before_ms, "BYSCORE", "LIMIT", 0, most):
        job_id = raw.decode()
        try:
            job = await load_job(store, job_id)
        except NotFound:
            await store.call("ZREM", keys.crawl_jobs(), job_id)
            continue
        if job.state in FINAL and job.ended_ms < before_ms and job.spec.mode != "fresh":
            await delete_job(store, job_id)
            gone += 1
    return gone


def decode_job(raw: bytes) -> Job:
    """A job as it is stored."""
    return _decoder.decode(raw)


async def load_job(store: Store, job_id: str) -> Job:
    """The job; `NotFound` where there is none by that ID."""
    try:
        name = str(uuid.UUID(job_id))
    except ValueError:
        raise NotFound("There is no such crawl job.") from None
    raw = await store.call("GET", keys.crawl(name, "job"))
    if raw is None:
        raise NotFound("There is no such crawl job.")
    return decode_job(raw)


async def list_jobs(store: Store, limit: int = 100) -> list[Job]:
    """The newest jobs first."""
    ids = await store.call("ZRANGE", keys.crawl_jobs(), 0, limit - 1, "REV")
    found: list[Job] = []
    for job_id in ids:
        raw = await store.call("GET", keys.crawl(job_id.decode(), "job"))
        if raw is not None:
            found.append(decode_job(raw))
    return found


async def apply(
    store: Store,
    job_id: str,
    event: JobEvent,
    *,
    note: str | None = None,
    waiting: Waiting | None = None,
    **changes: Any,
) -> tuple[Job, bool]:
    """Take `event` on the stored job; returns it and whether its state changed.

    Two that write at once are told apart by the job's revision: the later one reads again. `Conflict` where the
    event cannot happen.
    """
    while True:
        job = await load_job(store, job_id)
        state = next_state(job.state, event)
        if state == job.state and not changes:
            return job, False
        now = _now_ms()
        changed = msgspec.structs.replace(
            job,
            state=state,
            note=job.note if note is None else note,
            waiting=waiting if state == JobState.WAITING_LOGIN else None,
            ended_ms=now if state in FINAL else 0,
            started_ms=job.started_ms or (now if state == JobState.RUNNING else 0),
            revision=job.revision + 1,
            **changes,
        )
        told: dict[str, Any] = {"event": "state", "state": str(state), "cause": str(event)}
        if note:
            told["note"] = note
        if waiting is not None and state == JobState.WAITING_LOGIN:
            told["login"] = msgspec.to_builtins(waiting)
        if await _save(store, changed, job.revision, told):
            return changed, state != job.state


async def update(store: Store, job_id: str, **changes: Any) -> Job:
    """Change fields of the stored job that are not its state."""
    while True:
        job = await load_job(store, job_id)
        changed = msgspec.structs.replace(job, revision=job.revision + 1, **changes)
        if await _save(store, changed, job.revision, {"event": "progress"}):
            return changed


async def _save(store: Store, job: Job, revision: int, event: dict[str, Any]) -> bool:
    names = [keys.crawl(job.id, "job"), keys.crawl(job.id, "events")]
    told = _encode({**event, "at": job.ended_ms or _now_ms()})
    return bool(await store.run(_SAVE, names, [revision, _encode(job), told, MAX_EVENTS]))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
