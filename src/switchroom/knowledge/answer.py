"""How well a chunk answers a question, and which of its sentences say it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from switchroom.knowledge.chunks import sentences
from switchroom.knowledge.words import spoken_words, term_of

MAX_SNIPPET_CHARS = 420
_MAX_SENTENCES = 3
_NEAR = 0.5

Wanted = Sequence[frozenset[str]]
"""A question: for each of its words the terms that it may be in the languages of a collection."""


def coverage(wanted: Wanted, weights: Sequence[float], held: frozenset[str]) -> float:
    """The share of the question's weight that a chunk's terms hold, from 0 to 1."""
    total = sum(weights)
    return sum(weight for word, weight in zip(wanted, weights, strict=True) if word & held) / total if total else 0.0


def snippet(text: str, heads: frozenset[str], wanted: Wanted, weights: Sequence[float], language: str) -> str:
    """The sentences of a chunk that answer best, at most three. What its headings (`heads`, as terms) say already does
    not have to be said again by a sentence; where nothing else is asked, the first ones are the answer."""
    said = sentences(text)
    if not said:
        return ""
    scores = [_score(sentence, wanted, weights, heads, language) for sentence in said]
    best = max(range(len(said)), key=lambda place: (scores[place], -place))
    if scores[best] <= 0.0:
        chosen = list(range(min(2, len(said))))
    else:
        near = [place for place, score in enumerate(scores) if score >= _NEAR * scores[best]]
        near.sort(key=lambda place: (-scores[place], place))
        chosen = sorted(near[:_MAX_SENTENCES])
        # A sentence that only introduces what follows ("… as follows:") is no answer without it.
        if said[chosen[-1]].endswith(":"):
            chosen += [place for place in (chosen[-1] + 1, chosen[-1] + 2) if place < len(said)]
    out = said[chosen[0]]
    for before, place in pairwise(chosen):
        longer = f"{_ended(out)} {'' if place == before + 1 else '… '}{said[place]}"
        if len(longer) > MAX_SNIPPET_CHARS:
            break
        out = longer
    return out if len(out) <= MAX_SNIPPET_CHARS else out[: MAX_SNIPPET_CHARS - 2].rsplit(" ", 1)[0] + " …"


def _score(sentence: str, wanted: Wanted, weights: Sequence[float], heads: frozenset[str], language: str) -> float:
    held = frozenset(term_of(word, language) for word in spoken_words(sentence))
    return sum(
        weight * (0.25 if word & heads else 1.0) for word, weight in zip(wanted, weights, strict=True) if word & held
    )


def _ended(text: str) -> str:
    return text if text[-1] in ".!?:…。！？," else text + "."


def weights_of(wanted: Wanted, total: int, frequencies: Mapping[str, int]) -> list[float]:
    """What each word of a question weighs: a word that is in few chunks says more (BM25's inverse frequency)."""
    found = []
    for word in wanted:
        count = min(sum(frequencies.get(term, 0) for term in word), total)
        found.append(max(0.1, 1.0 - count / (total + 1.0)) if total else 1.0)
    return found
