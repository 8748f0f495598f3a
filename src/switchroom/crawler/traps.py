"""Budgets that end what a site makes up without end: calendars, sort orders, session paths. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from switchroom.crawler import urls

NOVELTY_AFTER = 25
NOVELTY_SHARE = 0.4
CHAIN_LEVELS = 12
ALIKE_BUDGET = 10_000
SORT_BUDGET = 100
_NO_DIGITS = dict.fromkeys(range(ord("0"), ord("9") + 1))
_DATED = re.compile(
    r"[/=_-](?:19|20|21)\d\d[/_-]\d{1,2}(?!\d)|[?&](?:y|year|m|month|d|day|date|week|from|to)=\d", re.IGNORECASE
)
_SORTS = frozenset({
    "sort", "order", "orderby", "sortby", "dir", "direction", "view", "filter", "layout", "limit", "per_page",
    "perpage",
})  # fmt: skip
_REMEMBERED_TEXTS = 5000


class _Kind:
    """What was read of one pattern: how many pages, their texts without numbers, at what distances from a start."""

    __slots__ = ("deepest", "nearest", "read", "texts")

    def __init__(self) -> None:
        self.read = 0
        self.texts: set[int] = set()
        self.nearest = 1_000_000
        self.deepest = 0

    @property
    def alike(self) -> bool:
        """Whether the pages differ in little more than their numbers."""
        return self.read >= NOVELTY_AFTER and len(self.texts) < NOVELTY_SHARE * self.read


class Traps:
    """Judges the links of one crawl by their pattern (see `urls.pattern_of`). Pages from sitemaps are not judged.

    A site may well have thousands of pages that differ in numbers alone. They are a trap where, besides, their
    addresses are dates (an empty calendar month is like every other), they hang one behind the other without end, or
    they are very many. Ways to sort and filter one list have a budget of their own.
    """

    def __init__(self) -> None:
        self._sorted: dict[str, int] = {}
        self._kinds: dict[str, _Kind] = {}
        self._closed: set[str] = set()
        self._news: list[str] = []

    def admits(self, url: str) -> str | None:
        """None where the link may be queued, else why not."""
        if reason := urls.trap_reason(url):
            return reason
        pattern = urls.pattern_of(url)
        if pattern in self._closed:
            return "trap"
        names = pattern.partition("?")[2].lower().split("&")
        if not _SORTS.isdisjoint(names) or len(names) > 3:
            count = self._sorted[pattern] = self._sorted.get(pattern, 0) + 1
            return "trap" if count > SORT_BUDGET else None
        return None

    def read(self, url: str, text: str, depth: int) -> None:
        """A page was read, `depth` links away from a start: remember whether it told anything new."""
        pattern = urls.pattern_of(url)
        if "#" not in pattern and "?" not in pattern:
            return
        kind = self._kinds.get(pattern)
        if kind is None:
            kind = self._kinds[pattern] = _Kind()
        kind.read += 1
        kind.nearest, kind.deepest = min(kind.nearest, depth), max(kind.deepest, depth)
        if len(kind.texts) < _REMEMBERED_TEXTS:
            kind.texts.add(hash(text.translate(_NO_DIGITS)))
        if pattern in self._closed or not kind.alike:
            return
        chained = kind.deepest - kind.nearest >= CHAIN_LEVELS
        if chained or kind.read >= ALIKE_BUDGET or _DATED.search(url):
            self._closed.add(pattern)
            self._news.append(pattern)

    def close(self, patterns: Iterable[str]) -> None:
        """Patterns that another runner of the job, or this one in an earlier life, found to be traps."""
        self._closed.update(patterns)

    def take_news(self) -> list[str]:
        """The patterns that were closed since the last call."""
        news, self._news = self._news, []
        return news

    def is_closed(self, url: str) -> bool:
        """Whether the pattern of `url` was closed after it had been queued."""
        return bool(self._closed) and urls.pattern_of(url) in self._closed
