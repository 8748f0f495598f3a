"""What differs between two graphs, and the picture of one."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchroom import compact
from switchroom.compact.diff import to_text
from switchroom.compact.layout import absolute, layout

ROOT = Path(__file__).parents[2]
PATHS = [*sorted((Path(__file__).parent / "canvases").glob("*.json")), ROOT / "examples" / "support-line.json"]
EXAMPLE = PATHS[-1]


def load(path: Path) -> dict[str, Any]:
    canvas: dict[str, Any] = json.loads(path.read_bytes())
    return canvas


def changed(edit: Any) -> str:
    canvas = load(EXAMPLE)
    old = compact.read_canvas(canvas)
    edit(canvas)
    return to_text(compact.compare(old, compact.read_canvas(canvas)))


def of_type(canvas: dict[str, Any], name: str) -> dict[str, Any]:
    return next(node for node in canvas["nodes"] if node["data"]["type"] == name)


def test_a_prompt_shows_the_lines_that_differ() -> None:
    def edit(canvas: dict[str, Any]) -> None:
        inputs = of_type(canvas, "Agent")["data"]["inputs"]
        inputs["agentGreeting"] = "<p>Hello.</p><p>How can I help?</p>"

    lines = changed(edit).splitlines()
    assert lines[0].startswith("~ node ") and "(Agent" in lines[0]
    assert lines[1] == "    greeting:"
    assert "      +Hello." in lines and "      +How can I help?" in lines
    assert any(line.startswith("      -") for line in lines)


def test_values_nodes_edges_and_the_kind() -> None:
    def edit(canvas: dict[str, Any]) -> None:
        of_type(canvas, "Loop")["data"]["inputs"]["maxLoopCount"] = 3
        gone = canvas["edges"].pop()
        canvas["nodes"].append({"id": "bye", "data": {"name": "directReplyRealtime", "label": "Bye", "inputs": {}}})
        canvas["edges"].append({**gone, "target": "bye"})

    text = changed(edit)
    assert "    max: 20 -> 3\n" in text
    assert "+ node bye (Direct Reply: Bye)\n" in text
    assert text.count("- edge ") == 1 and " -> bye\n" in text
    old = compact.read_canvas(load(PATHS[0]))
    new = compact.read_canvas(load(PATHS[0]), kind="realtime")
    assert to_text(compact.compare(old, new)) == "~ kind: text -> realtime\n"


VALUES = st.sampled_from([None, 0, 1, True, 1.5, "", "x", "two\nlines", [], ["x"], {"a": 1}, {"a": True}])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_nothing_differs_if_and_only_if_the_hash_is_the_same(data: st.DataObject) -> None:
    canvas = load(EXAMPLE)
    old = compact.read_canvas(canvas)
    for _ in range(data.draw(st.integers(0, 3))):
        inputs = data.draw(st.sampled_from(canvas["nodes"]))["data"]["inputs"]
        inputs[data.draw(st.sampled_from([*inputs, "another"]))] = copy.deepcopy(data.draw(VALUES))
    new = compact.read_canvas(canvas)
    changes = compact.compare(old, new)
    assert (changes == []) == (old.hash == new.hash)
    assert len(to_text(changes).splitlines()) >= len(changes)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_picture_has_every_node_and_edge_and_no_two_boxes_on_one_another(path: Path) -> None:
    graph = compact.read_canvas(load(path))
    root = ElementTree.fromstring(compact.to_svg(graph))
    spots = absolute(graph, layout(graph))
    assert len(list(root.iter("{http://www.w3.org/2000/svg}g"))) == len(graph.nodes) == len(spots)
    drawn = [line for line in root.iter("{http://www.w3.org/2000/svg}path") if line.get("marker-end") == "url(#on)"]
    assert len(drawn) == len(graph.edges)
    for one in graph.nodes:
        for other in graph.nodes:
            if one.id < other.id and one.parent == other.parent:
                a, b = spots[one.id], spots[other.id]
                apart = a.x + a.width <= b.x or b.x + b.width <= a.x or a.y + a.height <= b.y or b.y + b.height <= a.y
                assert apart, (one.id, other.id)
        if one.parent is not None:
            inner, outer = spots[one.id], spots[one.parent]
            assert outer.x < inner.x and inner.x + inner.width < outer.x + outer.width
            assert outer.y < inner.y and inner.y + inner.height < outer.y + outer.height


def test_the_picture_of_odd_graphs() -> None:
    label = 'a"<b>&\x00\ud7ff' + "long " * 20
    nodes = [
        {"id": "i", "parentNode": "i", "data": {"name": "iterationAgentflow"}},
        {"id": "z<", "data": {"name": "zebra", "label": label}},
        {"id": "y", "data": {"name": "zebra"}},
    ]
    edges = [{"source": "y", "target": "z<", "sourceHandle": "y-output-<o>"}, {"source": "z<", "target": "y"}]
    graph = compact.read_canvas({"nodes": nodes, "edges": edges})
    assert "&lt;b&gt;" in compact.to_svg(graph)
    ElementTree.fromstring(compact.to_svg(graph))
    ElementTree.fromstring(compact.to_svg(compact.read_canvas({"nodes": []})))
