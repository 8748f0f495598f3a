"""Signs of listening (`mm-hm`, `okay`) and what a recogniser makes of a cough do not stop the agent."""

from __future__ import annotations

import re
from collections.abc import Iterable

from switchroom.realtime.turns.base import AgentTalk, Verdict

_NOT_A_LETTER = re.compile(r"[^\w]+")
_DOUBLED = re.compile(r"(.)\1+")
_MOST_WORDS = 3


def plain(text: str) -> str:
    """Small letters only, each once: `Mm-hmm.` and `mm hm` are one."""
    return _DOUBLED.sub(r"\1", _NOT_A_LETTER.sub("", text.casefold()))


class Backchannels:
    """`sounds` are the words that say no more than `I hear you`. Where the agent has asked something they are an
    answer, and where it has not been heard yet they are the caller's own turn."""

    def __init__(self, sounds: Iterable[str]) -> None:
        self._sounds = {plain(sound) for sound in sounds}

    def judge(self, said: str, talk: AgentTalk) -> Verdict | None:
        if not talk.heard or talk.asks:
            return None
        parts = said.split()
        whole = plain(said) in self._sounds
        each = len(parts) <= _MOST_WORDS and all(plain(part) in self._sounds for part in parts if plain(part))
        return Verdict.GO_ON if whole or each else None
