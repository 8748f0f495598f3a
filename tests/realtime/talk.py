"""A conversation whose voice costs nothing: words become samples at once, and playout runs faster than real time.

Everything else is the product: turn taking, playout, transcript, context. The flow is a script of the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np

from switchroom.engine.events import Event, Token, TurnEnded, TurnInput
from switchroom.engine.session import Message, Session
from switchroom.realtime.audio import FRAME, SILENCE, Samples
from switchroom.realtime.conversation import Conversation
from switchroom.realtime.ears import Heard
from switchroom.realtime.playout import Playout
from switchroom.realtime.running_turn import Turn
from switchroom.realtime.settings import MediaSettings
from switchroom.realtime.voice import Concluded, Said, TurnDone, VoiceEvent

FRAMES_A_WORD = 10
FRAME_REAL_S = 0.002
"""Ten times faster than a telephone."""

QUICK = MediaSettings(
    silence_s=60, turn_patience_s=0.1, keypad_timeout_s=0.15, filler_after_s=0.1, filler_texts=(), media_loopback=True
)


class TalkEngine(Conversation):
    """Hears what the test says it hears; speaks at once."""

    def _hear(self, frame: Samples) -> None:
        """Nothing: words come by `caller`."""

    async def _listen(self) -> None:
        await asyncio.Event().wait()

    async def _say(self, text: str, turn: Turn | None) -> None:
        assert self._playout is not None
        generation = turn.generation if turn is not None else self._playout.generation
        samples = np.full(len(text.split()) * FRAMES_A_WORD * FRAME, 1000, dtype=np.int16)

        def first() -> None:
            if turn is not None:
                turn.text = f"{turn.text} {text}".strip()
            self._sounds(turn.text if turn is not None else text, turn)

        self._playout.say(samples, text, generation=generation, on_first=first)

    def _pressed(self) -> None:
        self.speech_started()

    def _released(self) -> None:
        self.speech_ended()


Script = Callable[[TurnInput], AsyncIterator[str | float | TurnEnded]]
"""What the flow says to an input; a number is a pause in seconds."""


class Talk:
    """A running conversation and what came of it."""

    def __init__(self, script: Script, settings: MediaSettings = QUICK, **session: Any) -> None:
        self.session = Session(session_id="s", realtime=True, **session)
        self.script = script
        self.turns: list[TurnInput] = []
        self.events: list[VoiceEvent] = []
        self.playout = Playout()
        self.frames = 0
        self.voiced = 0
        self.engine = TalkEngine(self._run_turn, self.session, settings)
        self.over: asyncio.Task[Concluded] | None = None

    async def _run_turn(self, session: Session, given: TurnInput) -> AsyncIterator[Event]:
        """As the flow engine does it: the caller's words before, the agent's after the turn."""
        self.turns.append(given)
        if given.text:
            session.messages.append(Message(role="caller", text=given.text))
        said: list[str] = []
        ended = TurnEnded(outcome="await_input", text="")
        async for piece in self.script(given):
            if isinstance(piece, float):
                await asyncio.sleep(piece)
            elif isinstance(piece, TurnEnded):
                ended = piece
            else:
                said.append(piece)
                yield Token(node_id="agent", text=piece)
        if said:
            session.messages.append(Message(role="agent", text="".join(said)))
        yield ended

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Talk]:
        self.over = asyncio.create_task(self.engine.run(self.playout, self.events.append))
        line = asyncio.create_task(self._line())
        try:
            yield self
        finally:
            for task in (self.over, line):
                task.cancel()
            await asyncio.gather(self.over, line, return_exceptions=True)

    async def _line(self) -> None:
        while True:
            self.frames += 1
            self.voiced += self.playout.next_frame() is not SILENCE
            await asyncio.sleep(FRAME_REAL_S)

    # --- the caller ----------------------------------------------------------------------------------------------

    def caller(self, text: str) -> None:
        """Says something; "" is a noise."""
        now = time.monotonic()
        self.engine.speech_started()
        self.engine.speech_ended()
        self.engine.heard(Heard(text=text, started=now, ended=now, endpoint=now, decoded=now))

    async def until(self, ready: Callable[[], Any], timeout_s: float = 20) -> None:
        async with asyncio.timeout(timeout_s):
            while not ready():
                await asyncio.sleep(0.005)

    async def agent_speaks(self, word: str) -> None:
        """Until this word of the agent begins to sound."""
        await self.until(lambda: any(word in one.text for one in self.said("agent", final=False)))

    async def turn_over(self, count: int) -> None:
        await self.until(lambda: self.turns_done >= count)

    # --- what came of it -----------------------------------------------------------------------------------------

    def said(self, role: str, *, final: bool = True) -> list[Said]:
        return [one for one in self.events if isinstance(one, Said) and one.role == role and one.final is final]

    def texts(self, role: str) -> list[str]:
        return [one.text for one in self.said(role)]

    @property
    def turns_done(self) -> int:
        return sum(isinstance(one, TurnDone) for one in self.events)

    @property
    def asked(self) -> list[str]:
        """The inputs of the turns after the opening one."""
        return [turn.text for turn in self.turns[1:]]


def lines(*answers: str) -> Script:
    """A flow that says these, one a turn, then `Right.`"""
    waiting = list(answers)

    async def script(given: TurnInput) -> AsyncIterator[str | float | TurnEnded]:
        yield waiting.pop(0) if waiting else "Right."

    return script
