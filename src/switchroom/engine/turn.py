"""One turn: walks a graph from where the conversation stands until it waits for the caller or reaches its end.

The rule of a live call. The caller's words are *fresh* until a Loop goes back after a node took them or something was
said; then they are *spent*. A node that listens (Agent, Condition Agent, a Condition on the question) and finds no
fresh words waits: the turn ends `await_input` and the next utterance continues at that node. See
docs/decisions/engine-turns.md.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from switchroom.compact.model import CompactGraph, Node
from switchroom.compact.palette import BY_NAME
from switchroom.compact.sandbox import Sandbox
from switchroom.compact.templates import MISSING, as_text, render
from switchroom.engine.events import Event, NodeFinished, NodeStarted, Token
from switchroom.engine.flows import FlowStore
from switchroom.engine.nodes import RUNNABLE
from switchroom.engine.nodes.base import NodeFault, Result, Step
from switchroom.engine.region import Region, below
from switchroom.engine.responder import Responder
from switchroom.engine.scope import Scope, seed_state
from switchroom.engine.session import Session

__all__ = ["Bounds", "Ended", "Turn", "talks_in_loops"]

NEST = ">"
"""Between the nodes of a position inside of nested flows: `executeFlow_0>agent_1`."""
_LOOPS_REALTIME, _LOOPS_TEXT = 100, 10
_GOODBYE = "I am sorry, we have to end the call here. Goodbye."


class Bounds(NamedTuple):
    """`deadline_s` seconds a turn, `steps` nodes a turn, `nesting` flows inside of flows, `output` characters said."""

    deadline_s: float = 60.0
    steps: int = 500
    nesting: int = 8
    output: int = 50_000


class Ended(NamedTuple):
    """How a graph's pass ended: `wait` is the position at which it waits, None at its end; `text` the last output."""

    wait: str | None
    text: str


class _Frame(NamedTuple):
    """A graph on the way: the turn's own, a nested flow's, or an Iteration's inside."""

    graph: CompactGraph
    scope: Scope
    depth: int
    may_wait: bool
    ends_call: bool
    """Its end is the conversation's end."""


def talks_in_loops(graph: CompactGraph) -> bool:
    """Whether a Loop of the graph goes back to where the caller is heard: then its leaves end the call."""
    return any(
        node.kind == "loop" and node.parent is None and _listened(graph, str(node.inputs.get("to", "")))
        for node in graph.nodes
    )


def _listened(graph: CompactGraph, entry: str) -> bool:
    if entry not in graph.by_id:
        return False
    nodes = [graph.by_id[node_id] for node_id in below(graph, [entry])]
    return any(
        node.kind == "executeFlow" or (node.kind in RUNNABLE and RUNNABLE[node.kind].listens(node)) for node in nodes
    )


class Turn:
    """The state of one turn. `emit` takes each event, in order."""

    def __init__(
        self,
        *,
        session: Session,
        realtime: bool,
        question: str,
        bounds: Bounds,
        flows: FlowStore,
        responder: Responder,
        sandbox: Sandbox,
        emit: Callable[[Event], Awaitable[None]],
    ) -> None:
        self.session = session
        self.realtime = realtime
        self.question = question
        self.fresh = bool(question)
        self.said: list[str] = []
        self.current: Node | None = None
        self._bounds = bounds
        self._flows = flows
        self._responder = responder
        self._sandbox = sandbox
        self._emit = emit
        self._steps = 0
        self._length = 0
        self._spins: dict[str, int] = {}
        self._used_since_back = False
        self._last_speaker = ""

    @property
    def text(self) -> str:
        return "".join(self.said).strip()

    async def run(self, graph: CompactGraph, position: str | None, variables: dict[str, Any]) -> Ended:
        """The whole turn. Raises SwitchroomError."""
        scope = Scope(graph, self.session, question=self.question, variables=variables)
        frame = _Frame(graph, scope, 0, self.realtime, True)
        ended = await self._enter(frame, position)
        if not self.said and not self.realtime and ended.text:
            await self._say(self.current.id if self.current else "", ended.text)
        return ended

    async def _enter(self, frame: _Frame, position: str | None) -> Ended:
        head, _, inner = (position or "").partition(NEST)
        if head and head in frame.graph.by_id:
            return await self._pass(frame, [head], {head: inner} if inner else {})
        if not frame.graph.starts:
            raise NodeFault("The flow has no Start node.", code="no_start")
        return await self._pass(frame, [frame.graph.starts[0].id], {})

    async def _pass(self, frame: _Frame, entries: list[str], resume: dict[str, str]) -> Ended:
        region = Region(frame.graph, entries)
        waits: str | None = None
        text = ""
        while region.ready:
            node = frame.graph.by_id[region.ready.popleft()]
            result = await self._step(frame, node, resume.pop(node.id, None))
            if result.wait:
                waits = waits or node.id + (NEST + result.inner if result.inner else "")
                continue
            if result.jump is not None:
                stop = await self._back(frame, node, result.jump)
                if stop == "wait":
                    waits = waits or result.jump
                elif stop == "jump":
                    again = below(frame.graph, [result.jump])
                    others = [node_id for node_id in region.ready if node_id not in again]
                    region = Region(frame.graph, [result.jump, *others])
                continue
            content = result.output.get("content") if isinstance(result.output, dict) else None
            text = as_text(content) if content is not None else text
            region.settle(node.id, result.branch)
        return Ended(waits, text)

    async def _back(self, frame: _Frame, loop: Node, target: str) -> str:
        """What a Loop does: `jump` at once, `wait` at its target for the caller's next words, `end` at its limit."""
        key = frame.scope.prefix + loop.id
        waits = False
        if frame.may_wait and (self._used_since_back or not self.fresh):
            # The words had their answer; without a listener below, stop here rather than talk on.
            waits = not self.fresh or not _listened(frame.graph, target)
            self.fresh = False
            self._used_since_back = False
            taken = self.session.loops[key] = self.session.loops.get(key, 0) + 1
        else:
            taken = self._spins[key] = self._spins.get(key, 0) + 1
        limit = loop.inputs.get("max")
        if not isinstance(limit, int):
            limit = _LOOPS_REALTIME if frame.may_wait else _LOOPS_TEXT
        if taken > limit:
            fallback = loop.inputs.get("fallback") or (_GOODBYE if frame.may_wait else "")
            if fallback:
                await self._say(loop.id, render(str(fallback), frame.scope.lookup))
            return "end"
        return "wait" if waits else "jump"

    async def _step(self, frame: _Frame, node: Node, resume_at: str | None) -> Result:
        self.current = node
        kind = RUNNABLE.get(node.kind)
        if kind is None:
            detail = (
                f"The node `{node.label or node.id}` is of the kind `{node.kind}`, which this version does not run."
            )
            raise NodeFault(detail, code="node_not_supported")
        if self.said and frame.may_wait and not self.fresh and kind.listens(node):
            return Result(wait=True)
        self._steps += 1
        if self._steps > self._bounds.steps:
            raise NodeFault(f"The turn took more than {self._bounds.steps} steps.", code="too_many_steps")
        shown = BY_NAME[node.kind].label
        label = node.label or shown
        started = time.monotonic()
        await self._emit(NodeStarted(node_id=node.id, label=label, node_kind=node.kind, at_ms=_now_ms()))
        if self.fresh and kind.listens(node):
            self._used_since_back = True
        result = await kind.run(self._given(frame, node, resume_at))
        if result.output is not None:
            self.session.outputs[frame.scope.prefix + node.id] = result.output
        await self._emit(
            NodeFinished(
                node_id=node.id,
                label=label,
                node_kind=node.kind,
                at_ms=_now_ms(),
                duration_ms=(time.monotonic() - started) * 1000,
                input=result.input,
                output=result.output,
                branch=None if result.branch is None else str(result.branch),
                # A copy: the state goes on changing after this event.
                state=copy.deepcopy(self.session.state),
            )
        )
        return result

    def _given(self, frame: _Frame, node: Node, resume_at: str | None) -> Step:
        async def say(text: str) -> None:
            await self._say(node.id, text)

        async def nested(graph: CompactGraph, question: str, variables: dict[str, Any]) -> tuple[str, str | None]:
            return await self._nested(frame, node, graph, question, variables, resume_at)

        async def children(item: Any, index: int) -> Any:
            return await self._children(frame, node, item, index)

        return Step(
            node=node,
            graph=frame.graph,
            scope=frame.scope,
            realtime=self.realtime,
            fresh=self.fresh,
            may_wait=frame.may_wait,
            greet=not self.said and all(message.role != "agent" for message in self.session.messages),
            speaks=self.realtime or (frame.ends_call and node.id not in frame.graph.ways_on),
            resume_at=resume_at,
            responder=self._responder,
            sandbox=self._sandbox,
            flows=self._flows,
            say=say,
            nested=nested,
            children=children,
        )

    async def _nested(
        self,
        frame: _Frame,
        node: Node,
        graph: CompactGraph,
        question: str,
        variables: dict[str, Any],
        resume_at: str | None,
    ) -> tuple[str, str | None]:
        if frame.depth + 1 > self._bounds.nesting:
            raise NodeFault(f"Flows are nested deeper than {self._bounds.nesting}.", code="nested_too_deep")
        prefix = frame.scope.prefix + node.id + NEST
        scope = Scope(graph, self.session, question=question, variables=variables, prefix=prefix)
        ends = frame.ends_call and node.id not in frame.graph.ways_on
        before = len(self.said)
        if resume_at is None:
            self.session.state = seed_state(graph, self.session.state)
        ended = await self._enter(_Frame(graph, scope, frame.depth + 1, frame.may_wait, ends), resume_at)
        self.current = node
        return "".join(self.said[before:]).strip() or ended.text, ended.wait

    async def _children(self, frame: _Frame, node: Node, item: Any, index: int) -> Any:
        inside = [child for child in frame.graph.nodes if child.parent == node.id]
        entered = {edge[2] for edge in frame.graph.edges}
        entries = [child.id for child in inside if child.id not in entered]
        outer = frame.scope
        scope = Scope(
            frame.graph,
            self.session,
            question=outer.question or as_text(item),
            variables=outer.variables,
            prefix=outer.prefix,
            iteration=item,
        )
        ended = await self._pass(_Frame(frame.graph, scope, frame.depth, False, False), entries, {})
        outputs = [scope.output(child.id) for child in inside if child.id not in frame.graph.ways_on]
        found = [output for output in outputs if output is not MISSING]
        self.current = node
        return found[-1] if found else ended.text

    async def _say(self, node_id: str, text: str) -> None:
        if not text:
            return
        if self._last_speaker not in ("", node_id) and self.said and not self.said[-1][-1:].isspace():
            text = " " + text
        self._length += len(text)
        if self._length > self._bounds.output:
            raise NodeFault(f"The turn said more than {self._bounds.output} characters.", code="too_long")
        self._last_speaker = node_id
        self._used_since_back = True
        self.said.append(text)
        await self._emit(Token(node_id=node_id, text=text))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
