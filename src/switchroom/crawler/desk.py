"""Between a crawl's workers and its frontier: URLs are handed out and results brought in a batch at a time.

A page is on the shelf before the frontier has it done. A process that dies in between leaves a page to be read again,
never one that is missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from switchroom.crawler import sites, urls
from switchroom.crawler.frontier import Frontier, Step
from switchroom.crawler.job import PageRecord
from switchroom.crawler.output import PageFile
from switchroom.crawler.patience import patiently
from switchroom.crawler.shelf import Shelf
from switchroom.crawler.tools import Tools
from switchroom.errors import Unavailable

log = logging.getLogger(__name__)

_GATHER_S = 0.02
"""How long results are gathered while workers are busy; a kill -9 costs the pages of so much time."""
_IDLE_LOOK_S = 0.25


class Work(NamedTuple):
    """A URL to read, and the newest good reading of it from earlier jobs."""

    url: str
    depth: int
    tries: int
    before: PageRecord | None


class Desk:
    """One a crawl. `all_found()` says whether discovery is over: before that an empty frontier is no end."""

    def __init__(self, tools: Tools, book: Frontier, shelf: Shelf, all_found: Callable[[], bool]) -> None:
        self._tools = tools
        self._shelf = shelf
        self._book = book
        self._all_found = all_found
        self._ready: deque[Work] = deque()
        self._results = Step()
        self._files: list[PageFile] = []
        self._busy: set[str] = set()
        self._flushing = asyncio.Lock()
        self._wake = asyncio.Event()
        self._handing: deque[asyncio.Future[None]] = deque()
        self._stopping = False
        self._closed = False

    async def next(self) -> Work | None:
        """A URL to read; None when the crawl is over."""
        while not self._ready:
            if self._closed or self._stopping:
                return None
            waiter = asyncio.get_running_loop().create_future()
            self._handing.append(waiter)
            self._wake.set()
            await waiter
        if self._stopping:
            return None
        work = self._ready.popleft()
        self._busy.add(work.url)
        if len(self._ready) < self._tools.workers // 2:
            self._wake.set()
        return work

    def hand_in(self, work: Work, step: Step) -> None:
        """What became of `work`."""
        self._busy.discard(work.url)
        self._results.add(step)
        self._wake.set()

    def keep(self, file: PageFile) -> None:
        """A good page; call it together with `hand_in`, without waiting in between."""
        self._files.append(file)

    def look(self) -> None:
        """There may be more in the frontier now, or discovery is over."""
        self._wake.set()

    def stop(self) -> None:
        """Hand nothing out any more."""
        self._stopping = True
        self._wake.set()
        self._let_go()

    async def run(self) -> None:
        """Serve the workers until nothing is left or `stop()`; what is not handed out goes back."""
        try:
            while not (self._stopping and not self._busy):
                self._wake.clear()
                held = await self.flush(0 if self._stopping else 2 * self._tools.workers)
                if self._ready or self._busy:
                    await self._rest()
                elif held == 0 and self._all_found():
                    return
                else:
                    await self._rest()
            await self.flush()
        finally:
            self._closed = True
            self._let_go()

    async def flush(self, most: int = 0) -> int:
        """Write what was handed in, and take URLs until `most` are ready or under way. Returns how many URLs all
        runners hold."""
        async with self._flushing:
            step, self._results = self._results, Step()
            files, self._files = self._files, []
            if self._stopping:
                step.returned += [work.url for work in self._ready]
                self._ready.clear()
            if files or step.done:
                found = await patiently(lambda: self._shelf.keep(files, step.done))
                step.add(Step(counts=found))
            take = max(0, most - len(self._ready) - len(self._busy))
            sure: list[str] | None = None
            while True:
                try:
                    took = await self._book.step(step, take, holding=sure)
                    break
                except Unavailable as error:
                    log.warning("crawl waits for the store", extra={"job_id": self._book.job_id, "code": error.code})
                    sure = [*self._busy, *(work.url for work in self._ready)]
                    await asyncio.sleep(_IDLE_LOOK_S)
            if took.urls:
                before = await patiently(lambda: self._before([taken.url for taken in took.urls]))
                self._ready += [Work(*taken, before.get(taken.url)) for taken in took.urls]
                self._let_go()
            return took.held

    async def _before(self, wanted: list[str]) -> dict[str, PageRecord | None]:
        by_host: dict[str, list[str]] = {}
        for url in wanted:
            by_host.setdefault(urls.bare_host(urls.host_of(url)), []).append(url)
        found: dict[str, PageRecord | None] = {}
        for host, names in by_host.items():
            found.update(zip(names, await sites.some_site_pages(self._tools.store, host, names), strict=True))
        return found

    async def _rest(self) -> None:
        """Until a worker needs something, then a moment more for the others."""
        try:
            async with asyncio.timeout(_IDLE_LOOK_S):
                await self._wake.wait()
        except TimeoutError:
            return
        if len(self._busy) >= self._tools.workers // 2:
            await asyncio.sleep(_GATHER_S)

    def _let_go(self) -> None:
        over = self._closed or self._stopping
        free = len(self._handing) if over else len(self._ready)
        while self._handing and free > 0:
            waiter = self._handing.popleft()
            if not waiter.done():
                waiter.set_result(None)
                free -= 1
