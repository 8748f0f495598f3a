"""The hosts of one crawl: what their robots.txt asks, and how they are treated."""

from __future__ import annotations

import asyncio

from switchroom.crawler import urls
from switchroom.crawler.manners import Manners
from switchroom.crawler.robots import Robots, load_robots
from switchroom.net import GuardedClient


class Hosts:
    """Robots and manners by host. `delay_s` is the operator's least time between two requests to one host."""

    def __init__(self, client: GuardedClient, *, per_host: int, delay_s: float) -> None:
        self._client = client
        self._per_host = per_host
        self._delay_s = delay_s
        self._robots: dict[str, asyncio.Task[Robots]] = {}
        self._manners: dict[str, Manners] = {}

    async def robots(self, url: str) -> Robots:
        """The robots.txt of the URL's host, asked for once, and again where it did not answer (`OutboundError`)."""
        host = urls.host_of(url)
        task = self._robots.get(host)
        if task is None or (task.done() and not task.cancelled() and task.exception() is not None):
            task = self._robots[host] = asyncio.create_task(load_robots(self._client, url))
        robots = await asyncio.shield(task)
        self.manners(url).delay_s = max(self._delay_s, robots.delay_s)
        return robots

    def manners(self, url: str) -> Manners:
        """The gate of the URL's host."""
        host = urls.host_of(url)
        if host not in self._manners:
            self._manners[host] = Manners(self._per_host, self._delay_s)
        return self._manners[host]

    def close(self) -> None:
        """Give up what is still being asked."""
        for task in self._robots.values():
            task.cancel()
