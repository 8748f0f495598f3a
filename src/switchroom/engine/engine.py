"""Runs turns of compact graphs."""

from __future__ import annotations

import asyncio
import copy
import logging
import shlex
import time
import uuid
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from switchroom.compact.model import CompactGraph
from switchroom.compact.sandbox import Sandbox
from switchroom.engine.consent import ask_again, hear_verdict
from switchroom.engine.custom_tool import CustomTool
from switchroom.engine.embedded import Embedded
from switchroom.engine.events import Event, HumanAnswer, Token, TurnEnded, TurnFailed, TurnInput
from switchroom.engine.flows import FlowStore
from switchroom.engine.journal import Journal
from switchroom.engine.nodes.base import Kit, NodeFault
from switchroom.engine.paused import Paused
from switchroom.engine.replay import Replay
from switchroom.engine.responder import MediaNotTaken, Responder
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
    node that needs one that is not there fails and says so. `programs` are the command lines of MCP servers that a
    canvas may have started.
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
        programs: Iterable[str] = (),
    ) -> None:
        self._kit = Kit(
            flows=flows,
            responder=responder or Embedded(),
            sandbox=sandbox or Sandbox(),
            client=client,
            retriever=retriever,
            programs=frozenset(tuple(shlex.split(line)) for line in programs),
        )
        self._kit.sandbox.warm()
        self._variables = dict(variables or {})
        self._bounds = bounds or Bounds()

    @property
    def responder(self) -> Responder:
        """Who answers for Agents."""
        return self._kit.responder

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
        flow_id: str = "",
    ) -> AsyncGenerator[Event, None]:
        """One turn. The last event is TurnEnded or TurnFailed; the session is changed as the turn goes.

        `variables` and `tools` are the flow's own; `runtime` are the variables that came with this turn, which win;
        `flow_id` is what `{{ $flow.chatflowId }}` reads.
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
            flow_id,
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
        flow_id: str,
    ) -> None:
        realtime = session.realtime or graph.kind == "realtime"
        turn: Turn | None = None
        last: Event
        try:
            async with asyncio.timeout(self._bounds.deadline_s):
                if realtime and session.paused is not None and session.stops and given.human is None:
                    verdict = hear_verdict(session, given.text)
                    if verdict is None:
                        await _ask_again(session, given.text.strip(), events)
                        return
                    given = msgspec.structs.replace(given, human=verdict)
                paused, answers = _pause_of(session, given, resumed=journal.resumed)
                if given.media:
                    _check_media(graph, given)
                if not journal.resumed:
                    _prepare(graph, session, given, realtime)
                    if given.media:
                        await journal.keep_media(session, given.media)
                    await journal.begin(session)
                positions = paused.positions if paused else [session.position] if session.position else []
                replay = Replay(journal, session, paused)
                turn = Turn(
                    session=session,
                    realtime=realtime,
                    question=session.question,
                    bounds=self._bounds,
                    kit=self._kit,
                    replay=replay,
                    past=min(session.began, len(session.messages)),
                    deadline=asyncio.get_running_loop().time() + self._bounds.deadline_s,
                    answers=answers,
                    media=paused.media if paused else given.media,
                    emit=events.put,
                )
                ended = await turn.run(
                    graph, positions, variables=variables, runtime=runtime, tools=tools, flow_id=flow_id
                )
        except SwitchroomError as error:
            last = TurnFailed(node_id=_node_of(turn), code=error.code, detail=error.detail, status=error.status)
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
            session.paused = replay.pause(turn.until_ms, turn.media) if ended.stopped else None
            if turn.text:
                session.messages.append(Message(role="agent", text=turn.text, at_ms=_now_ms()))
            goes_on = ended.wait is not None or (realtime and (ended.stopped or not talks_in_loops(graph)))
            if ended.stopped and not realtime:
                stop = turn.stops[0] if turn.stops else None
                last = TurnEnded(outcome="stopped", text=turn.text, stop=stop, resumes_ms=turn.until_ms)
            else:
                last = TurnEnded(outcome="await_input" if goes_on else "finished", text=turn.text)
            if turn.until_ms:
                journal.park(turn.until_ms)
        await events.put(last)


async def _ask_again(session: Session, heard: str, events: asyncio.Queue[Event]) -> None:
    """The whole turn of a caller who was asked to agree and said neither yes nor no."""
    text = ask_again(session)
    if heard:
        session.messages.append(Message(role="caller", text=heard, at_ms=_now_ms()))
    session.messages.append(Message(role="agent", text=text, at_ms=_now_ms()))
    await events.put(Token(node_id=session.stops[0].node_id, text=text))
    await events.put(TurnEnded(outcome="await_input", text=text))


def _pause_of(session: Session, given: TurnInput, *, resumed: bool) -> tuple[Paused | None, dict[str, HumanAnswer]]:
    """The pause that the turn goes on from, and what a person answered there. Raises NodeFault."""
    human = given.human
    if human is None:
        return (session.paused if resumed else None), {}
    chosen = [stop for stop in session.stops if human.node_id in ("", stop.node_id, stop.position)]
    if resumed and len(chosen) != 1:
        # The answer was had before the run was lost, or before it waited for a time.
        return session.paused, {}
    if not session.stops or session.paused is None:
        raise NodeFault("No run of this session waits for a person.", code="not_stopped")
    if len(chosen) != 1:
        names = ", ".join(f"`{stop.position}`" for stop in session.stops)
        raise NodeFault(f"The answer must name one of the stops {names}.", code="unknown_stop")
    return session.paused, {chosen[0].position: human}


def _check_media(graph: CompactGraph, given: TurnInput) -> None:
    """Raises MediaNotTaken where no node could hand an upload to a model: it is never dropped in silence."""
    for node in graph.nodes:
        config = node.inputs.get("modelConfig")
        willing = not isinstance(config, dict) or config.get("allowImageUploads") is not False
        if node.kind == "executeFlow" or (node.kind in ("llm", "agent") and node.inputs.get("model") and willing):
            return
    raise MediaNotTaken(
        f"{given.media[0].name!r} is {given.media[0].mime}, and no node of this flow has a model that could take it."
    )


def _prepare(graph: CompactGraph, session: Session, given: TurnInput, realtime: bool) -> None:
    """The session as the turn begins: a new run forgets the one before, but not its conversation."""
    text = given.text.strip()
    start = graph.starts[0].inputs if graph.starts else {}
    opens = not session.started
    if given.human is not None:
        # Loops are counted while a run is walked, and so again when it is walked again.
        session.loops = dict(session.paused.loops) if session.paused else session.loops
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
    session.paused = None
    session.runtime = []
    session.began = len(session.messages)
    if not text and not realtime and opens:
        text = "\n".join(f"{key}: {value}" for key, value in session.form.items())
    session.question = text
    if text or given.media:
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
