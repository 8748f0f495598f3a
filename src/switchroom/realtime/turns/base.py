"""What the strategies have in common."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto
from typing import NamedTuple, Protocol

_NEARLY_DONE_S = 1.0


class AgentTalk(NamedTuple):
    """What the agent is saying while somebody speaks into it. `heard` is what began to sound, `left_s` how much audio
    still waits, `more` whether the flow may add to it."""

    heard: str = ""
    left_s: float = 0.0
    more: bool = False
    must_be_heard: bool = False

    @property
    def asks(self) -> bool:
        """A question was heard, or the end is near: a short word is an answer, not a sign of listening."""
        return "?" in self.heard or (not self.more and self.left_s < _NEARLY_DONE_S)


class Verdict(Enum):
    """What words said into the agent's voice are."""

    STOP = auto()
    """An interruption: the agent stops, the words are a turn."""
    GO_ON = auto()
    """None: the agent goes on, the words stay on record and are not answered."""
    KEEP = auto()
    """The agent goes on; when it has ended, the words are a turn."""


class Interruption(Protocol):
    """Judges words said into the agent's voice; None for no opinion, the next strategy is asked."""

    def judge(self, said: str, talk: AgentTalk) -> Verdict | None: ...


class EndOfTurn(Protocol):
    """Judges words after which the caller fell silent."""

    def patience_s(self, said: str) -> float:
        """How much longer to wait for more words before this is answered; 0 for not at all."""
        ...


def judge(strategies: Iterable[Interruption], said: str, talk: AgentTalk) -> Verdict:
    """The first opinion; without any, words interrupt."""
    for strategy in strategies:
        if (verdict := strategy.judge(said, talk)) is not None:
            return verdict
    return Verdict.STOP
