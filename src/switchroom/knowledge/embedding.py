"""Gives the documents of all collections their vectors, in the background of one process at a time."""

from __future__ import annotations

import asyncio
import logging
import uuid

from switchroom.errors import SwitchroomError
from switchroom.knowledge.chunks import chunks_of
from switchroom.knowledge.knowledge import Embedder
from switchroom.knowledge.library import Held, Library
from switchroom.knowledge.vectors import packed
from switchroom.store import Store, keys

log = logging.getLogger(__name__)

_LOOK_S = 2.0
_LEASE_MS = 120_000
_AT_ONCE = 16
_TEXTS = 64
_PAUSE_S = 30.0


class Embedding:
    """Follows the library with `embedder`'s model. `run` until cancelled."""

    def __init__(self, store: Store, embedder: Embedder) -> None:
        self._store = store
        self._library = Library(store)
        self._embedder = embedder

    async def run(self) -> None:
        while True:
            pause_s = _LOOK_S
            try:
                for collection in await self._library.collections():
                    await self.one(collection.id)
            except SwitchroomError as error:
                log.warning("documents cannot be embedded now", extra={"code": error.code, "cause": error.detail})
                pause_s = _PAUSE_S
            await asyncio.sleep(pause_s)

    async def one(self, identity: str) -> int:
        """Embed what changed in one collection since the last time; returns how many documents."""
        lock, mine = keys.knowledge(identity, "embedding"), uuid.uuid4().hex
        meta, field = keys.knowledge(identity, "meta"), f"embedded:{self._embedder.model}"
        position = await self._library.position(identity)
        if position is None:
            return 0
        seen = int(await self._store.call("HGET", meta, field) or 0)
        if seen >= position.seq or not await self._store.call("SET", lock, mine, "NX", "PX", _LEASE_MS):
            return 0
        done = 0
        try:
            while True:
                changes = await self._library.changes(identity, seen, _AT_ONCE)
                lacking = [held for held in changes.documents if not self._has(held)]
                for held in lacking:
                    done += await self._embed(identity, held)
                if changes.seq == seen or (not changes.documents and not changes.gone):
                    return done
                seen = changes.seq
                await self._store.call("HSET", meta, field, seen)
                await self._store.call("PEXPIRE", lock, _LEASE_MS)
        finally:
            await self._store.call("DEL", lock)

    def _has(self, held: Held) -> bool:
        return held.vectors is not None and held.vectors.model == self._embedder.model

    async def _embed(self, identity: str, held: Held) -> bool:
        document = held.document
        chunks = await asyncio.to_thread(chunks_of, document.text, document.title)
        texts = ["\n".join((document.title, " > ".join(chunk.headings), chunk.text)).strip() for chunk in chunks]
        if not texts:
            return False
        rows: list[list[float]] = []
        for start in range(0, len(texts), _TEXTS):
            rows += await self._embedder.embed(texts[start : start + _TEXTS])
        return await self._library.keep_vectors(identity, held, packed(self._embedder.model, rows))
