"""The hosts that a process crawls, for all of its jobs: what their robots.txt asks, and how they are treated."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.exceptions import ResponseError
from yarl import URL

from switchroom.crawler import urls
from switchroom.crawler.manners import BEAT_S, Manners
from switchroom.crawler.robots import Robots, load_robots
from switchroom.errors import SwitchroomError
from switchroom.net import GuardedClient, OutboundError
from switchroom.store import Store

log = logging.getLogger(__name__)

ROBOTS_S = 3600.0
"""How long a robots.txt is believed; RFC 9309 §2.4 allows a day."""
_FORGET_S = 30.0
_LOOK_S = 1.0
_LOOK_TIMEOUT_S = 5.0


class Hosts:
    """Robots and manners by host. `delay_s` is the operator's least time between two requests to one host."""

    def __init__(self, client: GuardedClient, store: Store, runner: str, *, per_host: int, delay_s: float) -> None:
        self._client = client
        self._store = store
        self._runner = runner
        self._per_host = per_host
        self._delay_s = delay_s
        self._robots: dict[str, tuple[float, asyncio.Task[Robots]]] = {}
        self._manners: dict[str, Manners] = {}
        self._looks: dict[str, tuple[float, asyncio.Task[bool]]] = {}
        self._users = 0
        self._beating: asyncio.Task[None] | None = None
        self._new = asyncio.Event()

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Hosts are asked for only inside; while anybody is, the other processes are told of it."""
        self._users += 1
        if self._beating is None:
            self._beating = asyncio.create_task(self._beat(), name="crawled hosts")
        try:
            yield
        finally:
            self._users -= 1
            if self._users == 0:
                self._beating.cancel()
                self._beating = None
                for task in [held[1] for held in (*self._robots.values(), *self._looks.values())]:
                    task.cancel()
                self._robots.clear()
                self._looks.clear()
                self._manners.clear()

    def known_robots(self, url: str) -> Robots | None:
        """The robots.txt of the URL's host, where it is there already."""
        held = self._robots.get(urls.host_of(url))
        if held is None or held[0] < time.monotonic():
            return None
        task = held[1]
        return task.result() if task.done() and not task.cancelled() and task.exception() is None else None

    async def robots(self, url: str) -> Robots:
        """The robots.txt of the URL's host, asked for once, and again where it did not answer (`OutboundError`)."""
        host = urls.host_of(url)
        held = self._robots.get(host)
        if held is None or held[0] < time.monotonic() or _failed(held[1]):
            held = (time.monotonic() + ROBOTS_S, asyncio.create_task(load_robots(self._client, url)))
            self._robots[host] = held
        robots = await asyncio.shield(held[1])
        self.manners(url).delay_s = max(self._delay_s, robots.delay_s)
        return robots

    async def is_away(self, url: str) -> bool:
        """Whether the URL's host answers nothing at all now: a look at its robots.txt, once a second at most."""
        host = urls.host_of(url)
        held = self._looks.get(host)
        if held is None or held[0] < time.monotonic():
            held = (time.monotonic() + _LOOK_S, asyncio.create_task(self._look(url)))
            self._looks[host] = held
        return await asyncio.shield(held[1])

    async def _look(self, url: str) -> bool:
        try:
            got = await self._client.fetch(
                str(URL(url).origin() / "robots.txt"), method="HEAD", follow=False, timeout_s=_LOOK_TIMEOUT_S
            )
        except OutboundError as error:
            return error.cause in ("connect", "timeout", "dns")
        return got.status in (502, 504)

    def manners(self, url: str) -> Manners:
        """The gate of the URL's host."""
        host = urls.host_of(url)
        found = self._manners.get(host)
        if found is None:
            found = Manners(self._store, host, self._runner, self._per_host, self._delay_s)
            self._manners[host] = found
            self._new.set()
        return found

    async def _beat(self) -> None:
        while True:
            self._new.clear()
            now = time.monotonic()
            for host, manners in list(self._manners.items()):
                try:
                    if manners.idle_s(now) < _FORGET_S:
                        await manners.beat()
                except (SwitchroomError, ResponseError) as error:
                    log.warning("host cannot be told of now", extra={"host": host, "cause": str(error)})
            try:
                async with asyncio.timeout(BEAT_S):
                    await self._new.wait()
            except TimeoutError:
                continue


def _failed(task: asyncio.Task[Robots]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
