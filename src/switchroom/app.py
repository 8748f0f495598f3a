"""Composition: what the roles share. Each role builds and connects its rooms in a file of its own, `app_<role>.py`, so
that a process loads only what it runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Literal, Protocol

from aiohttp import web

from switchroom.settings import Settings
from switchroom.snapshots import leave_snapshots
from switchroom.store import Store

log = logging.getLogger(__name__)

Role = Literal["api", "media", "crawl"]
Ready = Callable[[str], None]
"""Called once with the role's URL ('' for one that has none) when it can serve."""

RESTART_S = 1.0
"""Pause before background work that broke starts again."""
SHUTDOWN_S = 10.0
"""How long requests under way may take after a stop."""
BACKLOG = 1_024
"""Connections that may wait to be accepted: a campaign opens many at once."""


def store_folder(settings: Settings) -> Path:
    return settings.data / "store"


async def kept_up(work: Callable[[], Awaitable[None]]) -> None:
    """Background work until cancelled: what breaks it is logged, and it starts again."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("background work broke; it starts again", extra={"work": getattr(work, "__qualname__", "")})
        await asyncio.sleep(RESTART_S)


@contextlib.asynccontextmanager
async def figures_left(
    store: Store, role: Role, before: Callable[[], Awaitable[None]] | None = None
) -> AsyncIterator[None]:
    """Leaves this process's figures in the store meanwhile."""
    leaving = asyncio.create_task(kept_up(lambda: leave_snapshots(store, role, before)), name="figures")
    try:
        yield
    finally:
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)


class Lane(Protocol):
    """What stands before an application's server and takes some of its requests itself."""

    def __call__(self) -> asyncio.Protocol: ...

    async def close(self, timeout_s: float) -> None: ...


async def serve_http(
    app: web.Application,
    host: str,
    port: int,
    stop: asyncio.Event,
    ready: Ready,
    lane: Callable[[web.Application, Callable[[], asyncio.Protocol]], Lane] | None = None,
) -> None:
    """Serves `app`, behind a lane where there is one, until `stop`; then lets requests under way end."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S, handler_cancellation=True)
    await runner.setup()
    assert runner.server is not None
    front = lane(app, runner.server) if lane else None
    try:
        server = await asyncio.get_running_loop().create_server(
            front or runner.server, host, port, reuse_address=True, backlog=BACKLOG
        )
        ready(_url(host, server))
        await stop.wait()
        server.close()
        if front is not None:
            await front.close(SHUTDOWN_S)
    finally:
        await runner.cleanup()


def _url(host: str, server: asyncio.Server) -> str:
    port = server.sockets[0].getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    if host in ("0.0.0.0", "::"):  # noqa: S104 - only shown
        shown = socket.gethostname()
    return f"http://{shown}:{port}"
