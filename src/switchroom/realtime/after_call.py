"""What a flow makes of a call when it is over: a summary, the fields that were asked for, as artefacts on the record.

`after_call` of the flow's voice settings names where that begins: a node of the flow (its ID or label; a branch that
nothing leads to) or another flow. Its input is the transcript as text; `{{ $form.x }}` and `{{ $flow.state.x }}` are
the call's, `{{ $vars.call.endReason }}`, `.detail`, `.durationMs`, `.taskId` and `.transcript` tell of the call itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from typing import Any, Literal

import msgspec

from switchroom.compact import CompactGraph
from switchroom.engine import Engine, Flow, FlowStore, Session
from switchroom.engine.events import NodeFinished, TurnFailed, TurnInput
from switchroom.errors import SwitchroomError
from switchroom.records import Executions
from switchroom.records.model import Artefact, Execution

log = logging.getLogger(__name__)

_DEADLINE_S = 120.0
_MOST = 20
_LONGEST = 200_000
_TELLING = ("agent", "llm", "directReply", "customFunction")
_HTML = re.compile(r"\s*<(?:!doctype|html|h[1-6]|p|div|section|article|table|ul|ol)\b", re.IGNORECASE)
_OURS = ("content", "responder", "intent", "slots", "score", "awaiting", "usedTools", "sourceDocuments")


class AfterCall:
    """Runs flows' own work on ended calls."""

    def __init__(self, engine: Engine, flows: FlowStore, executions: Executions) -> None:
        self._engine = engine
        self._flows = flows
        self._executions = executions

    async def run(self, execution: Execution) -> None:
        """Whatever goes wrong is told as an artefact, in words: the call's record stands already."""
        flow = await self._flows.get(execution.flow_id)
        if flow is None or not flow.settings.voice.after_call:
            return
        artefacts: list[Artefact] = []
        try:
            async with asyncio.timeout(_DEADLINE_S):
                await self._collect(flow, execution, artefacts)
        except TimeoutError:
            artefacts.append(_fault(f"It took longer than {_DEADLINE_S:g} s."))
        except SwitchroomError as error:
            artefacts.append(_fault(error.detail))
        if not await self._executions.attach_artefacts(execution, artefacts):
            log.info("the record of an ended call is gone", extra={"execution_id": execution.id})

    async def _collect(self, flow: Flow, execution: Execution, artefacts: list[Artefact]) -> None:
        graph, position = await self._branch(flow)
        if graph is None:
            artefacts.append(_fault(f"`{flow.settings.voice.after_call}` is neither a node of this flow nor a flow."))
            return
        session = Session(
            session_id=execution.session_id,
            form=dict(execution.form),
            state=dict(execution.final_state),
            position=position,
            started=position is not None,
        )
        text = "\n".join(f"{line.role.capitalize()}: {line.text}" for line in execution.transcript)
        call = {
            "taskId": execution.task_id,
            "endReason": execution.end_reason,
            "detail": execution.detail,
            "durationMs": max(0, execution.stopped_ms - execution.created_ms),
            "transcript": text,
        }
        events = self._engine.run(
            graph,
            session,
            TurnInput(text=text or "(nothing was said)"),
            variables=flow.settings.variables,
            runtime={"call": call},
            tools=flow.settings.tools,
        )
        async with contextlib.aclosing(events):
            async for event in events:
                if isinstance(event, NodeFinished) and len(artefacts) < _MOST:
                    artefacts += artefact_of(event)
                elif isinstance(event, TurnFailed):
                    artefacts.append(_fault(event.detail))

    async def _branch(self, flow: Flow) -> tuple[CompactGraph | None, str | None]:
        """The graph and the node of it where to begin (None: at its Start)."""
        named = flow.settings.voice.after_call
        for node in flow.graph.nodes:
            if named in (node.id, node.label):
                return flow.graph, node.id
        other = await self._flows.get(named)
        return (other.graph, None) if other is not None else (None, None)


def artefact_of(event: NodeFinished) -> list[Artefact]:
    """What a finished node gave: its declared fields as JSON, else its text."""
    if event.node_kind not in _TELLING or not isinstance(event.output, dict):
        return []
    name = event.label or event.node_id
    fields = {key: value for key, value in event.output.items() if key not in _OURS}
    if event.node_kind in ("agent", "llm") and fields:
        return [Artefact(name=name, format="json", text=msgspec.json.encode(fields).decode())]
    text = _text(event.output.get("content"))
    return [Artefact(name=name, format=format_of(text), text=text[:_LONGEST])] if text else []


def format_of(text: str) -> Literal["markdown", "html", "json"]:
    """By its beginning: a block element of HTML, a JSON object or array, else Markdown."""
    if _HTML.match(text):
        return "html"
    if text[:1] in "{[":
        with contextlib.suppress(msgspec.DecodeError):
            msgspec.json.decode(text)
            return "json"
    return "markdown"


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content.strip()
    return msgspec.json.encode(content).decode() if content is not None else ""


def _fault(detail: str) -> Artefact:
    return Artefact(name="error", format="markdown", text=f"The work after the call did not succeed: {detail}")
