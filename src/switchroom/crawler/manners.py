"""How a crawl behaves towards hosts: how many at once, how far apart, and when a host asked to be left alone."""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

MAX_RETRY_AFTER_S = 300.0
_BACK_OFF_S = 1.0
_BACK_OFF_MAX_S = 60.0


class Manners:
    """One host's gate. `delay_s` is the least time between two starts (Crawl-delay or the operator's own)."""

    def __init__(self, concurrency: int, delay_s: float) -> None:
        self._gate = asyncio.Semaphore(concurrency)
        self.delay_s = delay_s
        self._next_start = 0.0
        self._strikes = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a place and for the host's time."""
        async with self._gate:
            while (wait := self._next_start - time.monotonic()) > 0:  # noqa: ASYNC110 (time passes, no event)
                await asyncio.sleep(wait)
            if self.delay_s:
                self._next_start = time.monotonic() + self.delay_s
            yield

    def pushed_back(self, retry_after: str | None) -> float:
        """The host answered 429 or 503: leave it alone for `Retry-After`, else twice as long each time. Seconds."""
        self._strikes += 1
        wait = retry_after_s(retry_after)
        if wait is None:
            wait = min(_BACK_OFF_S * 2 ** (self._strikes - 1), _BACK_OFF_MAX_S)
        wait = min(wait, MAX_RETRY_AFTER_S)
        self._next_start = max(self._next_start, time.monotonic() + wait)
        return wait

    def answered(self) -> None:
        """The host answers again."""
        self._strikes = 0


def retry_after_s(value: str | None) -> float | None:
    """A Retry-After header (seconds or an HTTP date, RFC 9110 §10.2.3) as seconds; None where there is none."""
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        when = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
