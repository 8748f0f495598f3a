"""The crawl host's composition."""

from __future__ import annotations

import asyncio

from switchroom.app import Ready, figures_left, serve_http
from switchroom.settings import Settings
from switchroom.sidecar.app import build_sidecar
from switchroom.sidecar.figures import count_crawl
from switchroom.sidecar.settings import SidecarSettings
from switchroom.store import Store


async def run_sidecar(settings: Settings, store: Store, stop: asyncio.Event, ready: Ready) -> None:
    """The crawl host."""
    sidecar = SidecarSettings(
        data_dir=settings.data / "crawl", ingest_secret=settings.ingest_secret, **settings.crawl.model_dump()
    )
    app = await asyncio.to_thread(build_sidecar, sidecar, store)
    async with figures_left(store, "crawl", lambda: count_crawl(store)):
        await serve_http(app, settings.sidecar_host, settings.sidecar_port, stop, ready)
