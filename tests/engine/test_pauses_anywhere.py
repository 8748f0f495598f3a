"""Flows of every shape with people to be asked in them: what comes of a run that paused, and went on from its session's
JSON each time, is what comes of the same flow with the answers drawn in."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections import Counter
from typing import Any

import msgspec
import pytest

from switchroom.compact import compact_canvas
from switchroom.engine import Engine, FlowStore, Session
from switchroom.engine.events import HumanAnswer, NodeFinished, TurnEnded, TurnInput

from .conftest import draw

Drawn = dict[str, tuple[str, dict[str, Any]]]
_PORTS = {"condition": 2, "human": 2}


class Sketch:
    """Draws the same flow twice: with Human Input nodes, or with Conditions in their place that go the same way."""

    def __init__(self, seed: int, *, asks: bool) -> None:
        self.rnd = random.Random(seed)
        self.asks = asks
        self.agrees: dict[str, bool] = {}
        self.flows: dict[str, dict[str, Any]] = {}
        self._names = itertools.count()

    def flow(self, depth: int = 0) -> dict[str, Any]:
        nodes: Drawn = {f"s{next(self._names)}": ("startAgentflow", {})}
        parents: dict[str, str] = {}
        edges: list[Any] = []
        ports = dict.fromkeys(nodes, 1)
        top = list(nodes)
        for _ in range(self.rnd.randint(2, 6)):
            sources = self.rnd.sample(top, min(len(top), self.rnd.randint(1, 2)))
            name = self._node(nodes, edges, parents, ports, depth)
            edges += [(source, name, self.rnd.randrange(ports[source])) for source in sources]
            top.append(name)
        return draw(nodes, edges, **parents)

    def _node(self, nodes: Drawn, edges: list[Any], parents: dict[str, str], ports: dict[str, int], depth: int) -> str:
        name = f"n{next(self._names)}"
        kinds = ["function", "reply", "condition", "human", "human"]
        kind = self.rnd.choice([*kinds, "iteration", "flow"] if depth < 2 else kinds)
        ports[name] = _PORTS.get(kind, 1)
        agrees = self.rnd.random() < 0.6
        same = {"value1": "a", "operation": "equal", "value2": "a" if agrees else "b"}
        match kind:
            case "function":
                code = f"return Number($flow.state.{name} || 0) + 1"
                update = [{"key": name, "value": "{{ output }}"}]
                inputs = {"customFunctionJavascriptFunction": code, "customFunctionUpdateState": update}
                nodes[name] = ("customFunctionAgentflow", inputs)
            case "reply":
                nodes[name] = ("directReplyAgentflow", {"directReplyMessage": f"{name} {{{{ $iteration }}}}"})
            case "human" if self.asks:
                self.agrees[name] = agrees
                nodes[name] = ("humanInputAgentflow", {"humanInputDescription": "Go on?"})
            case "human" | "condition":
                nodes[name] = ("conditionAgentflow", {"conditions": [same]})
            case "iteration":
                nodes[name] = ("iterationAgentflow", {"iterationInput": str(list(range(self.rnd.randint(0, 3))))})
                inside = [self._node(nodes, edges, parents, ports, depth + 1) for _ in range(self.rnd.randint(1, 3))]
                parents.update(dict.fromkeys(inside, name))
                edges += [(one, other, self.rnd.randrange(ports[one])) for one, other in itertools.pairwise(inside)]
            case _:
                self.flows[name] = self.flow(depth + 1)
                nodes[name] = ("executeFlowAgentflow", {"executeFlowSelectedFlow": name})
        return name


async def play(flows: FlowStore, seed: int, *, asks: bool) -> tuple[Counter[str], dict[str, Any], int]:
    """The nodes that finished, the state at the end, and how often a person was asked."""
    sketch = Sketch(seed, asks=asks)
    graph = compact_canvas(sketch.flow())
    for name, canvas in sketch.flows.items():
        await flows.save(canvas, flow_id=name)
    session, turn, asked = Session(session_id="s"), TurnInput(text="go"), 0
    finished: Counter[str] = Counter()
    while True:
        async with contextlib.aclosing(Engine(flows).run(graph, session, turn)) as events:
            async for event in events:
                if isinstance(event, NodeFinished) and not event.waits:
                    finished[event.node_id] += 1
        assert isinstance(event, TurnEnded), event
        session = msgspec.json.decode(msgspec.json.encode(session), type=Session)
        if event.outcome != "stopped":
            return finished, session.state, asked
        asked += 1
        stop = random.Random(seed + asked).choice(session.stops)
        verdict = "proceed" if sketch.agrees[stop.node_id] else "reject"
        turn = TurnInput(human=HumanAnswer(type=verdict, node_id=stop.position))  # type: ignore[arg-type]


@pytest.mark.parametrize("first", range(0, 40, 10))
async def test_a_run_that_paused_comes_to_the_same(flows: FlowStore, first: int) -> None:
    asked = 0
    for seed in range(first, first + 10):
        paused = await play(flows, seed, asks=True)
        whole = await play(flows, seed, asks=False)
        assert paused[:2] == whole[:2], seed
        asked += paused[2]
    assert asked > 5
