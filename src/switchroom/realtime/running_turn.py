"""A turn on its way, and the caller's words that are to become one."""

from __future__ import annotations

import asyncio
import time
from typing import Literal

from switchroom.engine.events import Stop, TurnInput
from switchroom.engine.session import Session
from switchroom.realtime.clauses import ClauseSplitter
from switchroom.realtime.ears import Heard
from switchroom.records.model import TurnTiming

_PIECES_AHEAD = 64


class Turn:
    """One turn on its way: what started it, what it has done so far."""

    def __init__(self, number: int, given: TurnInput, before: Session, generation: int, since: Heard | None) -> None:
        self.number = number
        self.given = given
        self.before = before
        self.generation = generation
        self.since = since
        self.task: asyncio.Task[None] | None = None
        self.pieces: asyncio.Queue[str | None] = asyncio.Queue(_PIECES_AHEAD)
        """What the flow wants to be said; None after the last."""
        self.splitter = ClauseSplitter()
        self.voice = asyncio.Lock()
        """Held while something is rendered: a filler and the answer speak one after another."""
        self.outcome: Literal["", "await_input", "finished", "stopped", "failed"] = ""
        self.stop: Stop | None = None
        """`outcome` is `stopped`: what the caller is asked to decide."""
        self.thought = False
        """The flow has nothing to add."""
        self.detail = ""
        self.text = ""
        self.tokens: list[str] = []
        self.noted: dict[str, str] = {}
        """Details of the caller's words that the flow keeps, by their names."""
        self.started_at = time.monotonic()
        self.first_token_at: float | None = None
        self.first_made_at: float | None = None
        self.first_audio_at: float | None = None

    @property
    def ending(self) -> bool:
        """These are the call's last words: nothing interrupts them."""
        return self.outcome in ("finished", "failed")

    def timing(self, *, interrupted: bool, zero_at: float) -> TurnTiming:
        """Milliseconds since the caller's end of speech; a turn that the agent opens counts from its own start. The
        call began at `zero_at`, monotonic seconds."""
        zero = self.since.ended if self.since is not None else self.started_at

        def since(moment: float | None) -> float | None:
            return None if moment is None else round((moment - zero) * 1000, 1)

        return TurnTiming(
            turn=self.number,
            speech_end_ms=max(0, round((zero - zero_at) * 1000)) if self.since else None,
            endpoint_ms=since(self.since.endpoint) if self.since else None,
            transcript_ms=since(self.since.decoded) if self.since else None,
            first_token_ms=since(self.first_token_at),
            first_audio_made_ms=since(self.first_made_at),
            first_audio_ms=since(self.first_audio_at),
            interrupted=interrupted,
        )


class Words:
    """The caller's turn so far: utterances that may go on until `due` (monotonic seconds)."""

    def __init__(self, kind: Literal["start", "utterance"] = "utterance", text: str = "") -> None:
        self.kind = kind
        self.text = text
        self.last: Heard | None = None
        self.due = 0.0

    def add(self, spoken: Heard) -> None:
        self.text = f"{self.text} {spoken.text}".strip()
        self.last = spoken
