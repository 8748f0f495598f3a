"""A text turn from its question to its record, in a task of its own: its client may leave, or somebody stop it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from switchroom.engine.events import Event, NodeFinished, TurnEnded, TurnFailed, TurnInput
from switchroom.engine.runs import Given, Kept, RunLost, Runs
from switchroom.errors import Conflict, SwitchroomError, TimedOut
from switchroom.gateway.broadcast import Broadcast
from switchroom.gateway.services import Services
from switchroom.gateway.sessions import held_session
from switchroom.ids import new_uuid
from switchroom.records import Execution, ExecutionFilter, ExecutionState

if TYPE_CHECKING:
    from switchroom.engine import Flow
    from switchroom.engine.session import Message, Session
    from switchroom.gateway.overrides import Overridden

log = logging.getLogger(__name__)

_AHEAD = 256
"""Events that a turn may be ahead of its client."""
_STALLED_S = 30.0
"""A client that takes none of them for so long has left."""
_ABORT = "turn-abort"
LEFT = "The client left before the turn ended."
STOPPED = "The turn was stopped by a request."
_NOT_ASKED = frozenset({"not_stopped", "unknown_stop"})


class FlowFailed(SwitchroomError):
    """The flow itself could not go on."""

    code = "flow_failed"
    title = "The flow failed"

    def __init__(self, detail: str, *, code: str, extra: dict[str, object], status: int) -> None:
        super().__init__(detail, code=code, extra=extra)
        # Where the request is wrong and not the flow: no model of it takes the upload, or nobody was asked anything.
        if status == 415:
            self.status, self.title = status, "Unsupported media type"
        elif code in _NOT_ASKED:
            self.status, self.title = 409, "Conflict"


class Turn:
    """One turn. Made by `Turns.start`."""

    def __init__(
        self,
        parts: Services,
        flow: Flow,
        given: TurnInput,
        form: dict[str, Any] | None,
        over: Overridden,
        execution: Execution,
        history: list[Message],
    ) -> None:
        self.flow = flow
        self.session_id = execution.session_id
        self.message_id = new_uuid()
        self.given = given
        self.overridden = over
        self.text = ""
        self.ended: TurnEnded | None = None
        self.execution = execution
        self.state = ExecutionState.INPROGRESS
        self._parts = parts
        self._form = form
        self._history = history
        self._failure: TurnFailed | None = None
        self._events: asyncio.Queue[Event | None] = asyncio.Queue(_AHEAD)
        self._detached = False
        self._why = LEFT
        self._begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._work(), name=f"turn-{self.execution.id}")

    async def begun(self) -> None:
        """Returns once the session is held. Raises `Conflict` while another turn of it runs."""
        await asyncio.wait([self.task, self._begun], return_when=asyncio.FIRST_COMPLETED)
        if not self._begun.done():
            await self.task

    async def events(self) -> AsyncGenerator[Event, None]:
        """The engine's events as they come.

        Raises `FlowFailed` or `TimedOut` when the turn could not go on, `Conflict` when a request stopped it; each
        after its record says so.
        """
        while (event := await self._events.get()) is not None:
            yield event
        try:
            await self.task
        except asyncio.CancelledError:
            if not self.task.cancelled():
                raise
            raise Conflict(self._why, code="turn_stopped", extra=self.about()) from None

    async def left(self) -> None:
        """The client is gone: the turn ends, or goes on unheard where the flow's settings say so."""
        if self.task.done():
            return
        if self.flow.settings.chat.on_disconnect == "detach":
            self._detach()
        else:
            await self.stop(LEFT)

    async def stop(self, why: str) -> None:
        self._why = why
        self.task.cancel()
        await asyncio.wait([self.task])

    def about(self) -> dict[str, object]:
        return {"executionId": self.execution.id, "sessionId": self.session_id}

    def _detach(self) -> None:
        self._detached = True
        while not self._events.empty():
            self._events.get_nowait()

    async def _work(self) -> None:
        try:
            # The journal is the outer one: a run is forgotten when its session and its record are saved.
            kept = Runs(self._parts.store).keep(self.flow.id, self.execution.id)
            held = held_session(self._parts, self.flow.id, self.session_id, token=self.execution.id)
            async with kept as journal, held as session:
                if not self._begun.done():
                    self._begun.set_result(None)
                await self._run(session, journal)
        finally:
            self._events_end()

    async def _run(self, session: Session, journal: Kept) -> None:
        records, execution = self._parts.executions, self.execution
        await records.begin(execution)
        if session.paused is not None and self.given.human is None:
            await self._leave(session.paused.run_id)
        if not session.started:
            session.form = self._form or session.form
            session.messages = [*self._history, *session.messages]
            session.state = {**session.state, **self.overridden.state}
        state, detail = ExecutionState.TERMINATED, ""
        try:
            await self._follow(session, journal)
            waits = self.ended is not None and self.ended.outcome == "stopped"
            state = ExecutionState.STOPPED if waits else ExecutionState.FINISHED
            detail = self.ended.detail if self.ended is not None else ""
            if self._failure is not None:
                timed_out = self._failure.code == "turn_timeout"
                state = ExecutionState.TIMEOUT if timed_out else ExecutionState.ERROR
                detail = self._failure.detail
        except asyncio.CancelledError:
            detail = self._why
            raise
        except TimeoutError:
            state = ExecutionState.TIMEOUT
            detail = f"The turn took longer than {self._parts.turn_timeout_s:g} s."
        except Exception as error:
            state, detail = ExecutionState.ERROR, f"{type(error).__name__}: {error}"
            raise
        finally:
            self.state, execution.detail, execution.final_state = state, detail, session.state
            if not journal.lost:
                # Shielded: whoever cancels the turn does not cancel the truth about it.
                await asyncio.shield(records.finish(execution, state))
        if state is ExecutionState.TIMEOUT:
            raise TimedOut(detail, extra=self.about())
        if self._failure is not None:
            raise FlowFailed(detail, code=self._failure.code, extra=self.about(), status=self._failure.status)

    async def _leave(self, run_id: str) -> None:
        """New words instead of an answer: the run that waited is over."""
        row = await self._parts.executions.get(run_id)
        if row is not None and row.id != self.execution.id and row.state is ExecutionState.STOPPED:
            row.detail = "The conversation went on before the run did."
            await self._parts.executions.finish(row, ExecutionState.TERMINATED)

    async def _follow(self, session: Session, journal: Kept) -> None:
        deadline = asyncio.get_running_loop().time() + self._parts.turn_timeout_s
        given = self.given
        if given.kind == "utterance" and not session.started:
            given = msgspec.structs.replace(given, kind="start")
        settings = self.flow.settings
        journal.given = Given(
            graph=self.overridden.graph,
            turn=given,
            variables=settings.variables,
            runtime=self.overridden.variables,
            tools=settings.tools,
            deadline_ms=int((time.time() + self._parts.turn_timeout_s) * 1000),
            kept_s=self._parts.session_ttl_s,
        )
        running = self._parts.engine.run(
            self.overridden.graph,
            session,
            given,
            variables=settings.variables,
            runtime=self.overridden.variables,
            tools=settings.tools,
            journal=journal,
            flow_id=self.flow.id,
        )
        async with contextlib.aclosing(running) as events:
            while (event := await _next(events, deadline)) is not None:
                self._take(event)
                await self._tell(event)
        if journal.lost:
            raise RunLost("Another process goes on with this turn.")

    def _take(self, event: Event) -> None:
        match event:
            case NodeFinished():
                self.execution.nodes.append(msgspec.to_builtins(event))
            case TurnEnded():
                self.text, self.ended = event.text, event
            case TurnFailed():
                self._failure = event
            case _:
                pass

    async def _tell(self, event: Event) -> None:
        if self._detached:
            return
        try:
            async with asyncio.timeout(_STALLED_S):
                await self._events.put(event)
        except TimeoutError:
            log.warning("a client takes no events of its turn", extra=self.about())
            await asyncio.shield(self._stalled())

    async def _stalled(self) -> None:
        if self.flow.settings.chat.on_disconnect == "detach":
            self._detach()
        else:
            self.task.cancel()

    def _events_end(self) -> None:
        if self._events.full():
            self._events.get_nowait()
        self._events.put_nowait(None)


class Turns:
    """The turns that run in this process, so that a request to any process can stop one."""

    def __init__(self, parts: Services, broadcast: Broadcast) -> None:
        self._parts = parts
        self._broadcast = broadcast
        self._running: dict[tuple[str, str], Turn] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        broadcast.listen(_ABORT, self._hear)

    async def start(
        self,
        flow: Flow,
        session_id: str,
        given: TurnInput,
        form: dict[str, Any] | None,
        over: Overridden,
        history: list[Message],
    ) -> Turn:
        """`history` is what was said before the session. Raises `Conflict` while another turn of it runs."""
        execution = await self._stopped(flow.id, session_id) if given.human is not None else None
        if execution is None:
            execution = Execution(id=new_uuid(), flow_id=flow.id, session_id=session_id, kind="turn")
        execution.graph_hash = over.hash
        turn = Turn(self._parts, flow, given, form, over, execution, history)
        self._tasks.add(turn.task)
        turn.task.add_done_callback(self._done)
        try:
            await turn.begun()
        except asyncio.CancelledError:
            if flow.settings.chat.on_disconnect == "detach":
                turn._detach()
            else:
                turn.task.cancel()
            raise
        place = (flow.id, session_id)
        self._running[place] = turn
        turn.task.add_done_callback(lambda _: self._forget(place, turn))
        return turn

    async def abort(self, flow_id: str, session_id: str) -> None:
        """Stops the session's turn, whichever process runs it. No error where none runs."""
        await self._broadcast.publish(_ABORT, {"flow": flow_id, "session": session_id})

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _forget(self, place: tuple[str, str], turn: Turn) -> None:
        # The session's next turn may have begun between this one's end and this call.
        if self._running.get(place) is turn:
            del self._running[place]

    async def _stopped(self, flow_id: str, session_id: str) -> Execution | None:
        """The record of the run that waits for a person in this session: the answer goes on in it."""
        wanted = ExecutionFilter(flow_id=flow_id, session_id=session_id, state=ExecutionState.STOPPED)
        rows, _ = await self._parts.executions.search(wanted, limit=1)
        if not rows:
            return None
        rows[0].state = ExecutionState.INPROGRESS
        rows[0].nodes = [node for node in rows[0].nodes if not node.get("waits")]
        return rows[0]

    def _hear(self, body: dict[str, Any]) -> None:
        turn = self._running.get((body["flow"], body["session"]))
        if turn is not None:
            turn._why = STOPPED
            turn.task.cancel()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        # A detached turn has nobody who awaits it; its record and this line say how it ended.
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            log.info("turn ended with an error", extra={"cause": type(error).__name__})


TURNS = web.AppKey("turns", Turns)


async def _next(events: AsyncIterator[Event], deadline: float) -> Event | None:
    # The deadline is held here and not around the turn: between events the client's own reading is awaited.
    async with asyncio.timeout_at(deadline):
        return await anext(events, None)
