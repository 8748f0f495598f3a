"""What callers speak of, as groups of words that mean the same there: how the embedded responder knows that `reimburse`
is a refund. English, as its speech models are; the groups stand in `concepts.txt`, to be read and mended.

A cue is a word (its stem counts) or several words in a row. `~` before a cue: it counts although it is a denial
(`doesn't work`); other words count only where they are not denied.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import Stemmer

__all__ = ["affirmed", "concepts_of", "is_else", "stems"]


def _groups() -> dict[str, list[str]]:
    """The groups of `concepts.txt`: a name and a colon, then cues between commas; an indented line goes on."""
    text = Path(__file__).with_name("concepts.txt").read_text(encoding="utf-8")
    lines = re.sub(r"\n[ \t]+", " ", text).splitlines()
    pairs = (line.partition(":") for line in lines if line and not line.startswith("#"))
    return {group: [cue.strip() for cue in cues.split(",")] for group, _, cues in pairs}


_ELSE = re.compile(
    r"\b(other|others|otherwise|else|general|anything|none|irrelevant|unrelated|unknown|default|fallback|casual\w*|neutral|"
    r"off.?topic|not related|small talk|unclear|does not match|doesn't match|misc\w*)\b",
    re.I,
)
_DENIALS = frozenset({"not", "don't", "never", "doesn't", "didn't", "isn't", "wasn't", "aren't", "without"})
_NOT_DENIED = frozenset(
    """get got receive received come came arrive arrived understand know remember find see work works working have has
    had think sure happy satisfied good able recognise recognize log load start open turn connect show let accept bad
    possible allowed yet always really paid pay only""".split()  # noqa: SIM905
)
"""What follows a denial that says what is wrong, not what is not meant: `I didn't get my invoice`."""
_TOKENS = re.compile(r"[^\W_]+(?:'[^\W_]+)?", re.UNICODE)
_CLAUSES = re.compile(r"[,.;:!?]+|\b(?:but|just|rather|instead)\b")
_REACH = 7
"""Words that a denial before them reaches."""


@lru_cache(maxsize=8192)
def _stem(word: str) -> str:
    # Made anew: a stemmer is not to be shared between threads.
    return str(Stemmer.Stemmer("english").stemWord(word.removesuffix("'s")))


def _words(text: str) -> list[str]:
    return _TOKENS.findall(text.casefold().replace("’", "'").replace("wi-fi", "wifi"))


def stems(text: str) -> list[str]:
    """The stems of a text's words, in order."""
    return [_stem(word) for word in _words(text)]


def affirmed(text: str) -> list[str]:
    """The clauses of a text without the words that are denied in them."""
    clauses: list[str] = []
    for clause in _CLAUSES.split(text.casefold().replace("’", "'")):
        words = _words(clause)
        denied: set[int] = set()
        for at, word in enumerate(words):
            if word in _DENIALS:
                after = words[at + 1 : at + 2]
                denied |= {at} if after and after[0] in _NOT_DENIED else set(range(at, at + _REACH + 1))
            elif word == "no":
                denied |= {at, at + 1}
        clauses.append(" ".join(word for at, word in enumerate(words) if at not in denied))
    return clauses


def _cues() -> tuple[dict[tuple[str, ...], set[str]], dict[tuple[str, ...], set[str]]]:
    """By the stems of a cue: the groups that it speaks of. First those that a denial takes away, then the others."""
    plain: dict[tuple[str, ...], set[str]] = {}
    firm: dict[tuple[str, ...], set[str]] = {}
    for group, cues in _groups().items():
        for cue in cues:
            place = firm if cue.startswith("~") else plain
            place.setdefault(tuple(stems(cue.lstrip("~"))), set()).add(group)
    return plain, firm


_PLAIN, _FIRM = _cues()


@lru_cache(maxsize=4096)
def concepts_of(text: str) -> dict[str, float]:
    """The groups that a text speaks of, with how plainly: 1 for a word, more for several words in a row."""
    found: dict[str, float] = {}
    for clause in affirmed(text):
        _add(found, stems(clause), _PLAIN)
    for clause in re.split(r"[,.;:!?]+", text):
        _add(found, stems(clause), _FIRM)
    return found


def _add(found: dict[str, float], said: Sequence[str], cues: dict[tuple[str, ...], set[str]]) -> None:
    for size in range(1, 5):
        for at in range(len(said) - size + 1):
            for group in cues.get(tuple(said[at : at + size]), ()):
                found[group] = max(found.get(group, 0.0), 1.0 + 0.4 * (size - 1)) + 0.1


def is_else(scenario: str) -> bool:
    """Whether a scenario stands for what none of the others means."""
    return bool(_ELSE.search(scenario))
