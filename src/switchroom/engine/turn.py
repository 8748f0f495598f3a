"""One turn: walks a graph from where the conversation stands until it waits, a person is asked, or it is at its end.

The rule of a live call. The caller's words are *fresh* until a Loop goes back after a node took them or something was
said; then they are *spent*. A node that listens (Agent, Condition Agent, a Condition on the question) and finds no
fresh words waits: the turn ends `await_input` and the next utterance continues at that node. See
docs/decisions/engine-turns.md.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from switchroom.compact.model import CompactGraph, Node
from switchroom.compact.templates import MISSING, as_text, render
from switchroom.engine.custom_tool import CustomTool
from switchroom.engine.events import Event, HumanAnswer, Media, NodeStarted, Stop, Token
from switchroom.engine.flows import Flow
from switchroom.engine.frame import Frame, label_of, told_of
from switchroom.engine.nodes import RUNNABLE
from switchroom.engine.nodes.base import Child, Ended, Kit, NodeFault, Parked, Question, Result, Step
from switchroom.engine.paused import Entry
from switchroom.engine.region import Region, below
from switchroom.engine.replay import Replay
from switchroom.engine.scope import Scope, merge, seed_state
from switchroom.engine.session import Session
from switchroom.errors import SwitchroomError

__all__ = ["Bounds", "Turn", "talks_in_loops"]

NEST = ">"
"""Between the nodes of a position inside of nested flows: `executeFlow_0>agent_1`."""
_VISIT = re.compile(r"@\d+")
_LOOPS_REALTIME, _LOOPS_TEXT = 100, 10
_GOODBYE = "I am sorry, we have to end the call here. Goodbye."


class Bounds(NamedTuple):
    """`deadline_s` seconds a turn, `steps` nodes a turn, `nesting` flows inside of flows, `output` characters said,
    `parallel` branches of one graph at a time."""

    deadline_s: float = 60.0
    steps: int = 5_000
    nesting: int = 8
    output: int = 50_000
    parallel: int = 16


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
    """The state of one turn. `emit` takes each event, in order; `past` counts the session's messages before this turn;
    `answers` are what people said, by the positions of the stops; `until_ms` is when a run that waits goes on."""

    def __init__(
        self,
        *,
        session: Session,
        realtime: bool,
        question: str,
        bounds: Bounds,
        kit: Kit,
        replay: Replay,
        past: int,
        deadline: float,
        answers: dict[str, HumanAnswer],
        media: list[Media],
        emit: Callable[[Event], Awaitable[None]],
    ) -> None:
        self.session = session
        self.realtime = realtime
        self.question = question
        self.fresh = bool(question)
        self.said: list[str] = []
        self.stops: list[Stop] = []
        self.until_ms = 0
        self.current: Node | None = None
        self.failed: Node | None = None
        self._bounds = bounds
        self._kit = kit
        self._replay = replay
        self.media = media
        self._past = past
        self._deadline = deadline
        self._answers = answers
        self._emit = emit
        self._steps = 0
        self._length = 0
        self._spins: dict[str, int] = {}
        self._visits: Counter[str] = Counter()
        self._used_since_back = False
        self._last_speaker = ""
        self._floor = asyncio.Lock()
        self._speaker = ""
        self._heard: list[str] = []
        """What was said since the run began, before it paused too."""

    @property
    def text(self) -> str:
        return "".join(self.said).strip()

    async def run(
        self,
        graph: CompactGraph,
        positions: list[str],
        *,
        variables: dict[str, Any],
        runtime: dict[str, Any],
        tools: dict[str, CustomTool],
        flow_id: str,
    ) -> Ended:
        """The whole turn, from these positions (none: from Start). Raises SwitchroomError."""
        scope = Scope(
            graph, self.session, question=self.question, variables=variables, runtime=runtime, flow_id=flow_id
        )
        scope.loop_count = max(self.session.loops.values(), default=0) if self.realtime else 0
        frame = Frame(graph, scope, 0, self.realtime, True, "", "", tools)
        self._replay.begin(positions)
        ended = await self._enter(frame, positions)
        if not self._heard and not self.realtime and ended.text and not ended.stays:
            await self._say("", self.current.id if self.current else "", ended.text)
        return ended

    async def _enter(self, frame: Frame, positions: list[str]) -> Ended:
        resume: dict[str, list[str]] = {}
        for position in positions:
            head, _, inner = position.partition(NEST)
            if head in frame.graph.by_id:
                resume.setdefault(head, []).extend([inner] if inner else [])
        if resume:
            return await self._pass(frame, list(resume), resume)
        if not frame.graph.starts:
            raise NodeFault("The flow has no Start node.", code="no_start")
        return await self._pass(frame, [frame.graph.starts[0].id], {})

    async def _pass(self, frame: Frame, entries: list[str], resume: dict[str, list[str]]) -> Ended:
        """Runs what is ready: in text flows all of it at once, in a live call one node after another."""
        region = Region(frame.graph, entries)
        goes_on = set(resume)
        """Entries at which an earlier turn left off: what led there is not known here."""
        running: dict[asyncio.Task[Result], Node] = {}
        jumps: list[tuple[Node, str]] = []
        waits: str | None = None
        stopped = False
        text = ""
        width = 1 if frame.may_wait else self._bounds.parallel
        try:
            while True:
                while region.ready and not jumps and len(running) < width:
                    node = frame.graph.by_id[region.ready.popleft()]
                    previous = None if node.id in goes_on else region.came_from.get(node.id, [])
                    goes_on.discard(node.id)
                    step = self._step(frame, node, resume.pop(node.id, None), previous)
                    running[asyncio.create_task(step, name=f"node {node.id}")] = node
                if not running:
                    if not jumps or stopped:
                        # A branch that waits for a person has not ended: the Loop beside it goes back after it.
                        return Ended(waits, text, stopped)
                    # What ran beside the Loop has ended: nothing below its target runs twice at once.
                    loop, target = jumps.pop(0)
                    way = await self._back(frame, loop, target)
                    if way == "wait":
                        waits = waits or target
                    elif way == "jump":
                        again = below(frame.graph, [target])
                        others = [node_id for node_id in region.ready if node_id not in again]
                        came_from = {node_id: region.came_from.get(node_id, []) for node_id in others}
                        region = Region(frame.graph, [target, *others])
                        region.came_from |= came_from | {target: [loop.id]}
                    continue
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in sorted(done, key=lambda task: running[task].id):
                    node = running.pop(task)
                    result = task.result()
                    if result.stopped:
                        stopped = True
                    elif result.wait:
                        waits = waits or node.id + (NEST + result.inner if result.inner else "")
                    elif result.jump is not None:
                        jumps.append((node, result.jump))
                    else:
                        content = result.output.get("content") if isinstance(result.output, dict) else None
                        text = as_text(content) if content is not None else text
                        region.settle(node.id, result.branch)
        finally:
            for task in running:
                task.cancel()
            if running:
                await asyncio.gather(*running, return_exceptions=True)

    async def _back(self, frame: Frame, loop: Node, target: str) -> str:
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
        frame.scope.loop_count = min(taken, limit)
        if taken > limit:
            fallback = loop.inputs.get("fallback") or (_GOODBYE if frame.may_wait else "")
            if fallback and not frame.silent:
                await self._say("", loop.id, render(str(fallback), frame.scope.lookup))
            return "end"
        return "wait" if waits else "jump"

    async def _step(self, frame: Frame, node: Node, resume_at: list[str] | None, previous: list[str] | None) -> Result:
        visit = self._visits[frame.path + node.id] = self._visits[frame.path + node.id] + 1
        key = f"{frame.path}{node.id}@{visit}"
        self.current = node
        started = time.monotonic()
        try:
            result = await self._finished(frame, node, key) or await self._run(frame, node, key, resume_at, previous)
        except Exception as error:
            if self.failed is None:
                self.failed = node
                why = error.detail if isinstance(error, SwitchroomError) else type(error).__name__
                await self._emit(told_of(frame, node, Result(), started, previous, error=why))
            raise
        finally:
            if self._speaker == key:
                self._speaker = ""
                self._floor.release()
        return result

    async def _finished(self, frame: Frame, node: Node, key: str) -> Result | None:
        """The result of a step that finished before: in silence, or told to who listens here first."""
        found = self._replay.done(key, frame.inside)
        if found is None:
            return None
        entry, told = found
        self._steps += 1
        event = entry.event
        if event.output is not None:
            self.session.outputs[frame.scope.prefix + node.id] = event.output
        if self.fresh and node.kind in RUNNABLE and RUNNABLE[node.kind].listens(node):
            self._used_since_back = True
        if not told:
            self._heard += entry.said
            self._used_since_back = self._used_since_back or bool(entry.said)
            return Result(event.output, event.input, entry.branch, jump=entry.jump)
        await self._emit(
            NodeStarted(node_id=event.node_id, label=event.label, node_kind=event.node_kind, at_ms=event.at_ms)
        )
        for inner in self._replay.inside(key):
            await self._emit(inner.event)
        for text in entry.said:
            await self._utter(key, event.node_id, text)
        await self._emit(event)
        return Result(event.output, event.input, entry.branch, jump=entry.jump)

    async def _run(
        self, frame: Frame, node: Node, key: str, resume_at: list[str] | None, previous: list[str] | None
    ) -> Result:
        kind = RUNNABLE.get(node.kind)
        if kind is None:
            detail = (
                f"The node `{node.label or node.id}` is of the kind `{node.kind}`, which this version does not run."
            )
            raise NodeFault(detail, code="node_not_supported")
        if self._heard and frame.may_wait and not self.fresh and kind.listens(node):
            return Result(wait=True)
        self._steps += 1
        if self._steps > self._bounds.steps:
            raise NodeFault(f"The turn took more than {self._bounds.steps} steps.", code="too_many_steps")
        started = time.monotonic()
        label = label_of(node)
        await self._emit(NodeStarted(node_id=node.id, label=label, node_kind=node.kind, at_ms=_now_ms()))
        if self.fresh and kind.listens(node):
            self._used_since_back = True
        result = await kind.run(self._given(frame, node, key, resume_at))
        if result.output is not None:
            self.session.outputs[frame.scope.prefix + node.id] = result.output
        if result.stop is not None:
            await self._stop(key, node, label, result.stop)
            result = result._replace(stopped=True)
        if result.until_ms:
            self.until_ms = min(self.until_ms or result.until_ms, result.until_ms)
            result = result._replace(stopped=True)
        event = told_of(frame, node, result, started, previous)
        if not (result.wait or result.stopped):
            # Nothing is awaited between the node's last change of the session and this.
            entry = Entry(event=event, said=self._replay.said(key), branch=result.branch, jump=result.jump)
            await self._replay.commit(key, frame.inside, entry)
        await self._emit(event)
        return result

    async def _stop(self, key: str, node: Node, label: str, question: Question) -> None:
        # Told as an answer is, but no part of what the flow said: who has the run as a step gets no question.
        await self._utter(key, node.id, question.whole, heard=False)
        self.stops.append(
            Stop(
                position=_VISIT.sub("", key),
                node_id=node.id,
                label=label,
                question=question.text,
                feedback=question.feedback,
                at_ms=_now_ms(),
                calls=question.calls,
            )
        )

    def _given(self, frame: Frame, node: Node, key: str, resume_at: list[str] | None) -> Step:
        async def say(text: str) -> None:
            if not frame.silent:
                await self._say(key, node.id, text)

        async def nested(flow: Flow, question: str, runtime: dict[str, Any], state: dict[str, Any]) -> Ended:
            return await self._nested(frame, node, key, flow, question, resume_at or [], runtime=runtime, state=state)

        async def called(flow: Flow, question: str, place: str) -> str:
            ended = await self._nested(frame, node, key, flow, question, [], tool=f"/{place}")
            if ended.stays:
                raise Parked
            return ended.text

        async def children(item: Any, index: int) -> Child:
            return await self._children(frame, node, key, item, index)

        async def once(name: str, work: Callable[[], Awaitable[Any]]) -> Any:
            return await self._replay.once(f"{key}/{name}", work)

        return Step(
            node=node,
            graph=frame.graph,
            scope=frame.scope,
            kit=self._kit,
            realtime=self.realtime,
            fresh=self.fresh,
            may_wait=frame.may_wait,
            can_park=self._replay.can_park,
            greet=not self._heard and all(message.role != "agent" for message in self.session.messages),
            speaks=self.realtime or (frame.ends_call and node.id not in frame.graph.ways_on),
            key=f"{self._replay.run_id}/{key}",
            past=self._past,
            deadline=self._deadline,
            tools=frame.tools,
            human=self._answers.pop(_VISIT.sub("", key), None),
            media=self.media,
            say=say,
            nested=nested,
            called=called,
            children=children,
            once=once,
            recall=self._replay.recall,
        )

    async def _nested(
        self,
        frame: Frame,
        node: Node,
        key: str,
        flow: Flow,
        question: str,
        resume_at: list[str],
        *,
        tool: str = "",
        runtime: dict[str, Any] | None = None,
        state: dict[str, Any] | None = None,
    ) -> Ended:
        if frame.depth + 1 > self._bounds.nesting:
            raise NodeFault(f"Flows are nested deeper than {self._bounds.nesting}.", code="nested_too_deep")
        outer = frame.scope
        scope = Scope(
            flow.graph,
            self.session,
            question=question,
            variables=merge(outer.variables, flow.settings.variables),
            runtime=merge(outer.runtime, runtime or {}),
            prefix=outer.prefix + node.id + tool + NEST,
            flow_id=flow.id,
        )
        before = len(self._heard)
        if not resume_at:
            self.session.state = merge(seed_state(flow.graph, self.session.state), state or {})
        inner = frame._replace(
            graph=flow.graph,
            scope=scope,
            depth=frame.depth + 1,
            ends_call=frame.ends_call and node.id not in frame.graph.ways_on,
            path=key + tool + NEST,
            may_wait=frame.may_wait and not tool,
            silent=frame.silent or bool(tool),
            inside=key,
            holder=node.id,
            item=None,
            tools=frame.tools | {tool.name: tool for tool in flow.settings.tools},
        )
        ended = await self._enter(inner, resume_at)
        self.current = node
        return ended._replace(text="".join(self._heard[before:]).strip() or ended.text)

    async def _children(self, frame: Frame, node: Node, key: str, item: Any, index: int) -> Child:
        inside = [child for child in frame.graph.nodes if child.parent == node.id]
        entered = {edge[2] for edge in frame.graph.edges}
        entries = [child.id for child in inside if child.id not in entered]
        outer = frame.scope
        for child in inside:
            # What it gave for the item before is none of this one's.
            self.session.outputs.pop(outer.prefix + child.id, None)
        scope = Scope(
            frame.graph,
            self.session,
            question=outer.question or as_text(item),
            variables=outer.variables,
            runtime=outer.runtime,
            prefix=outer.prefix,
            iteration=item,
            flow_id=outer.flow_id,
        )
        inner = frame._replace(
            scope=scope,
            may_wait=False,
            ends_call=False,
            path=f"{key}#{index}/",
            inside=key,
            holder=node.id,
            item=index,
        )
        ended = await self._pass(inner, entries, {})
        outputs = [scope.output(child.id) for child in inside if child.id not in frame.graph.ways_on]
        found = [output for output in outputs if output is not MISSING]
        self.current = node
        return Child(found[-1] if found else ended.text, ended.stopped)

    async def _say(self, key: str, node_id: str, text: str) -> None:
        """Branches that run at once speak one after another: the first to speak has the floor until its step ends."""
        new = self._replay.unsaid(key, text) if text else ""
        if len(new) < len(text):
            self._heard.append(text[: len(text) - len(new)])
            self._used_since_back = True
        await self._utter(key, node_id, new)

    async def _utter(self, key: str, node_id: str, text: str, *, heard: bool = True) -> None:
        if not text:
            return
        if key and self._speaker != key:
            await self._floor.acquire()
            self._speaker = key
        if self._last_speaker not in ("", node_id) and self.said and not self.said[-1][-1:].isspace():
            text = " " + text
        self._length += len(text)
        if self._length > self._bounds.output:
            raise NodeFault(f"The turn said more than {self._bounds.output} characters.", code="too_long")
        self._last_speaker = node_id
        self._used_since_back = True
        self.said.append(text)
        if heard:
            self._heard.append(text)
        await self._emit(Token(node_id=node_id, text=text))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
