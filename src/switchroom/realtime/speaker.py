"""The agent's half of a conversation: a turn from its input to the end of its voice, and what was heard of it."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from switchroom.engine.events import Event, NodeFinished, Token, TurnEnded, TurnFailed, TurnInput
from switchroom.engine.session import Message, Session
from switchroom.errors import SwitchroomError
from switchroom.realtime.minutes import Minutes
from switchroom.realtime.playout import Playout
from switchroom.realtime.read_back import noted, read_back
from switchroom.realtime.running_turn import Turn
from switchroom.realtime.settings import MediaSettings
from switchroom.realtime.voice import NodeDone, TurnDone, VoiceEvent

log = logging.getLogger(__name__)

RunTurn = Callable[[Session, TurnInput], AsyncIterator[Event]]
"""The flow engine bound to one graph."""

_FILLER_LOOK_S = 0.1


class Speaker(ABC):
    """Runs the flow and has its words spoken; an engine adds the voice."""

    def __init__(self, run_turn: RunTurn, session: Session, settings: MediaSettings) -> None:
        self._run_turn = run_turn
        self.session = session
        self._settings = settings
        self._playout: Playout | None = None
        self._minutes = Minutes()
        self._messages_before: int | None = None
        """Messages of the session before the running turn; None while none runs."""
        self._heard_before: list[str] = []
        """What of the running turn was heard before a filler."""
        self._hushed_at: float | None = None
        """When the agent fell silent because somebody spoke."""

    # --- what an engine adds -------------------------------------------------------------------------------------

    @abstractmethod
    async def _say(self, text: str, turn: Turn | None) -> None:
        """Have `text` spoken into the playout. `turn` is None for words that are not the flow's."""

    def _sayable(self, turn: Turn, token: str) -> list[str]:
        """What can be spoken now that `token` has come."""
        return turn.splitter.feed(token)

    def _take_heard(self, *, interrupted: bool) -> str:
        """The agent's words that were heard since the last call of this."""
        assert self._playout is not None
        return self._playout.take_heard()

    def _free_to_fill(self) -> bool:
        """Whether the voice has nothing to do."""
        assert self._playout is not None
        return not self._playout.speaking

    @abstractmethod
    def _turn_over(self, turn: Turn) -> None:
        """The turn and its voice have ended."""

    # --- a turn --------------------------------------------------------------------------------------------------

    async def _run(self, turn: Turn) -> None:
        """One turn to the end of its voice; its outcome goes to the inbox."""
        assert self._playout is not None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._think(turn))
                group.create_task(self._speak(turn))
                group.create_task(self._fill(turn))
        except* SwitchroomError as errors:
            turn.outcome = "failed"
            turn.detail = "; ".join(str(error) for error in errors.exceptions)
        except* Exception as errors:
            log.exception("a turn broke", exc_info=errors)
            turn.outcome = "failed"
            turn.detail = f"the turn broke: {type(errors.exceptions[0]).__name__}"
        if turn.outcome == "failed":
            await self._apologise(turn)
        await self._playout.drained()
        self._settle(interrupted=False)
        self._emit(TurnDone(timing=turn.timing(interrupted=False, zero_at=self._minutes.zero)))
        self._turn_over(turn)

    async def _think(self, turn: Turn) -> None:
        events = self._run_turn(self.session, turn.given)
        try:
            async for event in events:
                match event:
                    case Token():
                        turn.tokens.append(event.text)
                        turn.first_token_at = turn.first_token_at or time.monotonic()
                        for piece in self._sayable(turn, event.text):
                            await turn.pieces.put(piece)
                    case NodeFinished():
                        turn.noted |= noted(event.output, event.state)
                        self._emit(NodeDone(node=event))
                    case TurnEnded():
                        turn.outcome = event.outcome
                    case TurnFailed():
                        turn.outcome, turn.detail = "failed", event.detail
                    case _:
                        pass
        finally:
            if isinstance(events, AsyncGenerator):
                await events.aclose()
            turn.thought = True
        if rest := turn.splitter.flush():
            await turn.pieces.put(rest)
        values = read_back(turn.noted, "".join(turn.tokens)) if self._settings.read_back else ""
        if values and self._settings.read_back_text and turn.outcome == "await_input":
            await turn.pieces.put(self._settings.read_back_text.replace("{values}", values))
        await turn.pieces.put(None)

    async def _speak(self, turn: Turn) -> None:
        while (piece := await turn.pieces.get()) is not None:
            async with turn.voice:
                await self._say(piece, turn)
            turn.pieces.task_done()

    async def _fill(self, turn: Turn) -> None:
        """Says now and then that it takes a moment, while the flow is at work and nothing sounds."""
        assert self._playout is not None
        texts = self._settings.filler_texts
        quiet_since, count = time.monotonic(), 0
        while texts and not turn.thought:
            await asyncio.sleep(_FILLER_LOOK_S)
            if not self._free_to_fill() or turn.voice.locked() or not turn.pieces.empty():
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since >= self._settings.filler_after_s:
                async with turn.voice:
                    self._heard_before.append(self._settle_aside(interrupted=False))
                    await self._say(texts[count % len(texts)], None)
                    await self._playout.drained()
                    self._settle_aside(interrupted=False)
                quiet_since, count = time.monotonic(), count + 1

    def _sounds(self, text: str, turn: Turn | None) -> None:
        """`text` begins to leave, or is what is known by now of words that leave."""
        if turn is not None:
            turn.first_audio_at = turn.first_audio_at or time.monotonic()
        self._minutes.sounds(text)

    def _settle(self, *, interrupted: bool) -> None:
        """Put what was really heard of the agent on record and into the context."""
        self._heard_before.append(self._settle_aside(interrupted=interrupted))
        heard, self._heard_before = " ".join(part for part in self._heard_before if part), []
        before, self._messages_before = self._messages_before, None
        if interrupted and before is not None:
            self._correct(before, heard)

    def _settle_aside(self, *, interrupted: bool) -> str:
        """Put what was heard of the agent on record alone, and give it."""
        heard = self._take_heard(interrupted=interrupted)
        self._minutes.settle(heard, interrupted=interrupted, ended=self._hushed_at if interrupted else None)
        return heard

    def _correct(self, before: int, heard: str) -> None:
        """The flow engine kept the whole answer if the turn had ended there already, and nothing if it had not."""
        messages = self.session.messages
        if len(messages) > before and messages[-1].role == "agent":
            messages.pop()
        if heard:
            messages.append(Message(role="agent", text=heard, at_ms=time.time_ns() // 1_000_000))

    async def _apologise(self, turn: Turn) -> None:
        if not self._settings.failure_text:
            return
        try:
            await self._say(self._settings.failure_text, turn)
        except SwitchroomError as error:
            log.error("the agent cannot even say that it failed", extra={"error": error.detail})

    def _emit(self, event: VoiceEvent) -> None:
        self._minutes.emit(event)
