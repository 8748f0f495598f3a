"""Understanding without a model: which of some phrases was meant, and which digits, names and dates were said.

Made for transcripts with small errors: words are compared by their likeness, and a word that tells phrases apart
weighs more than one that they share (inverse document frequency over the candidates).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

__all__ = ["Match", "best", "digits_in", "find_slot", "words"]

_WORDS = re.compile(r"[^\W_]+(?:'[^\W_]+)?", re.UNICODE)
_IDLE = frozenset(
    """a an the i me my we us our you your he she it its this that these those is am are was were be been do does did
    have has had can could will would shall should may might to of in on at for from with by about as and or but if so
    then there here please just some any um uh er ah oh well yes hi hello hey okay ok i'd i'm i'll it's want like need
    get got know tell give let make user caller customer asks asking looking wants what how question questions problem
    issue help thank thanks speak talk connect something anything""".split()  # noqa: SIM905
)
_DENIALS = frozenset({"not", "don't", "never", "doesn't", "didn't", "isn't"})
_DIGITS = {
    "zero": "0", "oh": "0", "o": "0", "nought": "0", "nil": "0", "one": "1", "two": "2", "three": "3", "four": "4",
    "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
}  # fmt: skip
_HOMOPHONES = {
    "to": "2",
    "too": "2",
    "for": "4",
    "fore": "4",
    "won": "1",
    "ate": "8",
    "tree": "3",
    "sex": "6",
    "nein": "9",
}
_TEENS = {
    "ten": "10", "eleven": "11", "twelve": "12", "thirteen": "13", "fourteen": "14", "fifteen": "15",
    "sixteen": "16", "seventeen": "17", "eighteen": "18", "nineteen": "19",
}  # fmt: skip
_TENS = {
    "twenty": "2", "thirty": "3", "forty": "4", "fifty": "5",
    "sixty": "6", "seventy": "7", "eighty": "8", "ninety": "9",
}  # fmt: skip
_TIMES = {"double": 2, "triple": 3}
_MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
_NAME = re.compile(
    r"\b(?i:my name is|this is|i am|i'm|it's|name's|speaking with|call me)\s+((?:[A-Z][\w'-]+)(?:\s+[A-Z][\w'-]+){0,2})"
)
_TOKEN = re.compile(r"\d+|[^\W\d_]+(?:'[^\W\d_]+)?")
_ISO_DATE = re.compile(r"\b(\d{4})-(\d{1,2})-(\d{1,2})\b")
_DAY_MONTH = re.compile(
    rf"\b(?:the\s+)?(\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?({'|'.join(_MONTHS)})\b|\b({'|'.join(_MONTHS)})\s+(?:the\s+)?(\d{{1,2}})",
    re.I,
)

THRESHOLD = 0.5
HEARD = 1_000
"""Characters in which somebody says what they want; the rest is not looked at. Words are compared one by one: a pasted
page of them would stop the process, and all other calls, for seconds."""


class Match(NamedTuple):
    """Which candidate, and how sure from 0 to 1."""

    candidate: int
    score: float


def words(text: str) -> list[str]:
    """Words in small letters without punctuation."""
    return _WORDS.findall(text.casefold().replace("’", "'"))


@lru_cache(maxsize=8192)
def _stem(word: str) -> str:
    """Word without the endings that a transcript most often gets wrong."""
    for ending in ("'s", "ings", "ing", "ies", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


@lru_cache(maxsize=16384)
def _alike(one: str, other: str) -> float:
    """Likeness of two words, 0 where they are not one word misheard."""
    if one == other:
        return 1.0
    one, other = _stem(one), _stem(other)
    if one == other:
        return 0.97
    if min(len(one), len(other)) < 4 or abs(len(one) - len(other)) > 3:
        return 0.0
    ratio = SequenceMatcher(None, one, other).ratio()
    return ratio if ratio >= 0.78 else 0.0


def best(heard: str, candidates: Sequence[Sequence[str]], *, threshold: float = THRESHOLD) -> Match | None:
    """Which candidate (a list of phrases that mean the same) was said; None if none is near.

    A phrase's score is the share of its weight that is found in what was heard. A negation in front (`not an
    operator`) does not count as the word. Ties go to the candidate whose phrase says more.
    """
    said = _affirmed(heard[:HEARD])
    if not said or not candidates:
        return None
    # Two words may be one misheard: `good bye`, `in voice`.
    said += [one + other for one, other in pairwise(said)]
    weights = _weights(candidates)
    found: list[tuple[float, float, int]] = []
    for index, phrases in enumerate(candidates):
        for phrase in phrases:
            tokens = words(phrase)
            total = sum(weights.get(_stem(token), 1.0) for token in tokens)
            if not total:
                continue
            hit = sum(
                weights.get(_stem(token), 1.0) * max((_alike(token, word) for word in said), default=0.0)
                for token in tokens
            )
            found.append((hit / total, hit, -index))
    if not found:
        return None
    score, _, index = max(found, key=lambda item: (round(item[0], 1), item[1], item[2]))
    return Match(-index, score) if score >= threshold else None


def _affirmed(heard: str) -> list[str]:
    """The words without those that are denied: after `not` or `don't` in the same clause, or right after `no`."""
    kept: list[str] = []
    for clause in re.split(r"[,.;:!?]+", heard):
        said = words(clause)
        for index, word in enumerate(said):
            denied = any(before in _DENIALS for before in said[max(0, index - 4) : index])
            denied = denied or said[max(0, index - 1) : index] in (["no"], ["without"])
            if word in _IDLE or not denied:
                kept.append(word)
    return kept


def _weights(candidates: Sequence[Sequence[str]]) -> dict[str, float]:
    count: dict[str, int] = {}
    for phrases in candidates:
        for token in {_stem(token) for phrase in phrases for token in words(phrase)}:
            count[token] = count.get(token, 0) + 1
    size = len(candidates)
    idle = {_stem(word) for word in _IDLE}
    return {
        token: (0.08 if token in idle else 1.0) * (0.3 + math.log((size + 1) / seen) / math.log(size + 1))
        for token, seen in count.items()
    }


def digits_in(text: str) -> list[str]:
    """Runs of digits as they were said: `four one seven`, `double five`, `4-1-7`, `417`, `twenty one`.

    A word that only sounds like a digit (`for`, `to`) counts between two digits, and after `number is`."""
    tokens = _TOKEN.findall(text.casefold())
    parted = {found.start() for found in re.finditer(r"(?<=[,;.!?])\s+(?=\S)", text)}
    starts = [found.start() for found in _TOKEN.finditer(text.casefold())]
    runs: list[str] = []
    run, long = "", False
    index = 0
    while index < len(tokens):
        token = tokens[index]
        after = tokens[index + 1] if index + 1 < len(tokens) else ""
        said = ""
        if token.isdigit():
            said = token
        elif token in _TIMES and after in _DIGITS:
            said, index = _DIGITS[after] * _TIMES[token], index + 1
        elif token in _TIMES and after.isdigit() and len(after) == 1:
            said, index = after * _TIMES[token], index + 1
        elif token in _DIGITS and not (token in ("oh", "o", "one") and not run and not _leads(tokens, index + 1)):
            said = _DIGITS[token]
        elif token in _TEENS:
            said = _TEENS[token]
        elif token in _TENS:
            unit = _DIGITS.get(after, "") if after not in ("oh", "o", "zero") else ""
            said, index = _TENS[token] + (unit or "0"), index + bool(unit)
        elif (
            token in _HOMOPHONES and (run or tokens[max(0, index - 2) : index] == ["number", "is"]) and _digital(after)
        ):
            said = _HOMOPHONES[token]
        if said:
            if run and long != (len(token) > 2 and token.isdigit()) and starts[index] - 1 in parted:
                # `4172, 3 of them`: a number that was written whole ends where the clause does.
                runs.append(run)
                run = ""
            long = len(token) > 2 and token.isdigit()
            run += said
        elif run and token not in ("and", "dash", "hyphen", "space"):
            runs.append(run)
            run = ""
        index += 1
    if run:
        runs.append(run)
    return runs


def _leads(tokens: Sequence[str], index: int) -> bool:
    """Whether a digit stands here, or a word that sounds like one and then a digit."""
    here, after = tokens[index : index + 1], tokens[index + 1 : index + 2]
    return any(map(_digital, here)) or (bool(here) and here[0] in _HOMOPHONES and any(map(_digital, after)))


def _digital(word: str) -> bool:
    return word.isdigit() or word in _DIGITS or word in _TENS or word in _TEENS or word in _TIMES


def find_slot(kind: str, text: str, *, least: int = 1, most: int = 32) -> str | None:
    """The value of a slot in what was said; None if it was not said."""
    match kind:
        case "digits" | "number":
            runs = [run for run in digits_in(text) if least <= len(run) <= most]
            return max(runs, key=len) if runs else None
        case "name":
            named = _NAME.search(text)
            return named[1] if named else None
        case "date":
            return _date(text)
    return text.strip() or None


def _date(text: str) -> str | None:
    iso = _ISO_DATE.search(text)
    if iso:
        return f"{iso[1]}-{int(iso[2]):02d}-{int(iso[3]):02d}"
    spoken = _DAY_MONTH.search(text)
    if spoken:
        day, month = (spoken[1], spoken[2]) if spoken[1] else (spoken[4], spoken[3])
        return f"{int(day)} {month.capitalize()}"
    relative = re.search(
        r"\b(today|tomorrow|yesterday|(?:next |last )?(?:monday|tuesday|wednesday|thursday|friday|saturday|sunday))\b",
        text,
        re.I,
    )
    return relative[1].lower() if relative else None
