"""Every fault is found, with its place and a mend."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchroom import compact
from switchroom.errors import BadInput, Unprocessable


def node(node_id: str, name: str, parent: str | None = None, **inputs: Any) -> dict[str, Any]:
    raw: dict[str, Any] = {"id": node_id, "data": {"name": name, "label": node_id, "inputs": inputs}}
    return raw | ({"parentNode": parent} if parent else {})


def edge(source: str, target: str, port: int | str = 0) -> dict[str, Any]:
    return {"source": source, "target": target, "sourceHandle": f"{source}-output-{port}"}


def canvas(*nodes: dict[str, Any], edges: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    return {"nodes": list(nodes), "edges": list(edges)}


START = node("s", "startAgentflow")

CASES: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "dangling target": (canvas(START, edges=(edge("s", "ghost"),)), "error", "/edges/0/target", "ghost"),
    "dangling source": (canvas(START, edges=(edge("ghost", "s"),)), "error", "/edges/0/source", "ghost"),
    "no start": (canvas(node("a", "agentAgentflow")), "error", "/nodes", "no Start"),
    "two starts": (canvas(START, node("t", "startAgentflow")), "error", "/nodes/1", "more than one Start"),
    "same ID twice": (canvas(START, node("s", "agentAgentflow")), "error", "/nodes/1/id", "rename one"),
    "no ID": (canvas(START, {"data": {"name": "agentAgentflow"}}), "error", "/nodes/1/id", "no `id`"),
    "no object": (canvas(START, 3), "error", "/nodes/1", "object"),  # type: ignore[arg-type]
    "unreached": (canvas(START, node("a", "agentAgentflow")), "warning", "/nodes/1", "Nothing leads"),
    "unknown kind": (canvas(START, node("z", "zebraNode")), "warning", "/nodes/1", "zebraNode"),
    "loop without limit": (
        canvas(START, node("l", "loopAgentflow", loopBackToNode="s-s"), edges=(edge("s", "l"),)),
        "warning",
        "/nodes/1",
        "no limit",
    ),
    "loop with a bad limit": (
        canvas(START, node("l", "loopAgentflow", loopBackToNode="s-s", maxLoopCount=0), edges=(edge("s", "l"),)),
        "error",
        "/nodes/1",
        "limit `0`",
    ),
    "loop to nowhere": (
        canvas(START, node("l", "loopAgentflow", loopBackToNode="gone-x", maxLoopCount=1), edges=(edge("s", "l"),)),
        "error",
        "/nodes/1",
        "gone-x",
    ),
    "loop without target": (
        canvas(START, node("l", "loopAgentflow", maxLoopCount=1), edges=(edge("s", "l"),)),
        "error",
        "/nodes/1",
        "no target",
    ),
    "circle": (
        canvas(
            START,
            node("a", "agentAgentflow"),
            node("b", "agentAgentflow"),
            edges=(edge("s", "a"), edge("a", "b"), edge("b", "a")),
        ),
        "error",
        "/edges/1",
        "circle",
    ),
    "template that names nothing": (
        canvas(
            START, node("d", "directReplyAgentflow", directReplyMessage="{{ agent_9.output }}"), edges=(edge("s", "d"),)
        ),
        "warning",
        "/nodes/1",
        "agent_9",
    ),
    "expression that does not parse": (
        canvas(
            START, node("c", "conditionRealtime", conditionExpression='"${$question}" === '), edges=(edge("s", "c"),)
        ),
        "error",
        "/nodes/1",
        "does not parse",
    ),
    "undeclared state read": (
        canvas(
            START, node("d", "directReplyAgentflow", directReplyMessage="{{$flow.state.x}}"), edges=(edge("s", "d"),)
        ),
        "warning",
        "/nodes/1",
        "`x`",
    ),
    "undeclared state written": (
        canvas(
            START,
            node("a", "agentAgentflow", agentUpdateState=[{"key": "mood", "value": "good"}]),
            edges=(edge("s", "a"),),
        ),
        "warning",
        "/nodes/1",
        "`mood`",
    ),
    "function that does not parse": (
        canvas(
            START,
            node("f", "customFunctionAgentflow", customFunctionJavascriptFunction="return ("),
            edges=(edge("s", "f"),),
        ),
        "error",
        "/nodes/1",
        "does not parse",
    ),
    "output that a condition has not": (
        canvas(
            START,
            node("c", "conditionAgentflow", conditions=[{"value1": "a", "operation": "equal", "value2": "b"}]),
            node("a", "agentAgentflow"),
            edges=(edge("s", "c"), edge("c", "a", 5)),
        ),
        "error",
        "/nodes/1",
        "output 5",
    ),
    "edge across an iteration's border": (
        canvas(
            START,
            node("i", "iterationAgentflow"),
            node("k", "llmAgentflow", parent="i"),
            edges=(edge("s", "i"), edge("s", "k")),
        ),
        "error",
        "/edges/1",
        "border",
    ),
    "output that an approval has not": (
        canvas(
            START,
            node("h", "humanInputAgentflow"),
            node("a", "agentAgentflow"),
            edges=(edge("s", "h"), edge("h", "a", 2)),
        ),
        "error",
        "/nodes/1",
        "output 2",
    ),
    "output that a condition agent has not": (
        canvas(
            START,
            node("c", "conditionAgentAgentflow", conditionAgentScenarios=[{"scenario": "x"}, {"scenario": "y"}]),
            node("a", "agentAgentflow"),
            edges=(edge("s", "c"), edge("c", "a", 3)),
        ),
        "error",
        "/nodes/1",
        "output 3",
    ),
    "edge without an output": (
        canvas(
            START,
            node("h", "humanInputAgentflow"),
            node("a", "agentAgentflow"),
            edges=(edge("s", "h"), {"source": "h", "target": "a"}),
        ),
        "warning",
        "/edges/1/sourceHandle",
        "which output",
    ),
    "start in an iteration": (
        canvas(
            START, node("i", "iterationAgentflow"), node("t", "startAgentflow", parent="i"), edges=(edge("s", "i"),)
        ),
        "error",
        "/nodes/2",
        "stands in an Iteration",
    ),
    "iteration in itself": (
        canvas(START, node("i", "iterationAgentflow", parent="i")),
        "error",
        "/nodes/1/parentNode",
        "inside of itself",
    ),
    "edge into start": (
        canvas(START, node("b", "agentAgentflow"), edges=(edge("b", "s"),)),
        "warning",
        "/edges/0",
        "into Start",
    ),
    "chatflow": (
        canvas({"id": "c", "type": "customNode", "data": {"name": "chatOpenAI"}}),
        "error",
        "/nodes",
        "Agentflow V2",
    ),
    "HTTP without a URL": (
        canvas(START, node("h", "httpAgentflow"), edges=(edge("s", "h"),)),
        "warning",
        "/nodes/1",
        "no URL",
    ),
    "execute flow without a flow, of a text flow": (
        canvas(START, node("e", "executeFlowAgentflow"), edges=(edge("s", "e"),)),
        "warning",
        "/nodes/1",
        "no flow",
    ),
    "execute flow without a flow": (
        canvas(START, node("e", "executeFlowRealtime"), edges=(edge("s", "e"),)),
        "error",
        "/nodes/1",
        "no flow",
    ),
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_fault_is_found(case: str) -> None:
    body, severity, pointer, words = CASES[case]
    found = [item for item in compact.validate(body) if words in item.detail]
    assert [(item.severity, item.pointer) for item in found] == [(severity, pointer)]
    if severity == "error":
        with pytest.raises(Unprocessable) as caught:
            compact.compact_canvas(body)
        assert pointer in [fault.pointer for fault in caught.value.faults]
    else:
        compact.compact_canvas(body)


def test_all_errors_are_listed_at_once() -> None:
    body = canvas(node("a", "agentAgentflow"), edges=(edge("a", "x"), edge("y", "a")))
    with pytest.raises(Unprocessable) as caught:
        compact.compact_canvas(body)
    assert len(caught.value.faults) == 3


def test_a_graph_can_be_validated_too() -> None:
    graph = compact.read_canvas(CASES["circle"][0])
    assert [item.pointer for item in compact.validate(graph)] == ["/e/0"]


def test_a_sound_canvas_has_no_finding() -> None:
    body = canvas(
        START, node("a", "agentAgentflow", agentUserMessage="{{ question }} {{ s.output }}"), edges=(edge("s", "a"),)
    )
    assert compact.validate(body) == []


def _places(value: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _places(item, (*at, key))


SOUND = canvas(
    node("s", "startRealtime", startState=[{"key": "k", "value": "v"}]),
    node("a", "agentRealtime", agentIntents=[{"intent": "X", "examples": ["x"], "slots": [{"name": "n"}]}]),
    node("c", "conditionRealtime", conditions=[{"value1": "{{question}}", "operation": "equal", "value2": "x"}]),
    node("i", "iterationRealtime", iterationInput="[1]"),
    node("r", "directReplyRealtime", "i", directReplyMessage="<p>{{ $iteration }}</p>"),
    node("l", "loopRealtime", loopBackToNode="a-a", maxLoopCount=3),
    edges=(edge("s", "a"), edge("a", "c"), edge("c", "i"), edge("c", "l", 1)),
)
JUNK = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        1.5,
        "",
        "x",
        "{{",
        "<p>",
        "${",
        [],
        [[]],
        {},
        {"a": 1},
        ["x"],
        "9" * 30,
        {"": {}},
        2**70,
        -(2**64),
        10**400,
        1e400,
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_damage_is_answered_with_our_errors(data: st.DataObject) -> None:
    body = copy.deepcopy(SOUND)
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from([place for place in _places(body) if place]))
        target: Any = body
        for step in way:
            target = target[step]
        target[last] = copy.deepcopy(data.draw(JUNK))
    try:
        graph = compact.compact_canvas(body)
    except (BadInput, Unprocessable) as error:
        assert error.detail
        assert error.faults
    else:
        assert compact.read_canvas(compact.expand(graph)) == graph
        assert compact.from_msgpack(compact.to_msgpack(graph)) == graph


def test_a_canvas_nested_too_deep() -> None:
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(BadInput):
        compact.compact_canvas(canvas(START, node("z", "zebra", odd=deep)))
