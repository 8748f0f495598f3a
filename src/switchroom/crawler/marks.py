"""What a person wants of a site's pages: `use`, `ignore` or `delete`, and how each is read.

A mark stands under a page's URL, or under a pattern with `*` in it, which also holds for pages that are found later; the
longest pattern that fits wins, and a URL's own mark before any pattern.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from switchroom.crawler import urls
from switchroom.crawler.job import ExtractMode, RenderMode
from switchroom.store import Store, keys

Mark = Literal["use", "ignore", "delete"]
MAX_PATTERNS = 1_000
_VERSION = "version"


class Choice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`use`: read and found by searches. `ignore`: known, but neither read nor found; its last text stays in the folder.
    `delete`: its text is removed, and no crawl brings it back. The options win over those of a job."""

    mark: Mark = "use"
    render: RenderMode | None = None
    extract: ExtractMode | None = None
    images: bool | None = None


USE = Choice()


class Marks:
    """The marks of some hosts, as they were read."""

    def __init__(self, exact: dict[str, Choice] | None = None, patterns: Mapping[str, Choice] | None = None) -> None:
        self._exact = exact or {}
        ordered = sorted((patterns or {}).items(), key=lambda item: -len(item[0]))
        self._patterns = [(fitting(pattern), choice) for pattern, choice in ordered]

    def of(self, url: str) -> Choice:
        """What is wanted of `url`."""
        found = self._exact.get(url)
        if found is not None:
            return found
        for fits, choice in self._patterns:
            if fits.fullmatch(url):
                return choice
        return USE


def fitting(pattern: str) -> re.Pattern[str]:
    """A pattern as an expression: `*` stands for any letters."""
    return re.compile(".*".join(re.escape(part) for part in pattern.split("*")))


async def versions(store: Store, hosts: Iterable[str]) -> list[int]:
    """A number a host that grows with each change of its marks."""
    return [int(await store.call("HGET", keys.crawl_site(host, "meta"), _VERSION) or 0) for host in hosts]


async def load(store: Store, hosts: Iterable[str]) -> Marks:
    """The marks of `hosts`."""
    exact: dict[str, Choice] = {}
    patterns: dict[str, Choice] = {}
    for host in hosts:
        for name, choice in (await all_of(store, host)).items():
            (patterns if "*" in name else exact)[name] = choice
    return Marks(exact, patterns)


async def all_of(store: Store, host: str) -> dict[str, Choice]:
    """The marks of one host, by URL and by pattern."""
    raw = await store.call("HGETALL", keys.crawl_site(host, "marks"))
    return {raw[i].decode(): msgspec.json.decode(raw[i + 1], type=Choice) for i in range(0, len(raw), 2)}


async def keep(store: Store, host: str, choices: Mapping[str, Choice | None]) -> None:
    """Set marks (None takes one away)."""
    name = keys.crawl_site(host, "marks")
    kept = [part for url, choice in choices.items() if choice is not None for part in (url, msgspec.json.encode(choice))]
    gone = [url for url, choice in choices.items() if choice is None]
    if kept:
        await store.call("HSET", name, *kept)
    if gone:
        await store.call("HDEL", name, *gone)
    await store.call("HINCRBY", keys.crawl_site(host, "meta"), _VERSION, 1)


def host_of(url: str) -> str:
    """The site that a URL (or a pattern that begins like one) belongs to."""
    return urls.bare_host(urls.host_of(url))
