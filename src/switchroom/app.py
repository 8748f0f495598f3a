"""Composition: builds the rooms and connects them, one function a role. Each runs until `stop` is set."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

from aiohttp import web

from switchroom.access import Access
from switchroom.engine import Engine, FlowStore
from switchroom.gateway.app import build_gateway
from switchroom.gateway.services import Services
from switchroom.housekeeping import Housekeeping
from switchroom.net import Guard
from switchroom.queue import Feed, Queue
from switchroom.realtime.signalling import SignalClient
from switchroom.records import Executions
from switchroom.settings import Settings, is_loopback
from switchroom.store import Blobs, Store

log = logging.getLogger(__name__)

Role = Literal["api", "media", "crawl"]
Ready = Callable[[str], None]
"""Called once with the role's URL ('' for one that has none) when it can serve."""

SHUTDOWN_S = 10.0
"""How long requests under way may take after a stop."""


async def run_api(settings: Settings, store: Store, stop: asyncio.Event, ready: Ready) -> None:
    """An API node: HTTP, and the housekeeping of the queues."""
    blobs = await asyncio.to_thread(Blobs, settings.data / "recordings")
    queue, feed, flows = Queue(store), Feed(store), FlowStore(store)
    executions = Executions(store, blobs)
    app = build_gateway(
        Services(
            store=store,
            queue=queue,
            feed=feed,
            flows=flows,
            engine=Engine(flows),
            executions=executions,
            access=Access(store, settings.api_keys, allow_open=settings.allow_open or is_loopback(settings.host)),
            blobs=blobs,
            signals=SignalClient(store),
            guard=Guard(settings.outbound_allow),
            max_body_bytes=settings.max_body_bytes,
        )
    )
    if not settings.api_keys:
        log.warning(
            "no API key is configured: requests are accepted without one until a key is created",
            extra={"host": settings.host},
        )
    keeper = Housekeeping(store, queue, executions, call_hours=settings.call_hours, record_days=settings.record_days)
    keeping = asyncio.create_task(keeper.run(), name="housekeeping")
    try:
        await _serve(app, settings.host, settings.port, stop, ready)
    finally:
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
        await feed.close()


async def run_media_role(settings: Settings, store: Store, stop: asyncio.Event, ready: Ready) -> None:
    """A media process: carries live calls."""
    from switchroom.realtime.worker import run_media

    blobs = await asyncio.to_thread(Blobs, settings.data / "recordings")
    media = settings.media.model_copy(update={"drain_s": settings.drain_s})
    await run_media(store, blobs=blobs, settings=media, stop=stop, on_ready=lambda: ready(""))


async def run_sidecar(settings: Settings, store: Store, stop: asyncio.Event, ready: Ready) -> None:
    """The crawl host."""
    from switchroom.sidecar.app import build_sidecar
    from switchroom.sidecar.settings import SidecarSettings

    sidecar = SidecarSettings(
        data_dir=settings.data / "crawl", ingest_secret=settings.ingest_secret, **settings.crawl.model_dump()
    )
    app = await asyncio.to_thread(build_sidecar, sidecar, store)
    if settings.ingest_secret is None:
        log.warning("no ingest secret is configured: cookies and jobs are accepted without X-Ingest-Secret")
    await _serve(app, settings.sidecar_host, settings.sidecar_port, stop, ready)


ROLES: dict[Role, Callable[[Settings, Store, asyncio.Event, Ready], Awaitable[None]]] = {
    "api": run_api,
    "media": run_media_role,
    "crawl": run_sidecar,
}


def store_folder(settings: Settings) -> Path:
    return settings.data / "store"


async def _serve(app: web.Application, host: str, port: int, stop: asyncio.Event, ready: Ready) -> None:
    """Serves `app` until `stop`, then lets requests under way end."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S, handler_cancellation=True)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, reuse_address=True)
        await site.start()
        ready(_url(host, runner))
        await stop.wait()
    finally:
        await runner.cleanup()


def _url(host: str, runner: web.AppRunner) -> str:
    port = runner.addresses[0][1]
    shown = f"[{host}]" if ":" in host else host
    if host in ("0.0.0.0", "::"):  # noqa: S104 - only shown
        shown = socket.gethostname()
    return f"http://{shown}:{port}"
