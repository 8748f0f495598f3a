"""What searches a knowledge store for a flow."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

__all__ = ["Passage", "Retriever"]


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A found text; `source` says where it is from, a URL or a title."""

    text: str
    source: str = ""
    score: float = 0.0
    metadata: dict[str, Any] = {}


class Retriever(Protocol):
    """`store` is spelled as in the canvas (`<id>:<name>`). Raises NotFound for a store that is not there."""

    async def search(self, store: str, query: str, *, limit: int) -> list[Passage]:
        """The best passages first."""
        ...
