"""Leaves the figures of a process that serves no scraper in the store, for `/metrics` of the API."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from switchroom import metrics
from switchroom.errors import SwitchroomError
from switchroom.store import Store, keys

log = logging.getLogger(__name__)

EVERY_S = 5.0
LIFE_MS = 20_000
"""A process that left none for so long is gone, and its figures with it."""


async def leave_snapshots(store: Store, role: str, before: Callable[[], Awaitable[None]] | None = None) -> None:
    """Until cancelled; `before` brings figures up to date that are only looked at."""
    name = metrics.process_name(role)
    try:
        while True:
            try:
                if before is not None:
                    await before()
                text = await metrics.own_figures()
                await store.call("SADD", keys.metric_processes(), name)
                await store.call("SET", keys.metric_snapshot(name), text, "PX", LIFE_MS)
            except SwitchroomError as error:
                log.warning("figures could not be left in the store", extra={"error": error.detail})
            await asyncio.sleep(EVERY_S)
    finally:
        try:
            async with asyncio.timeout(1):
                await store.call("DEL", keys.metric_snapshot(name))
                await store.call("SREM", keys.metric_processes(), name)
        except (SwitchroomError, TimeoutError):
            log.info("a process left without withdrawing its figures", extra={"process": name})
