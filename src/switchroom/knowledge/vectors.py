"""Vectors of chunks: packed for the store, searched by cosine, and fused with the ranking of words. Pure but numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from switchroom.knowledge.library import Vectors

_RANK = 60
"""Reciprocal rank fusion's constant (Cormack, Clarke and Büttcher, SIGIR 2009)."""


def packed(model: str, rows: Sequence[Sequence[float]]) -> Vectors:
    """Vectors as they are stored: of length 1, half floats."""
    matrix = _unit(np.asarray(rows, np.float32))
    return Vectors(model=model, chunks=len(rows), size=matrix.shape[1], rows=matrix.astype("<f2").tobytes())


class Matrix:
    """The vectors of one collection as it was at `position`; `rows` are (chunk, packed vector)."""

    def __init__(self, position: tuple[str, int], rows: Sequence[tuple[int, bytes]]) -> None:
        self.position = position
        sizes = [len(vector) for _, vector in rows]
        # A model that changed its size under the same name: the older vectors are passed over.
        size = max(set(sizes), key=sizes.count) if sizes else 0
        kept = [(chunk, vector) for chunk, vector in rows if len(vector) == size]
        self._chunks = [chunk for chunk, _ in kept]
        joined = b"".join(vector for _, vector in kept)
        self._vectors = np.frombuffer(joined, "<f2").reshape(len(kept), size // 2).astype(np.float32)

    def nearest(self, vector: NDArray[np.float32], limit: int) -> list[int]:
        """The chunks whose meaning is nearest, nearest first."""
        if not self._chunks or vector.shape[0] != self._vectors.shape[1]:
            return []
        likeness = self._vectors @ _unit(vector[np.newaxis, :])[0]
        top = np.argsort(-likeness)[:limit]
        return [self._chunks[int(place)] for place in top]


def fused(rankings: Sequence[Sequence[int]]) -> dict[int, float]:
    """One score for chunks that several rankings name."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for place, chunk in enumerate(ranking):
            scores[chunk] = scores.get(chunk, 0.0) + 1.0 / (_RANK + place + 1)
    return scores


def _unit(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    return np.asarray(matrix / np.where(lengths == 0.0, 1.0, lengths), np.float32)
