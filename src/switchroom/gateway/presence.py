"""Whether the client is still there while a long answer is made for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

LOOK_S = 0.1
"""How often the connection is looked at: a client that left stops its work within this."""


@asynccontextmanager
async def while_connected(request: web.Request) -> AsyncIterator[None]:
    """Cancels the body when the client leaves, and raises `ConnectionResetError` then.

    Only for work that a cancel leaves whole; aiohttp's own `handler_cancellation` would do it to every handler.
    """
    body = asyncio.current_task()
    assert body is not None
    left = False

    async def watch() -> None:
        nonlocal left
        while True:
            if request.transport is None or request.transport.is_closing():
                break
            await asyncio.sleep(LOOK_S)
        left = True
        body.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if left and body.uncancel() == 0:
            raise ConnectionResetError("the client left") from None
        raise
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
