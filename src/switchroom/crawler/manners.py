"""How crawls behave towards one host, all of them together: how many at once, how far apart, and when a host asked to
be left alone.

One process alone keeps count by itself. Where several crawl the same host, each request takes a token in the store; a
delay and a push-back are kept there always, so that a second process or the next job honours them too.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import random
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib import resources

from switchroom.errors import Unavailable
from switchroom.store import Script, Store, keys

MAX_RETRY_AFTER_S = 300.0
BEAT_S = 1.0
LEASE_S = 5.0
_BACK_OFF_S = 1.0
_BACK_OFF_MAX_S = 60.0
# The pace that a host bears is felt for: much slower when it complains, a little faster with each answer.
_PACE_S = 0.05
_PACE_MAX_S = 5.0
_SLOWER = 1.5
_FASTER = 0.95
_POLL_S = 0.05
_AWAY_PAUSE_MAX_S = 10.0

_FOLDER = resources.files("switchroom.crawler") / "lua"
_BEAT = Script((_FOLDER / "host_beat.lua").read_text())
_ENTER = Script((_FOLDER / "host_enter.lua").read_text())
_SLOT = Script((_FOLDER / "host_slot.lua").read_text())
_PUSH = Script((_FOLDER / "host_push.lua").read_text())


class Manners:
    """One host's gate in this process. `delay_s` is the least time between two starts: Crawl-delay, or the operator's
    own."""

    def __init__(self, store: Store, host: str, runner: str, concurrency: int, delay_s: float) -> None:
        self._store = store
        self._host = host
        self._runner = runner
        self._concurrency = concurrency
        self.delay_s = delay_s
        self._used_at = time.monotonic()
        self._inside: set[str] = set()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._count = 0
        self._others = False
        self._next_start = 0.0
        self._strikes = 0
        self._pace_s = 0.0
        self._away_since: float | None = None
        self._away_looks = 0
        self.answered_before = False
        """Whether the host has answered since this process began to crawl it."""
        self._met = asyncio.Event()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a place and for the host's time."""
        self._used_at = time.monotonic()
        await self._met.wait()
        while len(self._inside) >= self._concurrency:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake()
                raise
        self._count += 1
        name = f"{self._runner}:{self._count}"
        self._inside.add(name)
        try:
            if self._others:
                await self._token(name)
            if self.delay_s:
                await asyncio.sleep(await self._slot_s())
            while (wait := self._next_start - time.monotonic()) > 0:  # noqa: ASYNC110 (time passes, no event)
                await asyncio.sleep(wait)
            if self._pace_s:
                self._next_start = time.monotonic() + self._pace_s
            yield
        finally:
            self._inside.discard(name)
            self._wake()
            if self._others:
                with contextlib.suppress(Unavailable):  # it ends with this process's lease
                    await self._store.call("ZREM", keys.crawl_host(self._host, "tokens"), name)

    def idle_s(self, now: float) -> float:
        """Seconds since the host was last asked for."""
        return 0.0 if self._inside or self._waiters else now - self._used_at

    async def beat(self) -> None:
        """Tell the other processes that this one is at the host, and hear from them; every `BEAT_S`."""
        names = [keys.crawl_host(self._host, part) for part in ("users", "tokens", "next")]
        others, wait_ms = await self._store.run(_BEAT, names, [self._runner, int(LEASE_S * 1000), *self._inside])
        if int(wait_ms) > 0 and not self.delay_s:
            self._next_start = max(self._next_start, time.monotonic() + int(wait_ms) / 1000)
        if int(others) and not self._met.is_set():
            # The processes that are there already hear of this one first, and take tokens from then on.
            self._next_start = max(self._next_start, time.monotonic() + 1.5 * BEAT_S)
        self._others = bool(int(others))
        self._met.set()

    async def pushed_back(self, retry_after: str | None) -> float:
        """The host answered 429 or 503: leave it alone for `Retry-After`, else twice as long each time (those of one
        burst are one time), and go slower from then on. Returns the seconds."""
        wait = retry_after_s(retry_after)
        pending = self._next_start - time.monotonic() - self._pace_s
        if wait is None and pending > 0:
            return pending
        self._strikes += 1
        self._pace_s = min(max(_PACE_S, self._pace_s * _SLOWER), _PACE_MAX_S)
        if wait is None:
            wait = min(_BACK_OFF_S * 2 ** (self._strikes - 1), _BACK_OFF_MAX_S)
        wait = min(wait, MAX_RETRY_AFTER_S)
        self._next_start = max(self._next_start, time.monotonic() + wait)
        await self._store.run(_PUSH, [keys.crawl_host(self._host, "next")], [int(wait * 1000)])
        return wait

    def is_away(self) -> float:
        """The host answers nobody: leave it alone for a while, longer each time. Returns for how many seconds it has
        been away."""
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
        if self._next_start <= now:
            self._next_start = now + min(0.25 * 2**self._away_looks, _AWAY_PAUSE_MAX_S)
            self._away_looks = min(self._away_looks + 1, 16)
        return now - self._away_since

    def answered(self) -> None:
        """The host answers again."""
        self._strikes = self._away_looks = 0
        self._pace_s = self._pace_s * _FASTER if self._pace_s > _PACE_S / 4 else 0.0
        self._away_since = None
        self.answered_before = True

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def _token(self, name: str) -> None:
        names = [keys.crawl_host(self._host, part) for part in ("users", "tokens")]
        while not int(await self._store.run(_ENTER, names, [name, self._concurrency])):  # noqa: ASYNC110 (no event)
            await asyncio.sleep(_POLL_S * random.uniform(0.5, 1.5))  # noqa: S311 - no secret

    async def _slot_s(self) -> float:
        """Seconds until the start that the store gave us."""
        name = keys.crawl_host(self._host, "next")
        return int(await self._store.run(_SLOT, [name], [int(self.delay_s * 1000)])) / 1000


def retry_after_s(value: str | None) -> float | None:
    """A Retry-After header (seconds or an HTTP date, RFC 9110 §10.2.3) as seconds; None where there is none."""
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        when = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
