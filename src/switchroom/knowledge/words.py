"""Texts as the terms that the index holds and a question is looked up by: folded, stemmed in their language. Pure."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from threading import local

import Stemmer

from switchroom.knowledge.languages import language_of

# The vowel signs of Indic scripts are no letters to `\\w`, but parts of words.
_LETTER = r"(?:[^\W_]|[\u0900-\u0963\u0966-\u0dff])"
_WORD = re.compile(rf"{_LETTER}+(?:['’]{_LETTER}+)?")
# Scripts that write no blanks between words (and Korean, whose endings cling to them) go in as pairs of letters.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1100-\u11ff\u1780-\u17ff\u3040-\u30ff\u3130-\u318f\u3400-\u9fff\uac00-\ud7af]+")
_STEMMED = frozenset(Stemmer.algorithms())
_CUT = 5
"""Letters that are left of a word in a language without a stemmer: near to one in retrieval (McNamee, Nicholas and
Mayfield, "Addressing morphological variation in alphabetic languages", SIGIR 2009)."""
MAX_TERM_CHARS = 64
_own = local()


def spoken_words(text: str) -> list[str]:
    """The words in lower case, without possessive endings."""
    return [word.replace("’", "'").partition("'")[0] for word in _WORD.findall(text.casefold())]


def detect(text: str) -> str:
    """The language of a text, "" where it does not say."""
    return language_of(spoken_words(text))


def language_to_index(text: str) -> str:
    """The language that a document is indexed in: where a short text does not say, English if its letters allow."""
    return detect(text) or ("english" if text.isascii() else "")


def terms(text: str, language: str) -> list[str]:
    """The terms of a text in order."""
    found: list[str] = []
    for word in spoken_words(text):
        if not word.isascii() and _UNSPACED.search(word):
            found += _pairs(word)
        else:
            found.append(_term(word, language))
    return [term for term in found if term]


def term_of(word: str, language: str) -> str:
    """The term of one word of `spoken_words`."""
    return _term(word, language)


@lru_cache(maxsize=65_536)
def _term(word: str, language: str) -> str:
    word = word[:MAX_TERM_CHARS]
    if any(character.isdigit() for character in word):
        return _folded(word)
    if language in _STEMMED:
        return _folded(_stemmer(language).stemWord(word))
    return _folded(word)[:_CUT]


def _stemmer(language: str) -> Stemmer.Stemmer:
    # A stemmer must not be used by two threads at once.
    kept: dict[str, Stemmer.Stemmer] | None = getattr(_own, "stemmers", None)
    if kept is None:
        kept = _own.stemmers = {}
    if language not in kept:
        kept[language] = Stemmer.Stemmer(language)
    return kept[language]


def _folded(word: str) -> str:
    """Without accents: questions are often typed without them."""
    if word.isascii():
        return word
    apart = unicodedata.normalize("NFKD", word)
    return "".join(
        letter for letter in apart if not unicodedata.combining(letter) and unicodedata.category(letter)[0] in "LMN"
    )


def _pairs(word: str) -> list[str]:
    found: list[str] = []
    last = 0
    for run in _UNSPACED.finditer(word):
        if run.start() > last:
            found.append(_folded(word[last : run.start()]))
        letters = run[0]
        found += [letters[i : i + 2] for i in range(len(letters) - 1)] or [letters]
        last = run.end()
    if last < len(word):
        found.append(_folded(word[last:]))
    return found
