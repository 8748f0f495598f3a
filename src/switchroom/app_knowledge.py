"""What the flows of the API and of live calls search: one composition for both."""

from __future__ import annotations

from switchroom.engine.providers.embeddings import Embeddings
from switchroom.knowledge import Knowledge
from switchroom.settings import Settings
from switchroom.store import Store


def open_knowledge(settings: Settings, store: Store) -> tuple[Knowledge, Embeddings | None]:
    """What flows search, and the service of its vectors where one is set. Both are the caller's to close."""
    embeddings = Embeddings(settings.embeddings) if settings.embeddings is not None else None
    return Knowledge(store, settings.data / "knowledge", embedder=embeddings), embeddings
