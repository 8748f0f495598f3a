"""Which scenario some words fit, without a model: by the phrases that mean it, by shared words, and by what they speak
of (`concepts`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from switchroom.engine.concepts import affirmed, concepts_of, is_else, stems
from switchroom.engine.match import best
from switchroom.engine.responder import Scenario

__all__ = ["fitting", "spoken_of"]

_SAID = 0.75
"""A phrase that was said almost whole decides."""
_LEAST = 0.35
_PLAINLY, _AHEAD = 0.9, 0.3
_FILLERS = frozenset(
    stems(
        """a an the i me my we us our you your he she it its this that these those is am are was were be been
        do does did have has had can could will would should may might to of in on at for from with
        by about as and or if so then there here please some any um well want like need get got know
        tell give let make user caller customer ask asking want what how when where why who which
        question problem issue help something contains and related"""
    )
)


def fitting(question: str, scenarios: Sequence[Scenario]) -> int:
    """The index of the scenario that fits best; where none does, of the one that stands for everything else (the last,
    if none says so)."""
    phrases = [[item.scenario, *item.examples] for item in scenarios]
    named = [
        item.examples if is_else(item.scenario) and len(item.scenario.split()) < 3 else group
        for item, group in zip(scenarios, phrases, strict=True)
    ]
    said = best(". ".join(affirmed(question)), named, threshold=_SAID)
    if said is not None and said.score >= _SAID:
        return said.candidate
    scores = _scores(question, phrases)
    # What stands for everything else is taken when it is plainly meant, or nothing else is.
    top = max(range(len(scores)), key=lambda at: (round(scores[at], 3), not is_else(scenarios[at].scenario), -at))
    if scores[top] >= _LEAST:
        return top
    found = best(". ".join(affirmed(question)), named, threshold=0.34)
    if found is not None:
        return found.candidate
    return next((at for at, item in enumerate(scenarios) if is_else(item.scenario)), len(scenarios) - 1)


def spoken_of(question: str, phrases: Sequence[Sequence[str]]) -> int | None:
    """Which of some groups of phrases the words plainly speak of; None where none, or two alike. That they share a word
    is not enough."""
    scores = _by_concepts(question, phrases, mainly=True)
    ranked = sorted(((score, -at) for at, score in enumerate(scores)), reverse=True)
    if not ranked or ranked[0][0] < _PLAINLY or (len(ranked) > 1 and ranked[0][0] - ranked[1][0] < _AHEAD):
        return None
    return -ranked[0][1]


def _scores(question: str, phrases: Sequence[Sequence[str]]) -> list[float]:
    return [
        own + shared for own, shared in zip(_by_concepts(question, phrases), _by_words(question, phrases), strict=True)
    ]


def _by_concepts(question: str, phrases: Sequence[Sequence[str]], *, mainly: bool = False) -> list[float]:
    """`mainly`: only by what a group speaks of most (`have a nice day` among farewells is no praise)."""
    spoken = concepts_of(question)
    meant = [concepts_of(". ".join(group)) for group in phrases]
    if mainly:
        meant = [{one: much for one, much in own.items() if much > 0.6 * max(own.values())} for own in meant]
    size = len(meant)
    scores: list[float] = []
    for own in meant:
        score = 0.0
        for concept in own.keys() & spoken.keys():
            # A concept that every scenario speaks of tells none of them apart.
            holders = sum(concept in other for other in meant)
            score += spoken[concept] * (0.15 + math.log((size + 1) / holders) / math.log(size + 1))
        scores.append(score / math.sqrt(1 + 0.15 * len(own)))
    return scores


def _by_words(question: str, phrases: Sequence[Sequence[str]]) -> list[float]:
    spoken = {stem for clause in affirmed(question) for stem in stems(clause)} - _FILLERS
    meant = [{stem for phrase in group for clause in affirmed(phrase) for stem in stems(clause)} for group in phrases]
    scores: list[float] = []
    for own in meant:
        shared = (own - _FILLERS) & spoken
        scores.append(sum(0.9 / sum(stem in other for other in meant) for stem in shared))
    return scores
