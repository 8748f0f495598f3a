"""What searches a knowledge store for a flow, and how what was found is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

import msgspec

from switchroom.knowledge import Knowledge

__all__ = ["KnowledgeRetriever", "Passage", "Passages", "Retriever", "passages_of", "source_documents"]


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A found text; `source` says where it is from, a URL or a title. `snippet` are its sentences that answer best, and
    `coverage` the share of the question that it speaks of, from 0 to 1."""

    text: str
    source: str = ""
    title: str = ""
    snippet: str = ""
    score: float = 0.0
    coverage: float = 1.0
    metadata: dict[str, Any] = {}


_NAMED = ("source", "title", "snippet", "score", "coverage")

Passages = Callable[[], Awaitable[list[Passage]]]
"""Searches what a node knows for its question, when somebody wants it."""


class Retriever(Protocol):
    """`store` is spelled as in the canvas (`<id>:<name>`). Raises NotFound for a store that is not there."""

    async def search(self, store: str, query: str, *, limit: int) -> list[Passage]:
        """The best passages first."""
        ...


class KnowledgeRetriever:
    """The collections of this server: a canvas's document store names one (see `Knowledge.resolve`)."""

    def __init__(self, knowledge: Knowledge) -> None:
        self._knowledge = knowledge

    async def search(self, store: str, query: str, *, limit: int) -> list[Passage]:
        name = await self._knowledge.resolve(store)
        return [
            Passage(
                text=hit.text,
                source=hit.url or hit.title or hit.key,
                title=" > ".join(part for part in (hit.title, *hit.headings) if part),
                snippet=hit.snippet,
                score=hit.score,
                coverage=hit.coverage,
                metadata={**hit.metadata, "collection": hit.collection},
            )
            for hit in await self._knowledge.search(name, query, limit=limit)
        ]


def source_documents(passages: Iterable[Passage]) -> list[dict[str, Any]]:
    """Passages as Flowise's clients show sources: `{"pageContent", "metadata": {"source", "title", …}}`, each once."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for one in passages:
        known = {"source": one.source, "title": one.title, "score": one.score, "coverage": one.coverage}
        told = {**one.metadata, **known, "snippet": one.snippet}
        found.setdefault((one.source, one.text), {"pageContent": one.text, "metadata": told})
    return list(found.values())


def passages_of(documents: Any) -> list[Passage]:
    """The passages that `source_documents` made a node's output of."""
    if not isinstance(documents, list):
        return []
    found = []
    for row in documents:
        if isinstance(row, dict) and isinstance(row.get("metadata"), dict):
            told = dict(row["metadata"])
            named = {name: told.pop(name) for name in _NAMED if name in told}
            found.append(Passage(text=str(row.get("pageContent", "")), metadata=told, **named))
    return found
