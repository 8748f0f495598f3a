"""A media process's composition."""

from __future__ import annotations

import asyncio

from switchroom.app import Ready, figures_left
from switchroom.app_engine import open_engine
from switchroom.realtime.worker import run_media
from switchroom.settings import Settings
from switchroom.store import Blobs, Store


async def run_media_role(settings: Settings, store: Store, stop: asyncio.Event, ready: Ready) -> None:
    """A media process: carries live calls."""
    blobs = await asyncio.to_thread(Blobs, settings.data / "recordings")
    async with open_engine(settings, store) as parts, figures_left(store, "media"):
        await run_media(
            store,
            blobs=blobs,
            settings=settings.media,
            stop=stop,
            on_ready=lambda: ready(""),
            engine=parts.engine,
            recordings_key=settings.secrets_key.get_secret_value() if settings.secrets_key else None,
        )
