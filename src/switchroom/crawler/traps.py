"""Budgets that end what a site makes up without end: calendars, sort orders, session paths. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from switchroom.crawler import urls

PATTERN_BUDGET = 2000
QUERY_BUDGET = 100
NOVELTY_AFTER = 25
NOVELTY_SHARE = 0.4
_DIGITS = re.compile(r"\d+")


class Traps:
    """Judges the links of one crawl by their pattern (see `urls.pattern_of`). Pages from sitemaps are not judged.

    A pattern is closed when its budget is spent, or when after 25 pages of it fewer than 40 % differ in more than
    numbers: an empty calendar month is like every other.
    """

    def __init__(self) -> None:
        self._links: dict[str, int] = {}
        self._read: dict[str, int] = {}
        self._texts: dict[str, set[bytes]] = {}
        self._closed: set[str] = set()
        self._news: list[str] = []

    def admits(self, url: str) -> str | None:
        """None where the link may be queued, else why not."""
        if reason := urls.trap_reason(url):
            return reason
        pattern = urls.pattern_of(url)
        if pattern in self._closed:
            return "trap"
        if "#" not in pattern and "?" not in pattern:
            return None
        count = self._links[pattern] = self._links.get(pattern, 0) + 1
        return "trap" if count > (QUERY_BUDGET if "?" in pattern else PATTERN_BUDGET) else None

    def read(self, url: str, text: str) -> None:
        """A page was read: remember whether it told anything new."""
        pattern = urls.pattern_of(url)
        if "#" not in pattern and "?" not in pattern:
            return
        count = self._read[pattern] = self._read.get(pattern, 0) + 1
        texts = self._texts.setdefault(pattern, set())
        if len(texts) < PATTERN_BUDGET:
            texts.add(hashlib.blake2b(_DIGITS.sub("", text).encode(), digest_size=8).digest())
        if count >= NOVELTY_AFTER and len(texts) < NOVELTY_SHARE * count and pattern not in self._closed:
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
