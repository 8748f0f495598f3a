"""Canvases that nobody would draw, made of every kind and input with anything in it: reading, expanding and reading
again gives the same graph, in whatever order their parts stand. `CANVASES=100000` draws more of them."""

from __future__ import annotations

import json
import os
from random import Random
from typing import Any

import pytest

from switchroom import compact
from switchroom.compact.fields import Field
from switchroom.compact.kinds import KINDS

TEXTS = (
    "", "x", "  led by blanks", "ends so \n\n", "\r\nx\r\n", "a < b && c > d", "{{", "}}{{ }}", "{{ question }}",
    "<p>Hi</p>", "<p>a</p><p></p><p>b <strong>c</strong></p>", "<p>unclosed", "</p>", "<p><br></p>", "&lt;p&gt;",
    "<ul><li>1</li><li>2<ol><li>z</li></ol></li></ul>", "<p>5 &lt; 6 &amp; 7 &nbsp; x</p>", "<p>a<!-- c -->b</p>",
    '<p><span class="variable" data-id="q">{{ $flow.state.x }}</span> and {{ a.output.b[0].c | upper }}</p>',
    "<h2>T</h2><pre><code>x  y\n</code></pre>", "<blockquote>q</blockquote>", '<p><a href="http://x?a=1&amp;b">l</a></p>',
    "<p>1. x</p><p># y</p>", "<script>1</script>", "<table><tr><td>a</td></tr></table>",
    '{"a": 1}', "[1,2]", "null", "0",
)  # fmt: skip
NUMBERS = (0, 1, -1, 1.0, 2.5, 1e20, 10**25, True, False, None)


def _value(random: Random, field: Field | None, depth: int = 0) -> Any:
    """Mostly what a field is declared to hold."""
    if field is not None and field.items and random.random() < 0.7:
        return [_inputs(random, field.items, depth + 1) for _ in range(random.randrange(3))]
    if depth > 3 or random.random() < 0.6:
        return random.choice(TEXTS)
    if random.random() < 0.5:
        return random.choice(NUMBERS)
    if random.random() < 0.5:
        return [_value(random, None, depth + 1) for _ in range(random.randrange(3))]
    names = random.sample(["a", "key", "type", "modelName", "apiKey", "credential"], random.randrange(3))
    return {name: _value(random, None, depth + 1) for name in names}


def _inputs(random: Random, fields: tuple[Field, ...], depth: int = 0) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    for field in fields:
        if random.random() < 0.6:
            name = random.choice([field.wire, *field.aliases])
            inputs[name] = _value(random, field, depth)
            if field.config:
                inputs[name + "Config"] = _value(random, None, depth)
    return inputs


def draw(random: Random) -> dict[str, Any]:
    nodes: list[dict[str, Any]] = []
    boxes: list[str] = []
    for number in range(random.randrange(1, 9)):
        kind = random.choice([*KINDS, None])
        spelled = kind.name if kind else "weird"
        node_id = random.choice([f"{spelled}Agentflow_{number}", f"a-b_{number}", f"x.{number}"])
        data = {
            "name": spelled + random.choice(["Agentflow", "Realtime", ""]),
            "label": random.choice(["", "Label", "A - b", node_id]),
            "version": random.choice([1, 1.0, 1.1, "3", None]),
            "inputs": _inputs(random, kind.fields) if kind else _value(random, None),
        }
        node: dict[str, Any] = {"id": node_id, "type": "agentFlow", "data": data}
        if boxes and random.random() < 0.3:
            node["parentNode"] = random.choice(boxes)
        if spelled == "iteration":
            boxes.append(node_id)
        nodes.append(node)
    ids = [node["id"] for node in nodes]
    edges = []
    for _ in range(random.randrange(10)):
        source = random.choice(ids)
        port = random.choice(["0", "1", "2", "true", "reject", "proceed", ""])
        edges.append({"source": source, "target": random.choice(ids), "sourceHandle": f"{source}-output-{port}"})
    return {"nodes": nodes, "edges": edges}


@pytest.mark.timeout(0)
def test_any_canvas_comes_back_the_same() -> None:
    for seed in range(int(os.environ.get("CANVASES", "150"))):
        random = Random(seed)
        canvas = draw(random)
        graph = compact.read_canvas(canvas)
        expanded = compact.expand(graph)
        assert compact.read_canvas(json.loads(json.dumps(expanded))) == graph, seed
        assert compact.from_json(compact.to_json(graph)) == graph, seed
        assert compact.from_msgpack(compact.to_msgpack(graph)) == graph, seed
        random.shuffle(canvas["nodes"])
        random.shuffle(canvas["edges"])
        assert compact.content_hash(compact.read_canvas(canvas)) == graph.hash, seed
        compact.validate(canvas)
        compact.validate(graph)


def test_a_loop_with_two_edges_out_is_a_fault_and_aims_the_same_in_any_order() -> None:
    loop = {"id": "l", "data": {"name": "loopAgentflow", "inputs": {"maxLoopCount": 2}}}
    nodes = [*({"id": name, "data": {"name": "directReplyAgentflow"}} for name in "ab"), loop]
    edges = [{"source": "l", "target": "b"}, {"source": "l", "target": "a"}]
    told = [one for one in compact.validate({"nodes": nodes, "edges": edges}) if "More than one edge" in one.detail]
    assert [(one.severity, one.pointer) for one in told] == [("error", "/edges/0")]
    hashes = {
        compact.content_hash(compact.read_canvas({"nodes": nodes, "edges": order})) for order in (edges, edges[::-1])
    }
    assert len(hashes) == 1


def test_an_unknown_kind_with_realtime_in_its_name_makes_no_call_of_a_text_flow() -> None:
    nodes = [{"id": "w", "type": "agentFlow", "data": {"name": "weirdRealtime", "type": "Weird"}}]
    graph = compact.read_canvas({"nodes": nodes, "edges": []})
    assert (graph.kind, compact.read_canvas(compact.expand(graph))) == ("text", graph)
