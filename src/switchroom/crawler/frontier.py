"""A job's durable frontier: which URLs wait, which are taken, which met a login wall, what became of the others.

One script call a page: it finishes a URL, adds the links found on it, counts, tells the event stream and takes the next
URL, all or nothing. URLs are taken under a lease, so what a dead process held comes back.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from switchroom.crawler.job import Job, JobEvent, JobSpec, JobState, PageRecord, Waiting, next_state
from switchroom.errors import NotFound
from switchroom.store import Script, Store, keys

LEASE_MS = 900_000  # longer than a page with its retries and the longest wait that a host may ask for
MAX_EVENTS = 5000

_STEP = Script("""
local queue, taken, walled, seen, pages, stats, events = unpack(KEYS)
local p = cmsgpack.unpack(ARGV[1])
local function count(name, n) redis.call('HINCRBY', stats, name, n) end
local function back(url)
  local depth = tonumber(redis.call('HGET', seen, url) or 0)
  redis.call('ZADD', queue, depth * 1e10 + redis.call('HINCRBY', stats, 'seq', 1), url)
end
for _, url in ipairs(p.released) do
  if redis.call('ZREM', taken, url) == 1 then back(url) end
end
for _, url in ipairs(p.walled) do
  if redis.call('ZREM', taken, url) == 1 or redis.call('HEXISTS', pages, url) == 1 then
    redis.call('HDEL', pages, url)
    redis.call('ZADD', walled, p.now, url)
  end
end
for _, done in ipairs(p.done) do
  redis.call('ZREM', taken, done.url)
  redis.call('ZREM', walled, done.url)
  redis.call('HSET', pages, done.url, done.record)
end
for name, n in pairs(p.counts) do count(name, n) end
local known = redis.call('HLEN', seen)
for _, link in ipairs(p.links) do
  if redis.call('HEXISTS', seen, link[1]) == 0 then
    if known >= p.cap then
      count('dropped:frontier_full', 1)
    else
      known = known + 1
      redis.call('HSET', seen, link[1], link[2])
      back(link[1])
      count('found', 1)
    end
  end
end
for _, event in ipairs(p.events) do
  redis.call('XADD', events, 'MAXLEN', '~', p.max_events, '*', 'data', event)
end
local expired = redis.call('ZRANGEBYSCORE', taken, '-inf', p.now, 'LIMIT', 0, 100)
for _, url in ipairs(expired) do
  redis.call('ZREM', taken, url)
  back(url)
end
local out = {}
local room = p.max_pages - redis.call('HLEN', pages) - redis.call('ZCARD', taken) - redis.call('ZCARD', walled)
local n = math.min(p.take, room)
if n > 0 then
  local got = redis.call('ZPOPMIN', queue, n)
  for i = 1, #got, 2 do
    redis.call('ZADD', taken, p.now + p.lease, got[i])
    out[#out + 1] = got[i]
    out[#out + 1] = redis.call('HGET', seen, got[i])
  end
end
return out
""")

_BACK = Script("""
local queue, from, seen, stats = unpack(KEYS)
local urls = redis.call('ZRANGE', from, 0, -1)
for _, url in ipairs(urls) do
  local depth = tonumber(redis.call('HGET', seen, url) or 0)
  redis.call('ZADD', queue, depth * 1e10 + redis.call('HINCRBY', stats, 'seq', 1), url)
end
redis.call('DEL', from)
return #urls
""")

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


class Step(msgspec.Struct, kw_only=True):
    """What one call to the frontier does; see `Frontier.step`."""

    done: list[tuple[str, PageRecord]] = []
    released: list[str] = []
    walled: list[str] = []
    links: list[tuple[str, int]] = []
    counts: dict[str, int] = {}
    events: list[dict[str, Any]] = []


class Frontier:
    """The frontier and the record of one job."""

    def __init__(self, store: Store, job_id: str, max_pages: int) -> None:
        self._store = store
        self.job_id = job_id
        self._max_pages = max_pages
        # Room for what is found but will not be read, so that a status can say so; a bound all the same.
        self._cap = 10 * max_pages + 10_000

    async def step(self, step: Step, take: int = 0) -> list[tuple[str, int]]:
        """Finish, release, wall, add, count and tell in one script; returns up to `take` URLs with their depth."""
        payload = {
            "now": _now_ms(),
            "lease": LEASE_MS,
            "take": take,
            "cap": self._cap,
            "max_pages": self._max_pages,
            "max_events": MAX_EVENTS,
            "done": [{"url": url, "record": _encode(record).decode()} for url, record in step.done],
            "released": step.released,
            "walled": step.walled,
            "links": step.links,
            "counts": step.counts,
            "events": [_encode(event).decode() for event in step.events],
        }
        parts = ("queue", "taken", "walled", "seen", "pages", "stats", "events")
        got = await self._store.run(
            _STEP, [keys.crawl(self.job_id, part) for part in parts], [msgspec.msgpack.encode(payload)]
        )
        return [(got[i].decode(), int(got[i + 1])) for i in range(0, len(got), 2)]

    async def retry_walled(self) -> int:
        """Put the pages that met a login wall back in the queue; returns how many."""
        return await self._back("walled")

    async def recover(self) -> int:
        """Put back what a process that is gone had taken; returns how many."""
        return await self._back("taken")

    async def _back(self, part: str) -> int:
        names = ("queue", part, "seen", "stats")
        return int(await self._store.run(_BACK, [keys.crawl(self.job_id, name) for name in names], []))

    async def sizes(self) -> dict[str, int]:
        """How many URLs are `queued`, `taken`, `walled` and `done`."""
        names = {"queued": "queue", "taken": "taken", "walled": "walled"}
        sizes = {
            word: int(await self._store.call("ZCARD", keys.crawl(self.job_id, part))) for word, part in names.items()
        }
        return sizes | {"done": int(await self._store.call("HLEN", keys.crawl(self.job_id, "pages")))}

    async def counts(self) -> dict[str, int]:
        """The job's counters."""
        raw = await self._store.call("HGETALL", keys.crawl(self.job_id, "stats"))
        return {raw[i].decode(): int(raw[i + 1]) for i in range(0, len(raw), 2) if raw[i] != b"seq"}

    async def walled_urls(self, limit: int = 100) -> list[str]:
        """Some of the URLs that met a login wall."""
        return [
            url.decode() for url in await self._store.call("ZRANGE", keys.crawl(self.job_id, "walled"), 0, limit - 1)
        ]

    async def pages(self, cursor: int = 0, count: int = 200) -> tuple[int, list[PageRecord]]:
        """Some page records and the cursor to go on from; 0 ends."""
        after, raw = await self._store.call("HSCAN", keys.crawl(self.job_id, "pages"), cursor, "COUNT", count)
        return int(after), [msgspec.json.decode(raw[i], type=PageRecord) for i in range(1, len(raw), 2)]

    async def record(self, url: str) -> PageRecord | None:
        """What became of `url`; None where it is not finished."""
        raw = await self._store.call("HGET", keys.crawl(self.job_id, "pages"), url)
        return None if raw is None else msgspec.json.decode(raw, type=PageRecord)


async def create_job(store: Store, spec: JobSpec) -> Job:
    """Store a new job, queued."""
    job = Job(id=str(uuid.uuid4()), spec=spec, created_ms=_now_ms(), revision=1)
    await _save(store, job, 0, {"event": "state", "state": str(job.state)})
    await store.call("ZADD", keys.crawl_jobs(), job.created_ms, job.id)
    return job


async def load_job(store: Store, job_id: str) -> Job:
    """The job; `NotFound` where there is none by that ID."""
    try:
        name = str(uuid.UUID(job_id))
    except ValueError:
        raise NotFound("There is no such crawl job.") from None
    raw = await store.call("GET", keys.crawl(name, "job"))
    if raw is None:
        raise NotFound("There is no such crawl job.")
    return msgspec.json.decode(raw, type=Job)


async def list_jobs(store: Store, limit: int = 100) -> list[Job]:
    """The newest jobs first."""
    ids = await store.call("ZRANGE", keys.crawl_jobs(), 0, limit - 1, "REV")
    found: list[Job] = []
    for job_id in ids:
        raw = await store.call("GET", keys.crawl(job_id.decode(), "job"))
        if raw is not None:
            found.append(msgspec.json.decode(raw, type=Job))
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
            ended_ms=now if state in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED) else 0,
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


async def site_pages(store: Store, host: str) -> list[PageRecord]:
    """The newest good reading of each page of `host`, by URL."""
    found: dict[str, PageRecord] = {}
    cursor = b"0"
    while True:
        cursor, raw = await store.call("HSCAN", keys.crawl_site(host), cursor, "COUNT", 1000)
        for i in range(0, len(raw), 2):
            found[raw[i].decode()] = msgspec.json.decode(raw[i + 1], type=PageRecord)
        if cursor == b"0":
            return [found[url] for url in sorted(found)]


async def site_page(store: Store, host: str, url: str) -> PageRecord | None:
    """The newest good reading of one page."""
    raw = await store.call("HGET", keys.crawl_site(host), url)
    return None if raw is None else msgspec.json.decode(raw, type=PageRecord)


async def keep_site_page(store: Store, host: str, record: PageRecord) -> None:
    """Remember a good reading of a page."""
    await store.call("HSET", keys.crawl_site(host), record.url, _encode(record))


async def forget_site_pages(store: Store, host: str, gone: Sequence[str] | Iterable[str]) -> None:
    """Take pages out again, where a reading proved to be a login page."""
    names = list(gone)
    if names:
        await store.call("HDEL", keys.crawl_site(host), *names)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
