"""Which URLs a crawl takes up: from its starts, from sitemaps, from the links of pages."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple

from yarl import URL

from switchroom.crawler import urls
from switchroom.crawler.hosts import Hosts
from switchroom.crawler.jar import Jar
from switchroom.crawler.job import JobSpec
from switchroom.crawler.page import Link
from switchroom.crawler.sitemap import Entry, read_sitemaps
from switchroom.crawler.traps import Traps
from switchroom.net import GuardedClient, OutboundError

log = logging.getLogger(__name__)

BATCH = 500
MAX_JUDGED = 500_000
_TOLD = frozenset({"logout_link", "action_link", "trap", "path_repeats", "path_too_deep", "too_many_parameters"})


def why_not(url: str, words: str, roots: frozenset[str], jar: Jar) -> str | None:
    """Why a URL must not be taken up, None where it may. While signed in, links that change something stay alone."""
    if not urls.in_scope(url, roots):
        return "out_of_scope"
    if urls.ends_session(url, words):
        return "logout_link"
    if urls.changes_something(url, words) and jar.header_for(URL(url)):
        return "action_link"
    return "asset" if urls.is_asset(url) else None


class Admission:
    """Which links of the pages of one crawl are taken up; each URL is judged once, and again with other cookies."""

    def __init__(self, roots: frozenset[str], traps: Traps) -> None:
        self._roots = roots
        self._traps = traps
        self._judged: set[str] = set()

    def forget(self) -> None:
        """Other cookies are there: what must not be followed while signed in may have changed."""
        self._judged.clear()

    def admit(self, links: Iterable[Link], depth: int, jar: Jar) -> tuple[list[tuple[str, int]], Counter[str]]:
        """The links of a page that are new and taken up, with their depth, and counts of those left that are worth
        telling."""
        admitted: list[tuple[str, int]] = []
        left: Counter[str] = Counter()
        judged = self._judged
        for link in links:
            url = link.url
            if url in judged or link.nofollow:
                continue
            if len(judged) < MAX_JUDGED:
                judged.add(url)
            reason = why_not(url, link.words, self._roots, jar)
            if reason is None and urls.is_login_page(url):
                reason = "login_page"
            if reason is None:
                reason = self._traps.admits(url)
            if reason is None:
                admitted.append((url, depth))
            elif reason in _TOLD:
                left["links_left:" + reason] += 1
        return admitted, left


class Batch(NamedTuple):
    """URLs with their depth, what to count, and what sitemaps say of when they changed."""

    links: list[tuple[str, int]]
    counts: Counter[str]
    lastmods: dict[str, str]


def _named_sitemaps(spec: JobSpec) -> list[str]:
    return [start for start in spec.starts if URL(start).path.endswith((".xml", ".xml.gz"))]


async def listed(client: GuardedClient, hosts: Hosts, spec: JobSpec, jar: Jar) -> AsyncIterator[Entry]:
    """What the sitemaps of a job's starts list. A start that is a sitemap is read as one; others are found by
    robots.txt or under their usual names."""
    sitemaps = _named_sitemaps(spec)
    if spec.sitemaps:
        for origin in sorted({str(URL(start).origin()) for start in spec.starts}):
            try:
                robots = await hosts.robots(origin + "/")
            except OutboundError as error:
                log.info("host does not answer for robots.txt", extra={"host": origin, "cause": error.cause})
                continue
            named = [found for one in robots.sitemaps if (found := urls.resolve(origin + "/", one)) is not None]
            sitemaps += named or (f"{origin}/sitemap.xml", f"{origin}/sitemap_index.xml")
    async for entry in read_sitemaps(client, sitemaps, jar, lambda address: hosts.manners(address).turn()):
        yield entry


async def discover(client: GuardedClient, hosts: Hosts, spec: JobSpec, jar: Jar) -> AsyncIterator[Batch]:
    """The starts and then the pages of the sitemaps, in batches."""
    sitemaps = _named_sitemaps(spec)
    yield Batch([(start, 0) for start in spec.starts if start not in sitemaps], Counter(), {})
    roots = frozenset(spec.hosts)
    batch: list[tuple[str, int]] = []
    counts: Counter[str] = Counter()
    lastmods: dict[str, str] = {}
    async for entry in listed(client, hosts, spec, jar):
        if reason := why_not(entry.url, "", roots, jar):
            counts["sitemap_left:" + reason] += 1
            continue
        batch.append((entry.url, 0))
        counts["from_sitemaps"] += 1
        if entry.lastmod:
            lastmods[entry.url] = entry.lastmod
        if len(batch) >= BATCH:
            yield Batch(batch, counts, lastmods)
            batch, counts, lastmods = [], Counter(), {}
    yield Batch(batch, counts, lastmods)
