"""Budgets that end what a site makes up without end: calendars, sort orders, session paths. Pure."""

from __future__ import annotations

import re
from collections import deque
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
VARIANTS_AFTER = 30
VARIANTS_NEW_SHARE = 0.25
_WORDS_A_GRAM = 4
_REMEMBERED_GRAMS = 200_000


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


class _Variants:
    """What was read of one path under different parameters: do the combinations still tell anything new?"""

    __slots__ = ("grams", "names", "news", "read")

    def __init__(self) -> None:
        self.read = 0
        self.names: set[str] = set()
        self.grams: set[int] = set()
        self.news: deque[float] = deque(maxlen=20)

    def add(self, names: str, text: str) -> bool:
        """Whether the page shows that the path has no more to tell: several sets of parameters are combined, and the
        last pages said, in other order, what others had said (by runs of four words)."""
        words = text.split()
        grams = {hash(tuple(words[at : at + _WORDS_A_GRAM])) for at in range(max(1, len(words) - _WORDS_A_GRAM + 1))}
        self.read += 1
        self.names.add(names)
        self.news.append(len(grams - self.grams) / len(grams))
        if len(self.grams) < _REMEMBERED_GRAMS:
            self.grams |= grams
        few = sum(self.news) < VARIANTS_NEW_SHARE * len(self.news)
        return self.read >= VARIANTS_AFTER and len(self.names) >= 3 and few


class Traps:
    """Judges the links of one crawl by their pattern (see `urls.pattern_of`). Pages from sitemaps are not judged.

    A site may well have thousands of pages that differ in numbers alone. They are a trap where, besides, their
    addresses are dates (an empty calendar month is like every other), they hang one behind the other without end, or
    they are very many. Ways to sort and filter one list have a budget of their own,
    and where combinations of filters only repeat what was read, those of more than one parameter are left.
    """

    def __init__(self) -> None:
        self._sorted: dict[str, int] = {}
        self._kinds: dict[str, _Kind] = {}
        self._variants: dict[str, _Variants] = {}
        self._closed: set[str] = set()
        self._news: list[str] = []

    def admits(self, url: str) -> str | None:
        """None where the link may be queued, else why not."""
        if reason := urls.trap_reason(url):
            return reason
        pattern = urls.pattern_of(url)
        if self._is_shut(pattern):
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
        path, mark, parameters = pattern.partition("?")
        if mark:
            variants = self._variants.get(path)
            if variants is None:
                variants = self._variants[path] = _Variants()
            if f"{path}?*" not in self._closed and variants.add(parameters, text):
                self._closed.add(f"{path}?*")
                self._news.append(f"{path}?*")
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
        return bool(self._closed) and self._is_shut(urls.pattern_of(url))

    def _is_shut(self, pattern: str) -> bool:
        if pattern in self._closed:
            return True
        path, _, names = pattern.partition("?")
        return "&" in names and f"{path}?*" in self._closed
