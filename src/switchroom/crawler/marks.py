"""What a person wants of a site's pages: `use`, `ignore` or `delete`, and how each is read.

A mark stands under a page's URL, or under a pattern with `*` in it, which also holds for pages that are found later;
the longest pattern that fits wins, and a URL's own mark before any pattern.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import msgspec

from switchroom.crawler import urls
from switchroom.crawler.job import ExtractMode, RenderMode
from switchroom.store import Store, keys

Mark = Literal["use", "ignore", "delete"]
MAX_PATTERNS = 1_000
_VERSION = "version"


class Choice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`use`: read and found by searches. `ignore`: known, but neither read nor found; its last text stays in the
    folder. `delete`: its text is removed, and no crawl brings it back. The options win over those of a job."""

    mark: Mark = "use"
    render: RenderMode | None = None
    extract: ExtractMode | None = None
    images: bool | None = None


USE = Choice()


class HostMarks:
    """The marks of one host, as they were read."""

    def __init__(self, choices: Mapping[str, Choice]) -> None:
        self._exact = {name: choice for name, choice in choices.items() if "*" not in name}
        patterns = sorted((name for name in choices if "*" in name), key=lambda name: -len(name))
        self._patterns = [(fitting(name), choices[name]) for name in patterns]

    def of(self, url: str) -> Choice:
        """What is wanted of `url`."""
        found = self._exact.get(url)
        if found is not None:
            return found
        for fits, choice in self._patterns:
            if fits.fullmatch(url):
                return choice
        return USE


class Marks:
    """The marks of all the hosts of a crawl."""

    def __init__(self) -> None:
        self._hosts: dict[str, HostMarks] = {}

    def take(self, host: str, found: HostMarks) -> None:
        """The host's marks from now on."""
        self._hosts[host] = found

    def of(self, url: str) -> Choice:
        """What is wanted of `url`."""
        if not self._hosts:
            return USE
        found = self._hosts.get(host_of(url))
        return USE if found is None else found.of(url)


def fitting(pattern: str) -> re.Pattern[str]:
    """A pattern as an expression: `*` stands for any letters."""
    return re.compile(".*".join(re.escape(part) for part in pattern.split("*")))


async def version(store: Store, host: str) -> int:
    """A number that grows with each change of a host's marks."""
    return int(await store.call("HGET", keys.crawl_site(host, "meta"), _VERSION) or 0)


async def all_of(store: Store, host: str) -> dict[str, Choice]:
    """The marks of one host, by URL and by pattern."""
    raw = await store.call("HGETALL", keys.crawl_site(host, "marks"))
    return {raw[i].decode(): msgspec.json.decode(raw[i + 1], type=Choice) for i in range(0, len(raw), 2)}


async def keep(store: Store, host: str, choices: Mapping[str, Choice | None]) -> None:
    """Set marks (None takes one away)."""
    name = keys.crawl_site(host, "marks")
    kept = [
        part for url, choice in choices.items() if choice is not None for part in (url, msgspec.json.encode(choice))
    ]
    gone = [url for url, choice in choices.items() if choice is None]
    if kept:
        await store.call("HSET", name, *kept)
    if gone:
        await store.call("HDEL", name, *gone)
    await store.call("HINCRBY", keys.crawl_site(host, "meta"), _VERSION, 1)


def host_of(url: str) -> str:
    """The site that a URL (or a pattern that begins like one) belongs to."""
    if url.startswith("local-pdf:"):
        return "local_pdf"  # `output.LOCAL_PDF`, which imports this module
    return urls.bare_host(urls.host_of(url))
