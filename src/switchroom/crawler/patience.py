"""A store that is away for a while stops a crawl for that while; it does not end it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from switchroom.errors import Unavailable

log = logging.getLogger(__name__)

_PAUSE_S = 0.5
T = TypeVar("T")


def store_is_away(error: BaseException) -> bool:
    """Whether `error` says that the store does not answer now."""
    return isinstance(error, Unavailable) and error.code in ("store_unavailable", "store_overloaded", "not_replicated")


async def patiently(work: Callable[[], Awaitable[T]]) -> T:
    """The result of `work`, which is done again for as long as the store is away: it must bear being done twice."""
    while True:
        try:
            return await work()
        except Unavailable as error:
            if not store_is_away(error):
                raise
            log.warning("the store is waited for", extra={"code": error.code})
            await asyncio.sleep(_PAUSE_S)
