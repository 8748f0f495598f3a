"""One call at a kiosk: its conversation, turn by turn, and its record. The kiosk hears and speaks; the flow is ours."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Literal

import msgspec

from switchroom.engine import Engine, Flow, Message, Session
from switchroom.engine.events import Event, NodeFinished, Token, TurnEnded, TurnFailed, TurnInput
from switchroom.errors import SwitchroomError
from switchroom.queue import Call, Feed, Held, Queue, State
from switchroom.realtime.handover import context_id, handed_state
from switchroom.realtime.memory import CallMemory, Remembered
from switchroom.realtime.talk_settings import TalkSettings
from switchroom.records import Executions
from switchroom.records.model import Execution, ExecutionState, Utterance
from switchroom.store import Store, keys

log = logging.getLogger(__name__)

MAX_NODES = 2_000
"""Nodes kept in one record."""
MAX_LINES = 5_000
"""Utterances kept in one record."""
_KEPT_S = 24 * 3600


class KioskTools(msgspec.Struct, frozen=True, kw_only=True):
    """What kiosks need of their process."""

    store: Store
    queue: Queue
    feed: Feed
    engine: Engine
    executions: Executions
    lease_ms: int
    offer_ms: int


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """A call is offered; `state` is what the flow gets on dispatch."""

    held: Held
    state: dict[str, Any]
    session_id: str


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """A call of this kiosk came to a state."""

    task_id: str
    state: State
    reason: str = ""
    detail: str = ""


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """A call is not this kiosk's any more; `state` is where it is now ("" for gone)."""

    task_id: str
    state: str = ""
    reason: str = ""


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a turn, in order. None: the turn was interrupted, and nothing more comes of it."""

    task_id: str
    turn: int
    event: Event | None
    active_agent_id: str | None = None


class Paused(msgspec.Struct, frozen=True, kw_only=True):
    """The kiosk is offered nothing any more, for this reason; its live calls go on."""

    reason: str


class Resumed(msgspec.Struct, frozen=True):
    """The kiosk is offered calls again."""


Told = Offered | Changed | Lost | Piece | Paused | Resumed
Tell = Callable[[Told], Awaitable[None]]


Outcome = Literal["await_input", "finished", "stopped"]
"""As a turn ends."""


class _Memory(msgspec.Struct, kw_only=True):
    """What another process needs to go on with the call. `outcome` is how the last turn ended, `told` what the kiosk
    was told of it."""

    session: Session
    turn: int
    outcome: Outcome = "await_input"
    told: list[Event] = []


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Memory).decode


class KioskCall:
    """A call that is offered to a kiosk, or live there."""

    def __init__(self, tools: KioskTools, flow: Flow, held: Held, tell: Tell) -> None:
        call = held.call
        self._tools = tools
        self._flow = flow
        self._tell = tell
        self.held = held
        self.live = call.state is State.LIVE
        self._began_ms = call.live_at_ms or _now_ms()
        self._turn = 0
        self._over = 0
        """The last turn whose end was told."""
        self._mark = 0
        self._words = ""
        self._running: asyncio.Task[None] | None = None
        self._outcome: Outcome = "await_input"
        self._left: Remembered | None = None
        """Of an attempt before this one."""
        self._memory = CallMemory(tools.store, flow.id, call.task_id, held.token)
        self._session = Session(
            session_id=context_id(call),
            realtime=True,
            form=dict(call.form),
            state=handed_state(call, flow.graph),
        )
        self._record = _record(flow, call, held, self._session.session_id)

    @property
    def task_id(self) -> str:
        return self.held.task_id

    def offer(self) -> Offered:
        return Offered(held=self.held, state=self._session.state, session_id=self._session.session_id)

    async def recall(self) -> None:
        """Before it is offered: where an earlier attempt talked with the caller already, this one goes on with it."""
        try:
            stored = await self._tools.store.call("GET", self._key)
            before = _decode(stored) if stored is not None else None
        except (SwitchroomError, msgspec.DecodeError) as error:
            log.warning("an earlier attempt could not be recalled", extra={"error": str(error)})
            return
        if before is None or before.session.session_id == self._session.session_id:
            return
        left = await self._memory.recall() or Remembered(session=before.session)
        session = left.session
        if not session.started:
            return  # it was cut off in the opening: that begins anew
        session.session_id = self._session.session_id
        self._session, self._left, self._outcome = session, left, before.outcome

    async def begin(self) -> None:
        """The call is live: the flow speaks first, or answers the form's question. Where the call was cut off, the
        agent says so, and goes on with the turn that was under way, or says its last words again."""
        self.live = True
        self._began_ms = _now_ms()
        await self._tools.executions.begin(self._record)
        self._open()

    def _open(self) -> None:
        left, self._left = self._left, None
        if left is None:
            self._start(TurnInput(kind="start"))
            return
        settings = TalkSettings().led_by(self._flow.settings.voice)
        self._start(left.given, f"{settings.resume_text} {left.last_words}".strip())

    async def resume(self, told: int | None) -> None:
        """Goes on with what an earlier connection left: with the turn that was under way, of which nothing is done
        twice. An answer that ended after the turn `told` is told again (None: the kiosk does not say what it got)."""
        left = await self._memory.take_over()
        stored = await self._tools.store.call("GET", self._key)
        kept = _decode(stored) if stored is not None else None
        if kept is not None and kept.session.session_id != self._session.session_id:
            kept = None  # of an earlier attempt
        await self._find_record()
        if left is None and kept is not None:
            left = Remembered(session=kept.session)
        if left is None or left.session.session_id != self._session.session_id:
            await self.recall()
            self._open()  # it was cut off before anything of this attempt was kept
            return
        self._session = left.session
        if kept is not None:
            self._turn, self._outcome = kept.turn, kept.outcome
        self._turn = self._over = max(self._turn, told or 0)  # those that were interrupted are not kept
        if left.given is not None:
            self._start(left.given)
        elif kept is not None and told is not None and told < kept.turn:
            for event in kept.told:
                await self._tell_piece(event, kept.turn)

    async def _find_record(self) -> None:
        """The record that this attempt began; it begins now where the connection was lost before."""
        for row in await self._tools.executions.find(self._flow.id, self.task_id):
            if row.attempt == self.held.attempt:
                self._record = row
                return
        await self._tools.executions.begin(self._record)

    async def ask(self, text: str, heard: str | None) -> None:
        """The caller said something. A turn that is still running is interrupted: `heard` is what the caller heard of
        its answer, which is what stays of it."""
        if self._running is not None and not self._running.done():
            turn = self._turn
            await self.stop_turn()
            if self._over < turn:  # a turn whose end was told is only clearing up
                if heard:
                    self._session.messages.append(Message(role="agent", text=heard, at_ms=_now_ms()))
                    self._line("agent", heard, interrupted=True)
                await self._tell(Piece(task_id=self.task_id, turn=turn, event=None))
        self._start(TurnInput(text=text))

    async def stop_turn(self) -> None:
        """What the caller said stays in the conversation, also where the turn was stopped before it began."""
        running, self._running = self._running, None
        if running is None:
            return
        stopped = not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        said = self._session.messages[self._mark :]
        if stopped and self._words and not any(message.role == "caller" for message in said):
            self._session.messages.append(Message(role="caller", text=self._words, at_ms=_now_ms()))

    async def close(self, state: ExecutionState, reason: str, detail: str = "") -> None:
        """Closes the record."""
        await self.stop_turn()
        self._record.end_reason = reason
        self._record.detail = detail
        self._record.final_state = self._session.state
        await self._tools.executions.finish(self._record, state)
        await self._tools.store.call("DEL", self._key)
        await self._memory.forget()

    @property
    def _key(self) -> str:
        return keys.kiosk_call(self._flow.id, self.task_id)

    def _start(self, given: TurnInput | None, first: str = "") -> None:
        """`first`: words of ours before the turn's; without a turn they are all."""
        self._turn += 1
        self._mark = len(self._session.messages)
        self._words = ""
        if given is not None:
            self._words = given.text or (_question(self._session.form) if given.kind == "start" else "")
        if self._words:
            self._line("caller", self._words)
        self._running = asyncio.create_task(self._run(given, self._turn, first), name=f"kiosk-turn-{self.task_id}")

    async def _events(self, given: TurnInput | None, first: str) -> AsyncGenerator[Event, None]:
        if first:
            self._line("agent", first)
            yield Token(node_id=str(self._session.state.get("active_agent_id") or ""), text=first + " " * bool(given))
        if given is None:
            yield TurnEnded(outcome=self._outcome, text="")
            return
        session, flow = self._session, self._flow
        self._memory.keep(session, given)
        running = self._tools.engine.run(
            flow.graph,
            session,
            given,
            variables=flow.settings.variables,
            tools=flow.settings.tools,
            journal=self._memory.journal(session, given),
        )
        async with contextlib.aclosing(running):
            async for event in running:
                yield event

    async def _run(self, given: TurnInput | None, turn: int, first: str) -> None:
        said = ""
        calls: list[Event] = []
        try:
            async with contextlib.aclosing(self._events(given, first)) as events:
                async for event in events:
                    if isinstance(event, Token):
                        said += event.text
                    elif isinstance(event, NodeFinished):
                        self._node(event)
                        if isinstance(event.output, dict) and event.output.get("tool_calls"):
                            calls.append(event)
                    elif isinstance(event, TurnEnded | TurnFailed):
                        if isinstance(event, TurnEnded):
                            self._outcome = event.outcome
                            if event.text:
                                self._line("agent", event.text)
                        # Kept before it is told: who was told of the end and loses the connection finds it so.
                        told: list[Event] = [Token(node_id="", text=said), *calls, event]
                        if not await asyncio.shield(self._keep(told)):
                            return  # a later connection goes on with the call
                    await self._tell_piece(event, turn)
                    if isinstance(event, TurnEnded | TurnFailed):
                        self._over = turn
        except asyncio.CancelledError:
            raise
        except (ConnectionError, TimeoutError):
            log.info("a kiosk was gone before its turn was over", extra={"task_id": self.task_id})
        except Exception:
            log.exception("a turn at a kiosk broke", extra={"task_id": self.task_id})

    async def _tell_piece(self, event: Event, turn: int) -> None:
        agent = self._session.state.get("active_agent_id")
        active = str(agent) if agent else None
        await self._tell(Piece(task_id=self.task_id, turn=turn, event=event, active_agent_id=active))

    async def _keep(self, told: list[Event]) -> bool:
        """False where somebody later has the call."""
        self._record.final_state = self._session.state
        self._memory.keep(self._session, None)
        if not await self._memory.save():
            return False
        memory = _Memory(session=self._session, turn=self._turn, outcome=self._outcome, told=told)
        await self._tools.store.call("SET", self._key, _encode(memory), "EX", _KEPT_S)
        await self._tools.executions.save(self._record)
        return True

    def _node(self, event: NodeFinished) -> None:
        if len(self._record.nodes) < MAX_NODES:
            self._record.nodes.append(msgspec.to_builtins(event))
        if event.node_kind == "agent":
            self._session.state["active_agent_id"] = event.node_id

    def _line(self, role: Any, text: str, *, interrupted: bool = False) -> None:
        at_ms = max(0, _now_ms() - self._began_ms)
        if len(self._record.transcript) < MAX_LINES:
            self._record.transcript.append(
                Utterance(role=role, text=text, start_ms=at_ms, end_ms=at_ms, interrupted=interrupted)
            )


def _record(flow: Flow, call: Call, held: Held, session_id: str) -> Execution:
    return Execution(
        id=str(uuid.uuid4()),
        flow_id=flow.id,
        session_id=session_id,
        kind="realtime",
        graph_hash=flow.hash,
        task_id=call.task_id,
        attempt=held.attempt,
        caller_id=call.caller_id,
        form=call.form,
        memory=call.memory,
    )


def _question(form: dict[str, Any]) -> str:
    """The caller's first words, as the engine takes them."""
    value = next((value for name, value in form.items() if name.casefold() == "question"), "")
    return value.strip() if isinstance(value, str) else ""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
