"""The engine that runs flows, with what it reaches: one composition for text turns and for live calls."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from switchroom.engine import Bounds, Engine, FlowStore
from switchroom.engine.providers import Models
from switchroom.engine.providers.embeddings import Embeddings
from switchroom.engine.retriever import KnowledgeRetriever
from switchroom.knowledge import Knowledge
from switchroom.net import GuardedClient
from switchroom.settings import Settings
from switchroom.store import Store


@dataclass(frozen=True, kw_only=True)
class EngineParts:
    """`out` is the guarded way to other hosts; `embeddings` the service of knowledge's vectors, where one is set."""

    engine: Engine
    flows: FlowStore
    knowledge: Knowledge
    embeddings: Embeddings | None
    out: GuardedClient


@contextlib.asynccontextmanager
async def open_engine(settings: Settings, store: Store, bounds: Bounds | None = None) -> AsyncIterator[EngineParts]:
    """Closes at its end what it opened, but not the store."""
    async with contextlib.AsyncExitStack() as opened:
        out = GuardedClient(settings.outbound_allow)
        opened.push_async_callback(out.close)
        embeddings = Embeddings(settings.embeddings) if settings.embeddings is not None else None
        if embeddings is not None:
            opened.push_async_callback(embeddings.close)
        knowledge = Knowledge(store, settings.data / "knowledge", embedder=embeddings)
        opened.push_async_callback(knowledge.close)
        models = Models(settings.providers)
        opened.push_async_callback(models.close)
        flows = FlowStore(store)
        engine = Engine(
            flows,
            responder=models,
            variables=settings.variables,
            bounds=bounds,
            client=out,
            retriever=KnowledgeRetriever(knowledge),
            programs=settings.mcp_programs,
        )
        yield EngineParts(engine=engine, flows=flows, knowledge=knowledge, embeddings=embeddings, out=out)
