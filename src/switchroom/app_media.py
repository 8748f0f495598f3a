"""A media process's composition."""

from __future__ import annotations

import asyncio

from switchroom.app import Ready, figures_left
from switchroom.app_knowledge import open_knowledge
from switchroom.engine import Engine, FlowStore
from switchroom.engine.providers import Models
from switchroom.engine.retriever import KnowledgeRetriever
from switchroom.net import GuardedClient
from switchroom.realtime.worker import run_media
from switchroom.settings import Settings
from switchroom.store import Blobs, Store


async def run_media_role(settings: Settings, store: Store, stop: asyncio.Event, ready: Ready) -> None:
    """A media process: carries live calls."""
    blobs = await asyncio.to_thread(Blobs, settings.data / "recordings")
    media = settings.media.model_copy(update={"drain_s": settings.drain_s})
    models, out = Models(settings.providers), GuardedClient(settings.outbound_allow)
    knowledge, embeddings = open_knowledge(settings, store)
    engine = Engine(
        FlowStore(store),
        responder=models,
        variables=settings.variables,
        client=out,
        retriever=KnowledgeRetriever(knowledge),
        programs=settings.mcp_programs,
    )
    try:
        async with figures_left(store, "media"):
            await run_media(
                store,
                blobs=blobs,
                settings=media,
                stop=stop,
                on_ready=lambda: ready(""),
                engine=engine,
                recordings_key=settings.secrets_key.get_secret_value() if settings.secrets_key else None,
            )
    finally:
        await models.close()
        await knowledge.close()
        if embeddings is not None:
            await embeddings.close()
        await out.close()
