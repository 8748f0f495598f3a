"""Between a crawl's workers and its frontier: URLs are handed out and results brought in a batch at a time.

A page is on the shelf before the frontier has it done. A process that dies in between leaves a page to be read again,
never one that is missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

from switchroom.crawler import sites, urls
from switchroom.crawler.frontier import Done, Frontier, Step
from switchroom.crawler.job import PageRecord
from switchroom.crawler.output import PageFile
from switchroom.crawler.patience import patiently
from switchroom.crawler.shelf import Shelf
from switchroom.crawler.tools import Tools
from switchroom.errors import Unavailable

log = logging.getLogger(__name__)

_GATHER_S = 0.25
"""How long results are gathered at most while workers have something to read; a kill -9 costs the pages of so much
time. A batch costs the same for one page as for twenty: on a slow machine small ones would be most of the cost."""
_AWAY_LOOK_S = 0.25


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
        self._dry = False  # the frontier had less than was asked for
        self._looked = False
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
        self._looked = True
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
                held = await self.flush(0 if self._stopping else 3 * self._tools.workers)
                if held == 0 and not self._ready and not self._busy and self._all_found():
                    return
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
                step.add(Step(counts=await self._shelve(files, step)))
            take = max(0, most - len(self._ready) - len(self._busy))
            sure: list[str] | None = None
            while True:
                try:
                    took = await self._book.step(step, take, holding=sure)
                    break
                except Unavailable as error:
                    log.warning("crawl waits for the store", extra={"job_id": self._book.job_id, "code": error.code})
                    sure = [*self._busy, *(work.url for work in self._ready)]
                    await asyncio.sleep(_AWAY_LOOK_S)
            self._dry = len(took.urls) < take
            if took.urls:
                before = await patiently(lambda: self._before([taken.url for taken in took.urls]))
                self._ready += [Work(*taken, before.get(taken.url)) for taken in took.urls]
                self._let_go()
            return took.held

    async def _shelve(self, files: list[PageFile], step: Step) -> dict[str, int]:
        """Put pages on the shelf; returns what to count. One that cannot be kept fails alone, not the job with it;
        a disk that takes no files is an error of the whole."""
        try:
            return await patiently(lambda: self._shelf.keep(files, step.done))
        except OSError:
            raise
        except Exception:
            log.warning("a batch cannot be kept, its pages are tried alone", exc_info=True)
        counts: Counter[str] = Counter()
        by_page = {file.record.url: file for file in files}
        for place, (url, done) in enumerate(step.done):
            file = by_page.get(done.final or done.record.url)
            alone, mine = [file] if file is not None else [], [(url, done)]
            try:
                counts.update(await patiently(lambda alone=alone, mine=mine: self._shelf.keep(alone, mine)))  # type: ignore[misc]
            except OSError:
                raise
            except Exception:
                log.exception("a page cannot be kept", extra={"url": url})
                failed = PageRecord(url=url, outcome="failed", cause="not_kept", depth=done.record.depth)
                step.done[place] = (url, Done(record=failed, counts={"fetched": 1, "failed:not_kept": 1}))
        return dict(counts)

    async def _before(self, wanted: list[str]) -> dict[str, PageRecord | None]:
        by_host: dict[str, list[str]] = {}
        for url in wanted:
            by_host.setdefault(urls.bare_host(urls.host_of(url)), []).append(url)
        found: dict[str, PageRecord | None] = {}
        for host, names in by_host.items():
            found.update(zip(names, await sites.some_site_pages(self._tools.store, host, names), strict=True))
        return found

    async def _rest(self) -> None:
        """Until there is reason for a batch: workers run out of URLs, results came together, or time has passed."""
        try:
            async with asyncio.timeout(_GATHER_S):
                while not self._is_due():
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            return

    def _is_due(self) -> bool:
        if self._stopping or self._looked:
            self._looked = False
            return True
        step = self._results
        results = len(step.done) + len(step.released) + len(step.returned) + len(step.walled)
        hungry = len(self._ready) < self._tools.workers // 2
        # A dry frontier has more only once results brought some.
        return (hungry and (results > 0 or not self._dry)) or results >= 2 * self._tools.workers

    def _let_go(self) -> None:
        over = self._closed or self._stopping
        free = len(self._handing) if over else len(self._ready)
        while self._handing and free > 0:
            waiter = self._handing.popleft()
            if not waiter.done():
                waiter.set_result(None)
                free -= 1
