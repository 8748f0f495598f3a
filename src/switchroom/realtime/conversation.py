"""Turn taking, common to the voice engines: who speaks, who is interrupted, what was heard, and how silence ends.

A turn: utterance → flow engine → pieces of text → voice → playout. When the caller begins to speak while the agent
talks, the agent falls silent at once but keeps what it had to say; only words make it an interruption (a cough does
not). Then the generation counter of the playout grows, what waits is dropped, and transcript and context keep what was
heard. If nothing of an answer was heard yet, the caller had not finished: the turn is undone and its words are joined.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, Literal

from switchroom.engine.events import Event, NodeFinished, Token, TurnEnded, TurnFailed, TurnInput
from switchroom.engine.session import Message, Session
from switchroom.errors import SwitchroomError
from switchroom.realtime.audio import Samples
from switchroom.realtime.clauses import ClauseSplitter
from switchroom.realtime.ears import Heard
from switchroom.realtime.playout import Playout
from switchroom.realtime.settings import MediaSettings
from switchroom.realtime.voice import (
    AgentSpeaking,
    CallerSpeaking,
    Concluded,
    Emit,
    NodeDone,
    Said,
    TurnDone,
    VoiceEvent,
)
from switchroom.records.model import TurnTiming

log = logging.getLogger(__name__)

RunTurn = Callable[[Session, TurnInput], AsyncIterator[Event]]
"""The flow engine bound to one graph."""

_CALLER = "caller speaks"
_LEG = "leg is lost"
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
        self.outcome: Literal["", "await_input", "finished", "stopped", "failed"] = ""
        """`stopped`: the flow waits for a person's decision; the call listens on."""
        self.detail = ""
        self.text = ""
        self.started_at = time.monotonic()
        self.first_token_at: float | None = None
        self.first_audio_at: float | None = None

    def timing(self, *, interrupted: bool) -> TurnTiming:
        """Milliseconds since the caller's end of speech; a turn that the agent opens counts from its own start."""
        zero = self.since.ended if self.since is not None else self.started_at

        def since(moment: float | None) -> float | None:
            return None if moment is None else round((moment - zero) * 1000, 1)

        return TurnTiming(
            turn=self.number,
            endpoint_ms=since(self.since.endpoint) if self.since else None,
            transcript_ms=since(self.since.decoded) if self.since else None,
            first_token_ms=since(self.first_token_at),
            first_audio_ms=since(self.first_audio_at),
            interrupted=interrupted,
        )


class Conversation(ABC):
    """One conversation. See `voice.VoiceEngine`; an engine adds how it hears and how it speaks."""

    def __init__(self, run_turn: RunTurn, session: Session, settings: MediaSettings) -> None:
        self._run_turn = run_turn
        self.session = session
        self._settings = settings
        self._inbox: asyncio.Queue[Heard | Turn] = asyncio.Queue()
        self._turn: Turn | None = None
        self._turns = 0
        self._messages_before: int | None = None
        """Messages of the session before the running turn; None while none runs."""
        self._prompts = 0
        self._quiet_since = time.monotonic()
        self._caller_speaking = False
        self._paused = False
        self._left = False
        self._zero = time.monotonic()
        self._agent_from: float | None = None
        self._hushed_at: float | None = None
        self._playout: Playout | None = None
        self._emit: Emit = _nobody

    # --- what an engine adds -------------------------------------------------------------------------------------

    @abstractmethod
    def hear(self, frame: Samples) -> None:
        """One 20 ms frame of the caller."""

    @abstractmethod
    async def _listen(self) -> None:
        """Hears the caller and calls `speech_started`, `speech_ended`, `partial` and `heard`; ends only by an error."""

    @abstractmethod
    async def _say(self, text: str, turn: Turn | None) -> None:
        """Have `text` spoken into the playout. `turn` is None for an announcement."""

    def _sayable(self, turn: Turn, token: str) -> list[str]:
        """What can be spoken now that `token` has come."""
        return turn.splitter.feed(token)

    def _take_heard(self, *, interrupted: bool) -> str:
        """The agent's words that were heard since the last call of this."""
        assert self._playout is not None
        return self._playout.take_heard()

    # --- VoiceEngine ---------------------------------------------------------------------------------------------

    async def run(self, playout: Playout, emit: Emit) -> Concluded:
        self._playout, self._emit = playout, emit
        self._zero = self._quiet_since = time.monotonic()
        listening = asyncio.get_running_loop().create_task(self._listen(), name="listen")
        conversation = asyncio.get_running_loop().create_task(self._converse(), name="conversation")
        try:
            await asyncio.wait({listening, conversation}, return_when=asyncio.FIRST_COMPLETED)
            if not conversation.done():
                listening.result()  # it only ends by an error, which is to be seen
            return conversation.result()
        except SwitchroomError as error:
            return Concluded(cause="failed", detail=error.detail)
        finally:
            await self._cancel_turn()
            for task in (listening, conversation):
                task.cancel()
            await asyncio.gather(listening, conversation, return_exceptions=True)

    def dtmf(self, digit: str) -> None:
        self._quiet_since = time.monotonic()  # a key is a sign of life too

    def message(self, message: dict[str, Any]) -> None:
        log.debug("a client's event that means nothing here", extra={"type": message.get("type")})

    def pause(self) -> None:
        self._paused = True
        if self._playout is not None:
            self._playout.pause(_LEG)

    def resume(self) -> None:
        self._paused = False
        self._quiet_since = time.monotonic()
        if self._playout is not None:
            self._playout.resume(_LEG)

    def leave(self) -> None:
        if self._left:
            return
        self._left = True
        if self._playout is not None:
            cut = self._playout.speaking
            self._playout.clear()
            self._settle(interrupted=cut)

    # --- what is heard -------------------------------------------------------------------------------------------

    def speech_started(self) -> None:
        self._caller_speaking = True
        self._emit(CallerSpeaking(active=True))
        if self._playout is not None and not (self._turn and self._turn.outcome in ("finished", "failed")):
            self._playout.pause(_CALLER)
            self._hushed_at = time.monotonic()

    def speech_ended(self) -> None:
        self._caller_speaking = False
        self._emit(CallerSpeaking(active=False))

    def partial(self, text: str, started: float) -> None:
        self._emit(Said(role="caller", text=text, final=False, start_ms=self._ms(started), end_ms=self._now_ms()))

    def heard(self, utterance: Heard) -> None:
        self._inbox.put_nowait(utterance)

    # --- the conversation ----------------------------------------------------------------------------------------

    async def _converse(self) -> Concluded:
        assert self._playout is not None
        question = self.session.form.get("question")
        self._begin(TurnInput(kind="start", text=str(question) if question else ""), None)
        while True:
            try:
                async with asyncio.timeout(self._patience_s()):
                    item = await self._inbox.get()
            except TimeoutError:
                if (concluded := await self._quiet()) is not None:
                    return concluded
                continue
            if isinstance(item, Heard):
                await self._utterance(item)
                continue
            if item is not self._turn:
                continue  # an older turn, interrupted meanwhile
            self._turn = None
            self._quiet_since = time.monotonic()
            if item.outcome == "finished":
                return Concluded(cause="finished", detail="the flow reached its end")
            if item.outcome == "failed":
                return Concluded(cause="failed", detail=item.detail)

    async def _utterance(self, utterance: Heard) -> None:
        assert self._playout is not None
        self._quiet_since = time.monotonic()
        turn = self._turn
        if not utterance.text:
            self._playout.resume(_CALLER)  # a noise: the agent goes on where it was
            self._hushed_at = None
            return
        self._prompts = 0
        self._emit(
            Said(
                role="caller",
                text=utterance.text,
                final=True,
                start_ms=self._ms(utterance.started),
                end_ms=self._ms(utterance.ended),
            )
        )
        if turn is not None and turn.outcome in ("finished", "failed"):
            self._playout.resume(_CALLER)  # the last words are spoken to their end
            return
        given = TurnInput(kind="utterance", text=utterance.text)
        if turn is not None:
            heard_any = self._playout.heard_any
            await self._cancel_turn()
            self._playout.clear()
            if heard_any:
                self._settle(interrupted=True)
                self._emit(TurnDone(timing=turn.timing(interrupted=True)))
            else:
                self._take_heard(interrupted=True)
                self._restore(turn.before)
                joined = f"{turn.given.text} {utterance.text}".strip()
                given = TurnInput(kind=turn.given.kind, text=joined)
        elif self._playout.speaking:
            self._playout.clear()  # an announcement of ours
            self._settle(interrupted=True)
        self._playout.resume(_CALLER)
        self._hushed_at = None
        self._begin(given, utterance)

    def _begin(self, given: TurnInput, since: Heard | None) -> None:
        assert self._playout is not None
        self._turns += 1
        turn = Turn(self._turns, given, copy.deepcopy(self.session), self._playout.generation, since)
        self._messages_before = len(self.session.messages)
        self._turn = turn
        turn.task = asyncio.get_running_loop().create_task(self._run(turn), name=f"turn-{turn.number}")

    async def _cancel_turn(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None and turn.task is not None:
            turn.task.cancel()
            await asyncio.gather(turn.task, return_exceptions=True)

    async def _run(self, turn: Turn) -> None:
        """One turn to the end of its voice; its outcome goes to the inbox."""
        assert self._playout is not None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._think(turn))
                group.create_task(self._speak(turn))
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
        self._emit(TurnDone(timing=turn.timing(interrupted=False)))
        self._inbox.put_nowait(turn)

    async def _think(self, turn: Turn) -> None:
        events = self._run_turn(self.session, turn.given)
        try:
            async for event in events:
                match event:
                    case Token():
                        turn.first_token_at = turn.first_token_at or time.monotonic()
                        for piece in self._sayable(turn, event.text):
                            await turn.pieces.put(piece)
                    case NodeFinished():
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
        if rest := turn.splitter.flush():
            await turn.pieces.put(rest)
        await turn.pieces.put(None)

    async def _speak(self, turn: Turn) -> None:
        while (piece := await turn.pieces.get()) is not None:
            await self._say(piece, turn)
            turn.pieces.task_done()

    def _sounds(self, text: str, turn: Turn | None) -> None:
        """`text` begins to leave, or is what is known by now of words that leave."""
        now = time.monotonic()
        if turn is not None:
            turn.first_audio_at = turn.first_audio_at or now
        if self._agent_from is None:
            self._agent_from = now
            self._emit(AgentSpeaking(active=True))
        self._emit(
            Said(role="agent", text=text, final=False, start_ms=self._ms(self._agent_from), end_ms=self._now_ms())
        )

    def _settle(self, *, interrupted: bool) -> None:
        """Put what was really heard of the agent on record and into the context."""
        heard = self._take_heard(interrupted=interrupted)
        started, self._agent_from = self._agent_from, None
        ended = self._hushed_at if interrupted and self._hushed_at is not None else time.monotonic()
        before, self._messages_before = self._messages_before, None
        if interrupted and before is not None:
            self._correct(before, heard)
        if started is None:
            return
        self._emit(AgentSpeaking(active=False))
        if heard:
            self._emit(
                Said(
                    role="agent",
                    text=heard,
                    final=True,
                    start_ms=self._ms(started),
                    end_ms=self._ms(max(started, ended)),
                    interrupted=interrupted,
                )
            )

    def _correct(self, before: int, heard: str) -> None:
        """The flow engine kept the whole answer if the turn had ended there already, and nothing if it had not."""
        messages = self.session.messages
        if len(messages) > before and messages[-1].role == "agent":
            messages.pop()
        if heard:
            messages.append(Message(role="agent", text=heard, at_ms=time.time_ns() // 1_000_000))

    def _restore(self, before: Session) -> None:
        for name in before.__struct_fields__:
            setattr(self.session, name, getattr(before, name))

    # --- silence and failure -------------------------------------------------------------------------------------

    def _patience_s(self) -> float | None:
        """How long to wait for the next thing before somebody has to say something."""
        if self._turn is not None or self._paused:
            return 1.0
        return max(0.05, self._quiet_since + self._settings.silence_s - time.monotonic())

    async def _quiet(self) -> Concluded | None:
        if time.monotonic() - self._zero > self._settings.max_call_s:
            return Concluded(cause="too_long", detail=f"longer than {self._settings.max_call_s:g} s")
        if self._turn is not None or self._paused:
            return None
        if self._caller_speaking:
            self._quiet_since = time.monotonic()
            return None
        if time.monotonic() - self._quiet_since < self._settings.silence_s:
            return None
        self._prompts += 1
        last = self._prompts > self._settings.silence_prompts
        text = self._settings.silence_goodbye_text if last else self._settings.silence_prompt_text
        if not await self._announce(text):
            return None
        self._quiet_since = time.monotonic()
        return Concluded(cause="silence", detail="the caller said nothing any more") if last else None

    async def _announce(self, text: str) -> bool:
        """Say a sentence of our own. False: the caller spoke into it."""
        assert self._playout is not None
        await self._say(text, None)
        drained = asyncio.ensure_future(self._playout.drained())
        while not drained.done():
            await asyncio.wait({drained}, timeout=0.1)
            if not self._inbox.empty():
                drained.cancel()
                return False
        self._settle(interrupted=False)
        return True

    async def _apologise(self, turn: Turn) -> None:
        try:
            await self._say(self._settings.failure_text, turn)
        except SwitchroomError as error:
            log.error("the agent cannot even say that it failed", extra={"error": error.detail})

    def _ms(self, moment: float) -> int:
        return max(0, round((moment - self._zero) * 1000))

    def _now_ms(self) -> int:
        return self._ms(time.monotonic())


def _nobody(event: VoiceEvent) -> None:
    """Before a conversation runs nobody listens."""
