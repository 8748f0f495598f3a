"""Vectors of texts from any service that speaks OpenAI's embeddings API (`POST /embeddings`)."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import aiohttp
import msgspec
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, SecretStr

from switchroom.errors import Unavailable

__all__ = ["EmbeddingSettings", "Embeddings"]

log = logging.getLogger(__name__)

_AGAIN = frozenset({408, 409, 429, 500, 502, 503, 504})
_PAUSE_S = 0.5
_KEPT = 512
"""Questions whose vectors are remembered: one is asked of several collections, and again."""
_SHORT_CHARS = 2_000


class EmbeddingSettings(BaseModel):
    """The service that turns texts into vectors. `dimensions` asks for shorter vectors where the model can, `retries`
    are the tries after the first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1)
    base_url: HttpUrl = HttpUrl("https://api.openai.com/v1")
    api_key: SecretStr = SecretStr("")
    dimensions: int | None = Field(default=None, ge=1, le=65_536)
    timeout_s: float = Field(default=30.0, gt=0, le=600)
    retries: int = Field(default=2, ge=0, le=10)


class _Row(msgspec.Struct):
    embedding: list[float]
    index: int = 0


class _Reply(msgspec.Struct):
    data: list[_Row]


class Embeddings:
    """A `knowledge.Embedder`. `close()` ends its connections."""

    def __init__(self, settings: EmbeddingSettings) -> None:
        self._settings = settings
        self._url = str(settings.base_url).rstrip("/") + "/embeddings"
        self._session: aiohttp.ClientSession | None = None
        self._known: OrderedDict[str, list[float]] = OrderedDict()
        # Vectors of another length are of another model: they cannot be compared.
        self.model = settings.model + (f"@{settings.dimensions}" if settings.dimensions else "")

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector a text, in order. Raises `Unavailable` where the service does not answer as it should."""
        if len(texts) == 1 and (known := self._known.get(texts[0])) is not None:
            self._known.move_to_end(texts[0])
            return [known]
        body: dict[str, Any] = {"model": self._settings.model, "input": list(texts), "encoding_format": "float"}
        if self._settings.dimensions:
            body["dimensions"] = self._settings.dimensions
        raw = await self._post(msgspec.json.encode(body))
        try:
            rows = sorted(msgspec.json.decode(raw, type=_Reply).data, key=lambda row: row.index)
        except msgspec.DecodeError as error:
            raise _away("its answer is no list of vectors") from error
        if len(rows) != len(texts) or len({len(row.embedding) for row in rows}) > 1:
            raise _away(f"it gave {len(rows)} vectors for {len(texts)} texts")
        if len(texts) == 1 and len(texts[0]) <= _SHORT_CHARS:
            self._known[texts[0]] = rows[0].embedding
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return [row.embedding for row in rows]

    async def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        if key := self._settings.api_key.get_secret_value():
            headers["Authorization"] = f"Bearer {key}"
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._settings.timeout_s))
        what = ""
        for again in range(self._settings.retries + 1):
            if again:
                await asyncio.sleep(_PAUSE_S * 2 ** (again - 1))
            try:
                async with self._session.post(self._url, data=body, headers=headers) as answer:
                    if answer.status == 200:
                        return await answer.read()
                    what = f"it answered {answer.status}"
                    if answer.status not in _AGAIN:
                        break
            except (aiohttp.ClientError, TimeoutError) as error:
                what = f"it cannot be reached ({type(error).__name__})"
        raise _away(what)


def _away(what: str) -> Unavailable:
    return Unavailable(f"The embedding service does not serve: {what}.", code="embeddings_unavailable")
