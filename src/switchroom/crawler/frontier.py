"""A job's durable frontier: which URLs wait, which are taken and by whom, which met a login wall, what became of the
others.

One script call a batch of pages: it finishes them, adds the links found on them, counts, tells the event stream and
takes the next URLs, all or nothing. Any number of processes (runners) share a job: each holds its URLs under one lease
of its own, renewed by `beat`; what a dead runner held comes back when that lease is over. The clock is the server's.
"""

from __future__ import annotations

from importlib import resources
from typing import Any, NamedTuple

import msgspec

from switchroom.crawler.job import PageRecord
from switchroom.store import Script, Store, keys

LEASE_MS = 6_000
"""A runner that did not `beat` for so long is taken for dead."""
MAX_EVENTS = 5000
MAX_CLOSED = 1000

_FOLDER = resources.files("switchroom.crawler") / "lua"


def _script(name: str) -> Script:
    return Script((_FOLDER / "shared.lua").read_text() + (_FOLDER / f"{name}.lua").read_text())


_STEP = _script("step")
_BEAT = _script("beat")
_LEAVE = _script("leave")
_RETRY_WALLED = _script("retry_walled")

PARTS = ("queue", "taken", "walled", "seen", "pages", "stats", "events", "tries", "finals", "runners", "closed", "job",
          "discover")  # fmt: skip

_encode = msgspec.json.encode


class Done(msgspec.Struct, kw_only=True):
    """What became of a taken URL: its record, what to count, and the event that tells of it.

    Where another URL of the job led to `final` already, it counts as a duplicate instead.
    """

    record: PageRecord
    counts: dict[str, int]
    final: str = ""


class Step(msgspec.Struct, kw_only=True):
    """What one call to the frontier does; see `Frontier.step`. `released` URLs go back to the queue as tried once more,
    `returned` ones as if they had not been taken."""

    done: list[tuple[str, Done]] = []
    released: list[str] = []
    returned: list[str] = []
    walled: list[str] = []
    links: list[tuple[str, int]] = []
    counts: dict[str, int] = {}
    events: list[dict[str, Any]] = []
    closed: list[str] = []

    def add(self, other: Step) -> None:
        """Do what `other` does too, in the same call."""
        self.done += other.done
        self.released += other.released
        self.returned += other.returned
        self.walled += other.walled
        self.links += other.links
        self.events += other.events
        self.closed += other.closed
        for name, count in other.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count


class Taken(NamedTuple):
    """A URL to read: how many links it is away from a start, and how often reading it failed already."""

    url: str
    depth: int
    tries: int


class Took(NamedTuple):
    """The answer of a step: what was taken, and how many URLs all runners hold now."""

    urls: list[Taken]
    held: int


class Beat(NamedTuple):
    """The answer of a beat: how many runners the job has, its stored record, and the URL patterns that are closed."""

    runners: int
    job: bytes
    closed: list[str]


class Frontier:
    """The frontier and the record of one job, as `runner` (any unique word) sees and changes them."""

    def __init__(self, store: Store, job_id: str, max_pages: int, runner: str = "-") -> None:
        self._store = store
        self.job_id = job_id
        self.runner = runner
        self._max_pages = max_pages
        # Room for what is found but will not be read, so that a status can say so; a bound all the same.
        self._cap = 10 * max_pages + 10_000
        self._keys = [keys.crawl(job_id, part) for part in PARTS]

    async def step(self, step: Step, take: int = 0, *, holding: list[str] | None = None) -> Took:
        """Finish, release, wall, add, count and tell in one script; takes up to `take` URLs.

        After a step whose answer got lost, say the same again with what this runner is `holding`: whatever else it has
        taken without knowing goes back.
        """
        payload: dict[str, Any] = {
            "runner": self.runner,
            "take": take,
            "cap": self._cap,
            "max_pages": self._max_pages,
            "max_events": MAX_EVENTS,
            "max_closed": MAX_CLOSED,
            "done": [_packed(url, done) for url, done in step.done],
            "released": step.released,
            "returned": step.returned,
            "walled": step.walled,
            "links": step.links,
            "counts": step.counts,
            "events": [_encode(event).decode() for event in step.events],
            "closed": step.closed,
        }
        if holding is not None:
            payload["holding"] = dict.fromkeys(holding, 1)
        got = await self._store.run(_STEP, self._keys, [msgspec.msgpack.encode(payload)])
        found = [Taken(got[i].decode(), int(got[i + 1]), int(got[i + 2])) for i in range(1, len(got), 3)]
        return Took(found, int(got[0]))

    async def beat(self) -> Beat:
        """Say that this runner lives, and put back what dead ones held."""
        runners, job, *closed = await self._store.run(_BEAT, self._keys, [self.runner, LEASE_MS])
        return Beat(int(runners), job or b"", [pattern.decode() for pattern in closed])

    async def may_discover(self) -> bool:
        """Whether this runner is the one that reads the sitemaps; another gets the turn when it dies."""
        name = keys.crawl(self.job_id, "discover")
        return bool(await self._store.call("SET", name, self.runner, "NX"))

    async def leave(self) -> int:
        """End this runner's part: what it still holds goes back. Returns how many URLs that were."""
        return int(await self._store.run(_LEAVE, self._keys, [self.runner]))

    async def retry_walled(self) -> int:
        """Put the pages that met a login wall back in the queue; returns how many."""
        return int(await self._store.run(_RETRY_WALLED, self._keys, []))

    async def sizes(self) -> dict[str, int]:
        """How many URLs are `queued`, `taken`, `walled` and `done`."""
        commands = {
            "queued": ("ZCARD", "queue"), "taken": ("HLEN", "taken"), "walled": ("ZCARD", "walled"),
            "done": ("HLEN", "pages"),
        }  # fmt: skip
        return {
            word: int(await self._store.call(command, keys.crawl(self.job_id, part)))
            for word, (command, part) in commands.items()
        }

    async def counts(self) -> dict[str, int]:
        """The job's counters; `active_ms` is how long at least one runner was at work."""
        raw = await self._store.call("HGETALL", keys.crawl(self.job_id, "stats"))
        return {raw[i].decode(): int(raw[i + 1]) for i in range(0, len(raw), 2) if raw[i] not in (b"seq", b"beat")}

    async def runners(self) -> int:
        """How many runners are at work."""
        return int(await self._store.call("ZCARD", keys.crawl(self.job_id, "runners")))

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


def told(record: PageRecord) -> dict[str, object]:
    """The event that tells of a page."""
    event: dict[str, object] = {
        "event": "page", "url": record.url, "outcome": record.outcome, "rendered": record.rendered
    }  # fmt: skip
    return event | ({"cause": record.cause} if record.cause else {"title": record.title})


def _packed(url: str, done: Done) -> dict[str, object]:
    record = done.record
    packed: dict[str, object] = {"url": url, "record": _encode(record).decode(), "counts": done.counts}
    packed["event"] = _encode(told(record)).decode()
    if done.final:
        other = PageRecord(
            url=url, outcome="skipped", cause="duplicate", depth=record.depth, fetched_ms=record.fetched_ms,
            final_url=done.final,
        )  # fmt: skip
        packed |= {"final": done.final, "dup": _encode(other).decode(), "dup_event": _encode(told(other)).decode()}
    return packed
