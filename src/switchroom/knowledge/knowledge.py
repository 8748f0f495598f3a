"""Search over collections: each process follows the library with an index of its own data folder."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from switchroom.errors import NotFound, SwitchroomError
from switchroom.knowledge.answer import Wanted, coverage, snippet, weights_of
from switchroom.knowledge.index import Index, Row
from switchroom.knowledge.languages import telling_words
from switchroom.knowledge.library import MAX_NAME_CHARS, Library, Position, collection_id
from switchroom.knowledge.vectors import Matrix, fused
from switchroom.knowledge.words import detect, spoken_words, terms
from switchroom.store import Store

log = logging.getLogger(__name__)

BATCH = 64
"""Documents that an index takes in at once."""
MAX_QUERY_CHARS = 2_000
MAX_LIMIT = 50
_MAX_WORDS = 32
_LOOKED_AT = 30
_FOLLOW_S = 2.0
_OPEN = 64


class Embedder(Protocol):
    """Turns texts into vectors by a model. `model` names it, so that vectors of another are not mixed in."""

    model: str

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector a text, in order, all of one length. Raises `SwitchroomError` where the service does not answer."""
        ...


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk that was found. `text` is Markdown, `snippet` the sentences in it that answer best, `score` falls from
    the first hit to the last (its size means nothing between two searches), `coverage` the share of the question's
    weight that the chunk holds in words, from 0 to 1."""

    collection: str
    key: str
    url: str
    title: str
    headings: list[str]
    text: str
    snippet: str
    score: float
    coverage: float
    changed_ms: int
    metadata: dict[str, Any]


class Knowledge:
    """The collections in `store`, with indexes in `folder`, which any number of processes may share.

    A search sees every change that was made before it began. With an `embedder` the ranking of words and that of
    meaning are fused; where it does not answer, words alone rank.
    """

    def __init__(self, store: Store, folder: Path, *, embedder: Embedder | None = None) -> None:
        self.library = Library(store)
        self._folder = folder
        self._embedder = embedder
        self._indexes: OrderedDict[str, Index] = OrderedDict()
        self._syncs: dict[str, asyncio.Lock] = {}
        self._matrices: dict[str, Matrix] = {}

    async def close(self) -> None:
        """Close the index files."""
        for index in self._indexes.values():
            await asyncio.to_thread(index.close)
        self._indexes.clear()

    async def resolve(self, spelled: str) -> str:
        """The collection that a canvas or a person means: its name; `<id>:<name>` as canvases write a document store,
        by either part; or a URL, by its host. Raises `NotFound`."""
        spelled = spelled.strip()
        names = [spelled]
        if "://" in spelled:
            names.append(spelled.partition("://")[2].partition("/")[0].removeprefix("www."))
        else:
            names.append(spelled.removeprefix("www."))
            # A host may have a port, so that each colon may be the one between ID and name.
            colons = [place for place, letter in enumerate(spelled[:MAX_NAME_CHARS]) if letter == ":"][:4]
            for place in colons:
                names += [spelled[place + 1 :], spelled[:place]]
        for name in names:
            if name.strip():
                try:
                    return (await self.library.collection(name)).name
                except NotFound:
                    continue
        raise NotFound(f"There is no knowledge collection {spelled!r}.", code="collection_not_found")

    async def search(self, name: str, query: str, *, limit: int = 5) -> list[Hit]:
        """The chunks of a collection that answer `query` best, best first; none where nothing fits.

        Raises `NotFound` for a collection that is not there.
        """
        collection = await self.library.collection(name)
        index = await self._fresh(collection.id)
        query = query[:MAX_QUERY_CHARS]
        found, weights, wanted = await asyncio.to_thread(self._by_words, index, query, max(limit, _LOOKED_AT))
        ranked = [row.chunk for row in found]
        rows = {row.chunk: row for row in found}
        scores = {row.chunk: _merit(row, wanted, weights) for row in found}
        ranked.sort(key=lambda chunk: -scores[chunk])
        if self._embedder is not None and query.strip():
            near = await self._by_meaning(collection.id, index, self._embedder, query)
            missing = [chunk for chunk in near if chunk not in rows]
            if missing:
                rows |= {row.chunk: row for row in await asyncio.to_thread(index.rows, missing)}
            if near:
                scores = fused([ranked, [chunk for chunk in near if chunk in rows]])
                ranked = sorted(scores, key=lambda chunk: -scores[chunk])
        return [
            _hit(collection.name, rows[chunk], scores[chunk], wanted, weights)
            for chunk in ranked[: min(limit, MAX_LIMIT)]
        ]

    async def follow(self) -> None:
        """Keep the indexes of this folder near the library until cancelled, so that a search has little to catch up."""
        while True:
            try:
                for collection in await self.library.collections():
                    await self._fresh(collection.id)
                await self._sweep()
            except SwitchroomError as error:
                log.warning("knowledge cannot be followed now", extra={"code": error.code})
            await asyncio.sleep(_FOLLOW_S)

    def _by_words(self, index: Index, query: str, looked_at: int) -> tuple[list[Row], list[float], Wanted]:
        languages = index.languages()
        telling = telling_words(spoken_words(query), {*languages, detect(query)})
        wanted: list[frozenset[str]] = []
        for word in telling[:_MAX_WORDS]:
            kinds = [frozenset(terms(word, language)) for language in languages]
            if any(len(kind) > 1 for kind in kinds):  # pairs of letters: each counts as a word
                wanted += [frozenset({term}) for term in sorted(frozenset().union(*kinds))]
            elif union := frozenset().union(*kinds):
                wanted.append(union)
        looked_up = sorted(frozenset().union(*wanted)) if wanted else []
        if not looked_up:
            return [], [], []
        total, counts = index.frequencies(looked_up)
        weights = weights_of(wanted, total, counts)
        found = index.match(looked_up, looked_at)
        if not found:
            long = [term for term in looked_up if len(term) >= 4]
            found = (
                index.match([term[: max(4, len(term) - 2)] for term in long], looked_at, prefixes=True) if long else []
            )
        return found, weights, wanted

    async def _by_meaning(self, identity: str, index: Index, embedder: Embedder, query: str) -> list[int]:
        try:
            vector = (await embedder.embed([query]))[0]
        except SwitchroomError as error:
            log.warning("question is not embedded, words alone rank", extra={"code": error.code})
            return []
        position = await asyncio.to_thread(index.position)
        matrix = self._matrices.get(identity)
        if matrix is None or matrix.position != position:
            rows = await asyncio.to_thread(index.vectors, embedder.model)
            matrix = self._matrices[identity] = await asyncio.to_thread(Matrix, position, rows)
        return await asyncio.to_thread(matrix.nearest, np.asarray(vector, np.float32), _LOOKED_AT)

    async def _fresh(self, identity: str) -> Index:
        """The collection's index, with every change that was made before this call."""
        index = self._indexes.get(identity)
        if index is None:
            index = self._indexes[identity] = Index(self._folder / f"{identity}.db")
            while len(self._indexes) > _OPEN:
                _, oldest = self._indexes.popitem(last=False)
                await asyncio.to_thread(oldest.close)
        self._indexes.move_to_end(identity)
        position = await self.library.position(identity)
        if position is None:
            position = Position("", 0, 0)
        if await asyncio.to_thread(index.position) != (position.gen, position.seq):
            async with self._syncs.setdefault(identity, asyncio.Lock()):
                await self._catch_up(identity, index, position)
        return index

    async def _catch_up(self, identity: str, index: Index, position: Position) -> None:
        while True:
            seen = gen, seq = await asyncio.to_thread(index.position)
            anew = gen != position.gen or seq < position.floor or seq > position.seq
            if not anew and seq >= position.seq:
                return
            changes = await self.library.changes(identity, 0 if anew else seq, BATCH)
            if not changes.documents and not changes.gone:
                # Nothing is left under these numbers: what changed there was changed again, or is no more.
                changes = msgspec.structs.replace(changes, seq=position.seq)
            await asyncio.to_thread(index.apply, seen, position.gen, changes, anew=anew)

    async def _sweep(self) -> None:
        """Remove the files of collections that are no more."""
        for path in await asyncio.to_thread(lambda: list(self._folder.glob("*.db"))):
            if await self.library.position(path.stem) is None:
                index = self._indexes.pop(path.stem, None) or Index(path)
                self._matrices.pop(path.stem, None)
                await asyncio.to_thread(index.forget)


def _merit(row: Row, wanted: Wanted, weights: Sequence[float]) -> float:
    """BM25 favours a rare word said often; a question is answered where most of it is spoken of."""
    return row.bm25 * (0.3 + 0.7 * coverage(wanted, weights, row.terms))


def _hit(collection: str, row: Row, score: float, wanted: Wanted, weights: Sequence[float]) -> Hit:
    heads = frozenset(terms(" ".join((row.title, *row.headings)), row.language))
    return Hit(
        collection=collection,
        key=row.key,
        url=row.url,
        title=row.title,
        headings=row.headings,
        text=row.text,
        snippet=snippet(row.text, heads, wanted, weights, row.language),
        score=round(score, 4),
        coverage=round(coverage(wanted, weights, row.terms), 3),
        changed_ms=row.changed_ms,
        metadata=msgspec.json.decode(row.metadata),
    )


__all__ = ["Embedder", "Hit", "Knowledge", "collection_id"]
