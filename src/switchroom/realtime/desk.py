"""The operators at one live call: who listens, who whispers to the agent, who talks in its place.

An operator's leg hears both sides mixed. What the operator says goes to nobody, to the agent (as guidance for its next
turns, in words) or to the caller. One talks at a time; while one does, the agent is silent and the talk goes on the
record. What operators do is said first to the queue, whose stream consoles and webhooks read, then to the record, then
to the legs: one order for all.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

import msgspec
import numpy as np

from switchroom.errors import Conflict, NotFound, SwitchroomError, TooMany
from switchroom.realtime.audio import SILENCE, Samples
from switchroom.realtime.ears import Heard
from switchroom.realtime.ears import Listener as EarsListener
from switchroom.realtime.playout import Playout
from switchroom.realtime.voice import Transport
from switchroom.records.model import OperatorAction

log = logging.getLogger(__name__)

MAX_OPERATORS = 8
"""Legs at one call: each costs an encoder."""
_BUFFERED = 6
"""Frames that wait between two clocks of 20 ms; more only add delay."""


_TOLD = ("taken_over", "transferred_to_operator", "given_back")
"""What the caller's client is told: who talks. Who listens is not its business."""


class Mode(StrEnum):
    """Where an operator's voice goes: to nobody, to the agent, to the caller."""

    LISTEN = "listen"
    WHISPER = "whisper"
    TALK = "talk"


class OperatorEars(Protocol):
    """Understands one operator; see `ears.Ears`."""

    def feed(self, frame: Samples) -> None: ...

    async def run(self) -> None: ...


@runtime_checkable
class Yielding(Protocol):
    """A voice engine that lets an operator in. See `conversation.Conversation`."""

    def hand_over(self) -> None: ...

    def hand_back(self, say: str) -> None: ...

    def guide(self, text: str) -> None: ...

    def operator_said(self, spoken: Heard) -> None: ...


class OperatorView(msgspec.Struct, frozen=True, kw_only=True):
    """An operator at a call. `id` names the leg."""

    id: str
    operator: str
    mode: Mode


Note = Callable[[str, str, str], Awaitable[int]]
"""Tells the queue what an operator did: action, operator, detail; gives the time of it, Unix ms."""


class Desk:
    """One call's operators. All on the loop; `note` is asked under a lock, so that actions keep their order."""

    def __init__(
        self,
        playout: Playout,
        engine: object,
        note: Note,
        record: Callable[[OperatorAction], None],
        tell_caller: Callable[[dict[str, Any]], None],
        make_ears: Callable[[EarsListener], OperatorEars] | None,
    ) -> None:
        self._playout = playout
        self._engine = engine
        self._note = note
        self._record = record
        self._tell_caller = tell_caller
        self._make_ears = make_ears
        self._legs: dict[str, _Leg] = {}
        self._caller: deque[Samples] = deque(maxlen=_BUFFERED)
        self._voice: deque[Samples] = deque(maxlen=_BUFFERED)
        """Of the operator who talks, on its way to the caller."""
        self._offered_to = ""
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    # --- the audio of the call -----------------------------------------------------------------------------------

    def caller(self, frame: Samples) -> None:
        """20 ms of the caller."""
        if self._legs:
            self._caller.append(frame)

    def sounded(self, frame: Samples) -> None:
        """20 ms that went to the caller: the clock of what operators hear."""
        if not self._legs:
            return
        caller = self._caller.popleft() if self._caller else SILENCE
        both: Samples | None = None
        for leg in self._legs.values():
            if leg.mode is Mode.TALK:
                leg.frames.append(caller)  # nobody wants to hear himself
                continue
            if both is None:
                both = np.clip(caller.astype(np.int32) + frame, -32768, 32767).astype(np.int16)
            leg.frames.append(both)

    def tell(self, event: dict[str, Any]) -> None:
        """An event of the call, for the operators' clients."""
        for leg in self._legs.values():
            leg.transport.send_event(event)

    # --- what operators do ---------------------------------------------------------------------------------------

    async def listen(self, transport: Transport, leg_id: str, operator: str) -> None:
        """A new leg. Raises `TooMany`."""
        if len(self._legs) >= MAX_OPERATORS:
            raise TooMany(f"{MAX_OPERATORS} operators are at this call", code="operators_full")
        leg = _Leg(self, transport, leg_id, operator)
        self._legs[leg_id] = leg
        try:
            await self._tell_all("operator_joined", operator)
        except BaseException:
            self._legs.pop(leg_id, None)
            raise
        playout = Playout()
        playout.hold(leg.next_frame)
        transport.start(playout, leg)
        self._spawn(self._watch(leg))

    async def set_mode(self, leg_id: str, mode: Mode, say: str = "") -> OperatorView:
        """Where the operator's voice goes from now on. `say`: what the agent says once it has the call back.

        Raises `NotFound` for a leg that left, `Conflict` where the call's voice engine cannot do that.
        """
        leg = self._known(leg_id)
        engine = self._yielding()
        if mode is Mode.WHISPER and self._make_ears is None:
            raise Conflict("no recogniser is loaded here: whisper in text", code="whisper_in_text")
        if mode is leg.mode:
            return leg.view
        talker = self._talker
        if mode is Mode.TALK:
            if talker is not None:
                talker.set(Mode.LISTEN)
            leg.set(Mode.TALK)
            self._playout.hold(self._talk)
            if talker is None:
                engine.hand_over()
            moved = self._offered_to == leg.operator or talker is not None
            detail = f"from {talker.operator}" if talker is not None else ""
            self._offered_to = ""
            await self._tell_all("transferred_to_operator" if moved else "taken_over", leg.operator, detail)
            return leg.view
        leg.set(mode)
        if leg is talker:
            self._give_back(engine, say)
            await self._tell_all("given_back", leg.operator)
        elif mode is Mode.WHISPER:
            await self._tell_all("whispering", leg.operator)
        return leg.view

    async def whisper(self, operator: str, text: str) -> None:
        """Guidance for the agent's next turns, which the caller does not hear."""
        self._yielding().guide(text)
        await self._tell_all("whispered", operator, text)

    async def offer_to(self, operator: str, to: str) -> None:
        """Asks another operator to take the call; whoever has it keeps it until then."""
        self._yielding()
        self._offered_to = to
        await self._tell_all("transfer_offered", operator, f"to {to}")

    async def leave(self, leg_id: str) -> None:
        """An operator goes. One who talked gives the call back. Raises `NotFound`."""
        await self._left(self._known(leg_id))

    def operators(self) -> list[OperatorView]:
        return [leg.view for leg in self._legs.values()]

    async def close(self) -> None:
        """The call is over: every leg is told and closed."""
        legs, self._legs = tuple(self._legs.values()), {}
        for leg in legs:
            leg.set(Mode.LISTEN)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(leg.transport.close() for leg in legs), return_exceptions=True)

    # --- inside --------------------------------------------------------------------------------------------------

    @property
    def _talker(self) -> _Leg | None:
        return next((leg for leg in self._legs.values() if leg.mode is Mode.TALK), None)

    def _known(self, leg_id: str) -> _Leg:
        leg = self._legs.get(leg_id)
        if leg is None:
            raise NotFound("no such operator at this call", code="unknown_operator")
        return leg

    def _yielding(self) -> Yielding:
        if not isinstance(self._engine, Yielding):
            raise Conflict("this call's voice engine takes no operator", code="engine_keeps_call")
        return self._engine

    def _give_back(self, engine: Yielding, say: str) -> None:
        self._playout.hold(None)
        self._voice.clear()
        engine.hand_back(say)

    def _talk(self) -> Samples:
        return self._voice.popleft() if self._voice else SILENCE

    def _heard(self, leg: _Leg, frame: Samples) -> None:
        if leg.mode is Mode.TALK:
            self._voice.append(frame)

    def _understood(self, leg: _Leg, spoken: Heard) -> None:
        if leg.mode is Mode.TALK:
            self._yielding().operator_said(spoken)
        elif leg.mode is Mode.WHISPER:
            self._spawn(self._whispered(leg.operator, spoken.text))

    async def _whispered(self, operator: str, text: str) -> None:
        try:
            await self.whisper(operator, text)
        except SwitchroomError as error:
            log.warning("a whisper was lost", extra={"error": error.detail})

    async def _watch(self, leg: _Leg) -> None:
        """A leg that dies gives its call back."""
        await leg.transport.gone.wait()
        if leg.id in self._legs:
            await self._left(leg)

    async def _left(self, leg: _Leg) -> None:
        del self._legs[leg.id]
        talked = leg.mode is Mode.TALK
        leg.set(Mode.LISTEN)
        try:
            if talked:
                self._give_back(self._yielding(), "")
                await self._tell_all("given_back", leg.operator)
            await self._tell_all("operator_left", leg.operator)
        except SwitchroomError as error:
            log.warning("an operator's leaving was not told", extra={"error": error.detail})
        finally:
            await leg.transport.close()

    async def _tell_all(self, action: str, operator: str, detail: str = "") -> None:
        async with self._lock:
            # What is whispered stays on the record: the queue's stream goes to whoever watches the line.
            at_ms = await self._note(action, operator, "" if action == "whispered" else detail)
            self._record(OperatorAction(at_ms=at_ms, action=action, operator=operator, detail=detail))
            event = {"type": "operator", "action": action, "operator": operator, "detail": detail}
            self.tell(event)
            if action in _TOLD:
                self._tell_caller({"type": "operator", "action": action})

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work, name="operator")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class _Leg:
    """One operator's leg: listens to the transport, and to what its ears understand."""

    def __init__(self, desk: Desk, transport: Transport, leg_id: str, operator: str) -> None:
        self._desk = desk
        self.transport = transport
        self.id = leg_id
        self.operator = operator
        self.mode = Mode.LISTEN
        self.frames: deque[Samples] = deque(maxlen=_BUFFERED)
        self._ears: OperatorEars | None = None
        self._hearing: asyncio.Task[None] | None = None

    @property
    def view(self) -> OperatorView:
        return OperatorView(id=self.id, operator=self.operator, mode=self.mode)

    def next_frame(self) -> Samples:
        return self.frames.popleft() if self.frames else SILENCE

    def set(self, mode: Mode) -> None:
        """Ears only for a voice that is for somebody."""
        self.mode = mode
        if mode is Mode.LISTEN:
            self._ears = None
            if self._hearing is not None:
                self._hearing.cancel()
                self._hearing = None
        elif self._ears is None and self._desk._make_ears is not None:
            self._ears = self._desk._make_ears(self)
            self._hearing = self._desk._spawn(self._ears.run())

    # --- Listener of the transport -------------------------------------------------------------------------------

    def on_frame(self, frame: Samples) -> None:
        self._desk._heard(self, frame)
        if self._ears is not None:
            self._ears.feed(frame)

    def on_dtmf(self, digit: str) -> None:
        """Keys of an operator mean nothing yet."""

    def on_message(self, message: dict[str, Any]) -> None:
        """An operator's words come by HTTP, where their key is checked."""

    # --- Listener of the ears ------------------------------------------------------------------------------------

    def speech_started(self) -> None:
        """Only whole utterances count."""

    def speech_ended(self) -> None:
        """Only whole utterances count."""

    def partial(self, text: str, started: float) -> None:
        """Only whole utterances count."""

    def heard(self, utterance: Heard) -> None:
        if utterance.text:
            self._desk._understood(self, utterance)
