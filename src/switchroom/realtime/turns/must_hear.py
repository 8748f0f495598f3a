"""What must be heard cannot be talked over; what was said into it is answered afterwards."""

from __future__ import annotations

from switchroom.realtime.turns.base import AgentTalk, Verdict


class MustHear:
    """`always`: nothing of this agent can be interrupted."""

    def __init__(self, *, always: bool = False) -> None:
        self._always = always

    def judge(self, said: str, talk: AgentTalk) -> Verdict | None:
        return Verdict.KEEP if self._always or talk.must_be_heard else None
