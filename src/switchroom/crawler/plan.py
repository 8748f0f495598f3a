"""Which URLs a job begins with, by its mode: what sites list, what is known of them, or what may have changed."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

from switchroom.crawler import sites, urls
from switchroom.crawler.discover import BATCH, Batch, discover, listed
from switchroom.crawler.frontier import Frontier
from switchroom.crawler.jar import Jar
from switchroom.crawler.job import JobSpec, PageRecord
from switchroom.crawler.marks import HostMarks
from switchroom.crawler.shelf import MOVED, Change, Shelf, changes_of
from switchroom.crawler.sitemap import Entry, end_of_day_ms
from switchroom.crawler.tools import Tools
from switchroom.store import Store, keys

log = logging.getLogger(__name__)

DAY_MS = 86_400_000
SAMPLE_SHARE = 0.05
SAMPLE_MOST = 100
KEEP_DIFFS = timedelta(days=120)
_LOOK_S = 0.2


async def plan(tools: Tools, shelf: Shelf, spec: JobSpec, jar: Jar) -> AsyncIterator[Batch]:
    """The URLs to begin with, in batches."""
    if spec.mode == "root":
        for host in spec.hosts:
            for batch in _batches(await _known(tools, shelf, host)):
                yield batch
    elif spec.mode == "fresh":
        async for batch in _fresh(tools, shelf, spec, jar):
            yield batch
    else:
        async for batch in discover(tools.client, tools.hosts, spec, jar):
            yield batch


async def _known(tools: Tools, shelf: Shelf, host: str) -> list[tuple[str, int]]:
    """The pages of a site that are to be used."""
    wanted = await shelf.marks(host)
    found = {url: one.depth for url, one in (await sites.placeholders(tools.store, host)).items() if not one.leads_to}
    found |= {record.url: record.depth for record in await sites.site_pages(tools.store, host)}
    return [(url, depth) for url, depth in found.items() if wanted.of(url).mark == "use"]


async def known_urls(store: Store, hosts: tuple[str, ...]) -> frozenset[str]:
    """Every URL that is known of `hosts`."""
    found: set[str] = set()
    for host in hosts:
        found |= set(await sites.placeholders(store, host))
        found |= {record.url for record in await sites.site_pages(store, host)}
    return frozenset(found)


def _batches(links: list[tuple[str, int]]) -> list[Batch]:
    return [Batch(links[start : start + BATCH], Counter(), {}) for start in range(0, len(links), BATCH)]


# --- what may have changed -------------------------------------------------------------------------------------------


async def _fresh(tools: Tools, shelf: Shelf, spec: JobSpec, jar: Jar) -> AsyncIterator[Batch]:
    entries: dict[str, Entry] = {}
    if spec.sitemaps:
        async for entry in listed(tools.client, tools.hosts, spec, jar):
            entries[entry.url] = entry
    for host in spec.hosts:
        pages = {page.url: page for page in await sites.site_pages(tools.store, host)}
        found = await sites.placeholders(tools.store, host)
        wanted = await shelf.marks(host)
        trusted = await tools.store.call("HGET", keys.crawl_site(host, "meta"), "trust") != b"0"
        await _take_out(tools, shelf, host, pages)
        judge = Judge(pages, found, wanted, trusted=trusted, now_ms=time.time_ns() // 1_000_000, verify=tools.verify_ms)
        own = {url: entry for url, entry in entries.items() if urls.bare_host(urls.host_of(url)) == host}
        links, counts = judge.choose(own, spec.starts)
        sample = [] if counts["plan:lastmod"] + counts["plan:new"] else judge.sample()
        counts["plan:sample"] += len(sample)
        counts["plan:vouched"] -= len(sample)
        await shelf.lastmods({url: entry.lastmod for url, entry in own.items() if entry.lastmod})
        counts["from_sitemaps"] = len(own)
        for batch in _batches([*links, *sample]):
            yield batch._replace(counts=counts)
            counts = Counter()
        if sample and await _is_caught(tools, shelf, [url for url, _ in sample]):
            log.warning("a site's lastmod is not true, all its pages are asked for", extra={"host": host})
            rest = judge.vouched()
            for batch in _batches(rest):
                counts = Counter({"plan:distrusted": len(batch.links), "plan:vouched": -len(batch.links)})
                yield batch._replace(counts=counts)


async def _is_caught(tools: Tools, shelf: Shelf, sample: list[str]) -> bool:
    """Whether one of the pages of a sample, which were handed out, has changed behind its `lastmod`."""
    book = Frontier(tools.store, shelf.job_id, 0)
    while None in await tools.store.call("HMGET", keys.crawl(shelf.job_id, "pages"), *sample):
        sizes = await book.sizes()
        if sizes["queued"] + sizes["taken"] == 0:
            break  # what is missing met a login wall
        await asyncio.sleep(_LOOK_S)
    asked = frozenset(sample)
    return any(one.behind and one.url in asked for one in await shelf.changes())


async def _take_out(tools: Tools, shelf: Shelf, host: str, pages: dict[str, PageRecord]) -> None:
    """Remove the pages that have been gone for the whole grace."""
    now_ms = time.time_ns() // 1_000_000
    over = [page for page in pages.values() if page.gone_ms and now_ms - page.gone_ms >= tools.grace_ms]
    if over:
        await shelf.forget(host, [page.url for page in over])
        await shelf.tell(
            [
                Change(url=page.url, kind="removed", at_ms=now_ms, title=page.title, status=page.gone_status)
                for page in over
            ]
        )
    for page in over:
        del pages[page.url]
    await asyncio.to_thread(tools.output.prune_changes, host, (datetime.now(UTC) - KEEP_DIFFS).date())


class Judge:
    """Decides for each page of one site whether it has to be asked for. Pure.

    A sitemap's `lastmod` vouches for a page that it has not changed, where it says the same as when the page was read.
    It does not vouch where it names only the day on which the page was read (the page may have changed later that day),
    where the page was not asked for since `verify` milliseconds or so, or where the site was caught with a page that
    had changed behind its `lastmod` (`trusted` is False): such pages are asked for, conditionally.
    """

    def __init__(
        self,
        pages: dict[str, PageRecord],
        found: dict[str, sites.Placeholder],
        wanted: HostMarks,
        *,
        trusted: bool,
        now_ms: int,
        verify: int,
    ) -> None:
        self._pages = pages
        self._found = found
        self._wanted = wanted
        self._trusted = trusted
        self._now_ms = now_ms
        self._verify = verify
        self._vouched: list[PageRecord] = []

    def choose(self, listed: dict[str, Entry], starts: tuple[str, ...]) -> tuple[list[tuple[str, int]], Counter[str]]:
        """The URLs to ask for with their depth, and counts of why, and of those that need not be."""
        links: dict[str, int] = {}
        counts: Counter[str] = Counter()
        for url, page in self._pages.items():
            if self._wanted.of(url).mark != "use":
                continue
            reason = "start" if url in starts else self._page(page, listed.get(url))
            counts["plan:" + (reason or "vouched")] += 1
            if reason:
                links[url] = page.depth
            elif not page.gone_ms:
                self._vouched.append(page)
        for url, entry in listed.items():
            if url in self._pages or self._wanted.of(url).mark != "use":
                continue
            reason = self._other(url, entry, listed)
            counts["plan:" + (reason or "passed_over")] += 1
            if reason:
                links[url] = 0
        for url in starts:
            if url not in links and url not in self._found and self._wanted.of(url).mark == "use":
                counts["plan:start"] += 1
                links[url] = 0
        return list(links.items()), counts

    def vouched(self) -> list[tuple[str, int]]:
        """The pages that `choose` left, but for those of a sample since."""
        return [(page.url, page.depth) for page in self._vouched]

    def sample(self) -> list[tuple[str, int]]:
        """Some of the pages that `choose` left, those first that were not looked at for longest. Where a whole sitemap
        says that nothing has changed, these tell whether it is kept at all."""
        self._vouched.sort(key=lambda page: (page.fetched_ms // DAY_MS, self._due_ms(page.url)))
        size = min(SAMPLE_MOST, math.ceil(len(self._vouched) * SAMPLE_SHARE))
        chosen, self._vouched = self._vouched[:size], self._vouched[size:]
        return [(page.url, page.depth) for page in chosen]

    def _page(self, page: PageRecord, entry: Entry | None) -> str:
        """Why a page has to be asked for, "" where its sitemap vouches for it."""
        if page.gone_ms:
            # Where it moved to is a page of its own.
            return "" if page.gone_status == MOVED else "gone"
        lastmod = entry.lastmod if entry is not None else None
        if not lastmod:
            return "unvouched"
        if page.lastmod != lastmod:
            return "lastmod"
        if not self._trusted:
            return "distrusted"
        if self._is_same_day(lastmod, page.fetched_ms):
            return "same_day"
        return "verify" if self._now_ms - page.fetched_ms > self._due_ms(page.url) else ""

    def _other(self, url: str, entry: Entry, listed: dict[str, Entry]) -> str:
        """As `_page`, for a URL without a page of its own: new, or passed over before."""
        held = self._found.get(url)
        if held is None or not held.checked_ms:
            return "new"
        if held.leads_to and (page := self._pages.get(held.leads_to)) is not None:
            # The page is judged under its own URL; what this one's entry says of it counts as well.
            if held.leads_to in listed or (entry.lastmod and held.lastmod == entry.lastmod):
                return ""
            return "lastmod" if entry.lastmod else ("verify" if self._is_due(page.url, held.checked_ms) else "")
        if entry.lastmod and entry.lastmod != held.lastmod:
            return "lastmod"
        return "verify" if self._is_due(url, held.checked_ms) else ""

    def _is_due(self, url: str, checked_ms: int) -> bool:
        return self._now_ms - checked_ms > self._due_ms(url)

    def _due_ms(self, url: str) -> int:
        """Between half of and one and a half `verify`, by the URL: a site's pages are not all due on one day."""
        share = int.from_bytes(hashlib.blake2b(url.encode(), digest_size=2).digest()) / 65_535
        return int(self._verify * (0.5 + share))

    def _is_same_day(self, lastmod: str, fetched_ms: int) -> bool:
        end_ms = end_of_day_ms(lastmod)
        # While that day lasts, one look is enough: asking for all pages again at each run would be no news.
        return fetched_ms < end_ms <= self._now_ms


async def settle_trust(tools: Tools, job_id: str, host: str) -> bool | None:
    """After a fresh job: whether the site's `lastmod` is believed from now on; None where nothing was learnt.

    It is not where a page had changed behind an unchanged `lastmod`; it is again once pages changed and every change
    was announced.
    """
    changed = [one for one in await changes_of(tools.store, job_id) if one.kind == "changed"]
    vouched = [one for one in changed if one.listed and urls.bare_host(urls.host_of(one.url)) == host]
    if not vouched:
        return None
    trusted = not any(one.behind for one in vouched)
    await tools.store.call("HSET", keys.crawl_site(host, "meta"), "trust", "1" if trusted else "0")
    return trusted
