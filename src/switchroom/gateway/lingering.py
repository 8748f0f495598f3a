"""Answers that last as long as their client stays: they end when the server stops, and do not hold it up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

_LINGERING = web.AppKey("lingering", set[asyncio.Task[Any]])


def install_lingering(app: web.Application) -> None:
    """Cancels the handlers inside `lingering` when `app` shuts down."""
    app[_LINGERING] = set()
    app.on_shutdown.append(_end)


@contextmanager
def lingering(request: web.Request) -> Iterator[None]:
    """The handler inside is cancelled when the server stops."""
    task = asyncio.current_task()
    assert task is not None
    tasks = request.app[_LINGERING]
    tasks.add(task)
    try:
        yield
    finally:
        tasks.discard(task)


async def _end(app: web.Application) -> None:
    tasks = app[_LINGERING].copy()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
