"""End of turn by what was said: words that hang in the air get more time than a whole sentence.

English only: for other languages set `turn_end` to `silence`, with a longer `hangover_ms`.
"""

from __future__ import annotations

import re

_DANGLING = frozenset(
    """a an the this these my your our his her their its and but or so because if when while that which who whose
    to of for with at in on from by into than as like about my i we they he she is's am were um uh er erm hmm mm
    please can could would should will my well""".split()  # noqa: SIM905
)
_COMPLETE_ALONE = frozenset("please this that these can could would should will so am is's she he we they well".split())  # noqa: SIM905
"""Words that also end a whole sentence: they hang only where nothing came before, or a comma follows."""
_NAMED = frozenset(
    "number name address code reference email mail phone question problem order ticket want need".split()  # noqa: SIM905
)
_HELLO = re.compile(r"(?:(?:yes|so|oh|well)\W+)?(?:hello|hi|hey|good (?:morning|afternoon|evening|day))(?: there)?\W*")
"""Who only greets has not said yet why he calls."""
_SUBORDINATE = frozenset("if when after before once unless although while".split())  # noqa: SIM905
_SUBJECTS = frozenset("i you he she it we they the my your his her our their this that there".split())  # noqa: SIM905
_CLAUSE_WORDS = range(4, 9)
"""`if you can find it` waits for what follows it; `after lunch` and `when it came` are answers, and longer sentences
hold their main clause."""
_SOUNDS_LIKE_DIGITS = frozenset("for fore to too won ate".split())  # noqa: SIM905
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_FEW_DIGITS = 4
_DIGIT_WORDS = frozenset("zero oh one two three four five six seven eight nine double triple".split())  # noqa: SIM905


def hangs(said: str) -> bool:
    """Whether these words sound unfinished: they end with a word that another must follow (`my`, `and`), a comma, a
    hesitation, `my number is`, a bare greeting, a clause that only leads to another (`if you can find it`), or a digit
    or three (numbers are said in groups)."""
    text = said.strip()
    if text.endswith("?") or not text:
        return False
    if text.endswith((",", "-", "–", "—", "...", "…")) or _HELLO.fullmatch(text.casefold()):
        return True
    words = _WORD.findall(text.casefold())
    if not words:
        return False
    last = words[-1]
    if last in ("is", "are", "was"):
        return len(words) > 1 and words[-2] in _NAMED
    if last in _DANGLING:
        return last not in _COMPLETE_ALONE or len(words) == 1
    if words[0] in _SUBORDINATE and words[1:2] and words[1] in _SUBJECTS and len(words) in _CLAUSE_WORDS:
        return "," not in text
    digits = _digits_at_end(words)
    if digits == 1 and words[:-1] and words[-2] not in (*_NAMED, "is"):
        return False  # `the first one`
    return 0 < digits < _FEW_DIGITS


def _digits_at_end(words: list[str]) -> int:
    count = 0
    for word in reversed(words):
        if word.isdigit():
            count += len(word)
        elif word in _DIGIT_WORDS or (count and word in _SOUNDS_LIKE_DIGITS):
            count += 1
        else:
            break
    return count


class ByTranscript:
    """Waits `patience_s` more after words that hang."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s

    def patience_s(self, said: str) -> float:
        return self._patience_s if hangs(said) else 0.0


class AtOnce:
    """The silence alone decides."""

    def patience_s(self, said: str) -> float:
        return 0.0
