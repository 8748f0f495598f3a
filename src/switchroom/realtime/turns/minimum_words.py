"""Fewer words than so many do not stop the agent, unless it asked something."""

from __future__ import annotations

from switchroom.realtime.turns.base import AgentTalk, Verdict


class MinimumWords:
    def __init__(self, words: int) -> None:
        self._words = words

    def judge(self, said: str, talk: AgentTalk) -> Verdict | None:
        if not talk.heard or talk.asks or len(said.split()) >= self._words:
            return None
        return Verdict.GO_ON
