"""Who said what when, as events: the caller's words as they are understood, the agent's as they are heard."""

from __future__ import annotations

import time
from typing import Literal

from switchroom.realtime.ears import Heard
from switchroom.realtime.voice import AgentSpeaking, Emit, Said, VoiceEvent
from switchroom.records.model import Word


class Minutes:
    """One conversation's. Times given are monotonic seconds; events count milliseconds from `begin`."""

    def __init__(self) -> None:
        self.emit: Emit = _nobody
        self.sounding = ""
        """What of the agent began to sound and is not settled."""
        self.zero = time.monotonic()
        """When it began."""
        self._agent_from: float | None = None

    def begin(self, emit: Emit) -> None:
        self.emit = emit
        self.zero = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.zero

    def guess(self, text: str, started: float) -> None:
        """What the caller may be saying."""
        self.emit(Said(role="caller", text=text, final=False, start_ms=self._ms(started), end_ms=self._now_ms()))

    def caller(self, spoken: Heard) -> None:
        self.emit(self._said("caller", spoken))

    def operator(self, spoken: Heard) -> None:
        """An operator's words to the caller."""
        self.emit(self._said("operator", spoken))

    def _said(self, role: Literal["caller", "operator"], spoken: Heard) -> Said:
        start_ms, end_ms, zero = self._ms(spoken.started), self._ms(spoken.ended), spoken.audio_from
        words = tuple(
            Word(text=word.text, start_ms=self._ms(zero + word.start_s), end_ms=self._ms(zero + word.end_s))
            for word in spoken.words
        )
        if words:
            start_ms, end_ms = min(start_ms, words[0].start_ms), max(end_ms, words[-1].end_ms)
        return Said(role=role, text=spoken.text, final=True, start_ms=start_ms, end_ms=end_ms, words=words)

    def sounds(self, text: str) -> None:
        """`text` of the agent begins to leave, or is what is known by now of words that leave."""
        self.sounding = text
        if self._agent_from is None:
            self._agent_from = time.monotonic()
            self.emit(AgentSpeaking(active=True))
        started = self._ms(self._agent_from)
        self.emit(Said(role="agent", text=text, final=False, start_ms=started, end_ms=self._now_ms()))

    def settle(self, heard: str, *, interrupted: bool, ended: float | None = None) -> None:
        """The agent is silent; `heard` is what was heard since it began, until `ended` (None: until now)."""
        started, self._agent_from, self.sounding = self._agent_from, None, ""
        if started is None:
            return
        self.emit(AgentSpeaking(active=False))
        if heard:
            end_ms = self._ms(max(started, time.monotonic() if ended is None else ended))
            self.emit(
                Said(
                    role="agent",
                    text=heard,
                    final=True,
                    start_ms=self._ms(started),
                    end_ms=end_ms,
                    interrupted=interrupted,
                )
            )

    def _ms(self, moment: float) -> int:
        return max(0, round((moment - self.zero) * 1000))

    def _now_ms(self) -> int:
        return self._ms(time.monotonic())


def _nobody(event: VoiceEvent) -> None:
    """Before a conversation runs nobody listens."""
