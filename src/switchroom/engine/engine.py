"""Runs turns of compact graphs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from switchroom.compact.model import CompactGraph
from switchroom.compact.sandbox import Sandbox
from switchroom.engine.embedded import Embedded
from switchroom.engine.events import Event, TurnEnded, TurnFailed, TurnInput
from switchroom.engine.flows import FlowStore
from switchroom.engine.responder import Responder
from switchroom.engine.scope import merge, seed_state
from switchroom.engine.session import Message, Session
from switchroom.engine.turn import Bounds, Turn, talks_in_loops
from switchroom.errors import SwitchroomError

__all__ = ["Engine"]

log = logging.getLogger(__name__)

_AHEAD = 64
"""Events that a turn may be ahead of its reader."""


class Engine:
    """Runs one turn at a time of any number of conversations.

    `responder` answers for Agents; the embedded one if none is given. `variables` is what `{{$vars.x}}` reads in every
    flow, under the flow's own.
    """

    def __init__(
        self,
        flows: FlowStore,
        *,
        responder: Responder | None = None,
        variables: Mapping[str, Any] | None = None,
        bounds: Bounds | None = None,
        sandbox: Sandbox | None = None,
    ) -> None:
        self._flows = flows
        self._responder = responder or Embedded()
        self._variables = dict(variables or {})
        self._bounds = bounds or Bounds()
        self._sandbox = sandbox or Sandbox()

    async def run(
        self, graph: CompactGraph, session: Session, turn: TurnInput, *, variables: Mapping[str, Any] | None = None
    ) -> AsyncGenerator[Event, None]:
        """One turn. The last event is TurnEnded or TurnFailed; the session is changed as the turn goes.

        Closing the iterator (`contextlib.aclosing`) cancels the turn at once: the caller's words stay in the
        session, the position stays where the turn began, and nothing is added for the agent, since only the caller of
        this knows what was heard.
        """
        events: asyncio.Queue[Event] = asyncio.Queue(_AHEAD)
        task = asyncio.create_task(self._turn(graph, session, turn, dict(variables or {}), events))
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
        events: asyncio.Queue[Event],
    ) -> None:
        realtime = session.realtime or graph.kind == "realtime"
        text = given.text.strip()
        if not session.started:
            session.state = seed_state(graph, session.state)
            session.started = True
            if given.kind == "start" and not text:
                text = _form_question(session.form)
        if text:
            session.messages.append(Message(role="caller", text=text, at_ms=time.time_ns() // 1_000_000))
        turn = Turn(
            session=session,
            realtime=realtime,
            question=text,
            bounds=self._bounds,
            flows=self._flows,
            responder=self._responder,
            sandbox=self._sandbox,
            emit=events.put,
        )
        last: Event
        try:
            async with asyncio.timeout(self._bounds.deadline_s):
                ended = await turn.run(graph, session.position, merge(self._variables, variables))
        except SwitchroomError as error:
            last = TurnFailed(node_id=turn.current.id if turn.current else None, code=error.code, detail=error.detail)
        except TimeoutError:
            detail = f"The turn took longer than {self._bounds.deadline_s:.0f} s."
            last = TurnFailed(node_id=turn.current.id if turn.current else None, code="turn_timeout", detail=detail)
        except Exception as error:
            # The turn's reader must learn of it as an event; the cause goes to the log, with its trace.
            log.exception("turn failed", extra={"session_id": session.session_id})
            detail = f"The turn stopped on an internal error ({type(error).__name__})."
            last = TurnFailed(node_id=turn.current.id if turn.current else None, code="internal", detail=detail)
        else:
            session.position = ended.wait
            if turn.text:
                session.messages.append(Message(role="agent", text=turn.text, at_ms=time.time_ns() // 1_000_000))
            goes_on = ended.wait is not None or (realtime and not talks_in_loops(graph))
            last = TurnEnded(outcome="await_input" if goes_on else "finished", text=turn.text)
        await events.put(last)


def _form_question(form: dict[str, Any]) -> str:
    """The form's `question`, in any case: the caller's first words."""
    value = next((value for key, value in form.items() if key.casefold() == "question"), "")
    return value.strip() if isinstance(value, str) else ""
