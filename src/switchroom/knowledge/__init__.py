"""Documents by collection, durable in the store, and the search over them."""

from switchroom.knowledge.embedding import Embedding
from switchroom.knowledge.knowledge import Embedder, Hit, Knowledge
from switchroom.knowledge.library import MAX_TEXT_CHARS, Collection, Document, Library

__all__ = ["MAX_TEXT_CHARS", "Collection", "Document", "Embedder", "Embedding", "Hit", "Knowledge", "Library"]
