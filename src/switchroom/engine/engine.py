"""Runs turns of compact graphs."""

from __future__ import annotations

import asyncio
import copy
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import msgspec

from switchroom.compact.model import CompactGraph
from switchroom.compact.sandbox import Sandbox
from switchroom.engine.custom_tool import CustomTool
from switchroom.engine.embedded import Embedded
from switchroom.engine.events import Event, HumanAnswer, TurnEnded, TurnFailed, TurnInput
from switchroom.engine.flows import FlowStore
from switchroom.engine.journal import Journal
from switchroom.engine.nodes.base import Kit, NodeFault
from switchroom.engine.responder import Responder
from switchroom.engine.retriever import Retriever
from switchroom.engine.scope import merge, seed_state
from switchroom.engine.session import Message, Session
from switchroom.engine.turn import Bounds, Turn, talks_in_loops
from switchroom.errors import SwitchroomError
from switchroom.net import GuardedClient

__all__ = ["Engine"]

log = logging.getLogger(__name__)

_AHEAD = 64
"""Events that a turn may be ahead of its reader."""


class Engine:
    """Runs one turn at a time of any number of conversations.

    `responder` answers for Agents; the embedded one if none is given. `variables` is what `{{$vars.x}}` reads in every
    flow, under the flow's own. `client` is the way out of HTTP nodes and tools, `retriever` what finds knowledge: a
    node that needs one that is not there fails and says so.
    """

    def __init__(
        self,
        flows: FlowStore,
        *,
        responder: Responder | None = None,
        variables: Mapping[str, Any] | None = None,
        bounds: Bounds | None = None,
        sandbox: Sandbox | None = None,
        client: GuardedClient | None = None,
        retriever: Retriever | None = None,
    ) -> None:
        self._kit = Kit(
            flows=flows,
            responder=responder or Embedded(),
            sandbox=sandbox or Sandbox(),
            client=client,
            retriever=retriever,
        )
        self._variables = dict(variables or {})
        self._bounds = bounds or Bounds()

    def answered_by(self, responder: Responder) -> Engine:
        """The same engine with another responder."""
        other = copy.copy(self)
        other._kit = msgspec.structs.replace(self._kit, responder=responder)
        return other

    async def run(
        self,
        graph: CompactGraph,
        session: Session,
        turn: TurnInput,
        *,
        variables: Mapping[str, Any] | None = None,
        runtime: Mapping[str, Any] | None = None,
        tools: Sequence[CustomTool] = (),
        journal: Journal | None = None,
    ) -> AsyncGenerator[Event, None]:
        """One turn. The last event is TurnEnded or TurnFailed; the session is changed as the turn goes.

        `variables` and `tools` are the flow's own; `runtime` are the variables that came with this turn, which win.
        With a `journal` each finished node is kept before the next one runs.

        Closing the iterator (`contextlib.aclosing`) cancels the turn at once: the caller's words stay in the
        session, the position stays where the turn began, and nothing is added for the agent, since only the caller of
        this knows what was heard.
        """
        events: asyncio.Queue[Event] = asyncio.Queue(_AHEAD)
        work = self._turn(
            graph,
            session,
            turn,
            merge(self._variables, dict(variables or {})),
            dict(runtime or {}),
            {tool.name: tool for tool in tools},
            journal or Journal(str(uuid.uuid4())),
            events,
        )
        task = asyncio.create_task(work)
        try:
            while True:
                event = await events.get()
                yield event
                if isinstance(event, (TurnEnded, TurnFailed)):
                    return
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _turn(
        self,
        graph: CompactGraph,
        session: Session,
        given: TurnInput,
        variables: dict[str, Any],
        runtime: dict[str, Any],
        tools: dict[str, CustomTool],
        journal: Journal,
        events: asyncio.Queue[Event],
    ) -> None:
        realtime = session.realtime or graph.kind == "realtime"
        turn: Turn | None = None
        last: Event
        try:
            async with asyncio.timeout(self._bounds.deadline_s):
                positions, answers = _places(session, given)
                if not journal.resumed:
                    _prepare(graph, session, given, realtime)
                    await journal.begin(session)
                turn = Turn(
                    session=session,
                    realtime=realtime,
                    question=session.question,
                    bounds=self._bounds,
                    kit=self._kit,
                    journal=journal,
                    past=min(session.began, len(session.messages)),
                    deadline=asyncio.get_running_loop().time() + self._bounds.deadline_s,
                    answers=answers,
                    emit=events.put,
                )
                ended = await turn.run(graph, positions, variables=variables, runtime=runtime, tools=tools)
        except SwitchroomError as error:
            last = TurnFailed(node_id=_node_of(turn), code=error.code, detail=error.detail)
        except TimeoutError:
            detail = f"The turn took longer than {self._bounds.deadline_s:.0f} s."
            last = TurnFailed(node_id=_node_of(turn), code="turn_timeout", detail=detail)
        except Exception as error:
            # The turn's reader must learn of it as an event; the cause goes to the log, with its trace.
            log.exception("turn failed", extra={"session_id": session.session_id})
            detail = f"The turn stopped on an internal error ({type(error).__name__})."
            last = TurnFailed(node_id=_node_of(turn), code="internal", detail=detail)
        else:
            session.position = ended.wait
            session.stops = turn.stops
            if turn.text:
                session.messages.append(Message(role="agent", text=turn.text, at_ms=_now_ms()))
            if turn.stops:
                last = TurnEnded(outcome="stopped", text=turn.text, stop=turn.stops[0])
            else:
                goes_on = ended.wait is not None or (realtime and not talks_in_loops(graph))
                last = TurnEnded(outcome="await_input" if goes_on else "finished", text=turn.text)
        await events.put(last)


def _places(session: Session, given: TurnInput) -> tuple[list[str], dict[str, HumanAnswer]]:
    """Where the turn goes on, and what a person answered there. Raises NodeFault."""
    if given.human is None:
        return ([session.position] if session.position else []), {}
    human = given.human
    chosen = [stop for stop in session.stops if human.node_id in ("", stop.node_id, stop.position)]
    if not session.stops:
        raise NodeFault("No run of this session waits for a person.", code="not_stopped")
    if len(chosen) != 1:
        names = ", ".join(f"`{stop.position}`" for stop in session.stops)
        raise NodeFault(f"The answer must name one of the stops {names}.", code="unknown_stop")
    return [stop.position for stop in session.stops], {chosen[0].position: human}


def _prepare(graph: CompactGraph, session: Session, given: TurnInput, realtime: bool) -> None:
    """The session as the turn begins: a new run forgets the one before, but not its conversation."""
    text = given.text.strip()
    start = graph.starts[0].inputs if graph.starts else {}
    opens = not session.started
    if given.human is not None:
        if given.human.feedback.strip():
            session.messages.append(Message(role="caller", text=given.human.feedback.strip(), at_ms=_now_ms()))
        return
    if opens:
        session.state = seed_state(graph, session.state)
        session.started = True
        if given.kind == "start" and not text:
            text = _form_question(session.form)
    elif not realtime and not start.get("persist"):
        # As in the canvas's editor: state lasts for a run, unless Start says that it persists.
        session.state = seed_state(graph, {})
    if start.get("ephemeral") and not realtime:
        session.messages.clear()
        session.summary, session.summarised = "", 0
    session.stops = []
    session.runtime = []
    session.began = len(session.messages)
    if not text and not realtime and opens:
        text = "\n".join(f"{key}: {value}" for key, value in session.form.items())
    session.question = text
    if text:
        session.messages.append(Message(role="caller", text=text, at_ms=_now_ms()))


def _form_question(form: dict[str, Any]) -> str:
    """The form's `question`, in any case: the caller's first words."""
    value = next((value for key, value in form.items() if key.casefold() == "question"), "")
    return value.strip() if isinstance(value, str) else ""


def _node_of(turn: Turn | None) -> str | None:
    node = (turn.failed or turn.current) if turn is not None else None
    return node.id if node is not None else None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
