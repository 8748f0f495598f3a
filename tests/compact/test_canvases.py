"""Real canvases: what is kept, what is left out, and that the way there and back loses nothing."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from switchroom import compact
from switchroom.compact.palette import REALTIME
from switchroom.errors import BadInput

CANVASES = sorted((Path(__file__).parent / "canvases").glob("*.json"))
EXAMPLE = Path(__file__).parents[2] / "examples" / "support-line.json"
ALL = [*CANVASES, EXAMPLE]


def load(path: Path) -> dict[str, Any]:
    canvas: dict[str, Any] = json.loads(path.read_bytes())
    return canvas


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_expanding_gives_the_same_graph_back(path: Path) -> None:
    graph = compact.compact_canvas(load(path))
    assert compact.read_canvas(compact.expand(graph)) == graph
    assert compact.from_json(compact.to_json(graph)) == graph
    assert compact.from_msgpack(compact.to_msgpack(graph)) == graph


@settings(max_examples=3, deadline=None)
@given(random=st.randoms(use_true_random=False))
@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_the_hash_is_of_what_runs_only(path: Path, random: Random) -> None:
    canvas = load(path)
    known = compact.content_hash(compact.read_canvas(canvas))
    for node in canvas["nodes"]:
        node["data"]["inputParams"] = []
    moved = _reordered(canvas, random)
    for index, edge in enumerate(moved["edges"]):
        edge["id"] = f"renamed-{index}"
    for node in moved["nodes"]:
        node["position"] = {"x": random.random(), "y": random.randrange(-9, 9)}
        node["selected"] = random.random() < 0.5
        node["data"] |= {"color": "#000000", "description": "another", "outputAnchors": []}
    moved["viewport"] = {"x": 1, "zoom": 2}
    graph = compact.read_canvas(moved)
    assert graph.hash == known
    assert (
        compact.from_json(compact.to_json(graph)).hash == compact.from_msgpack(compact.to_msgpack(graph)).hash == known
    )
    moved["edges"].pop()
    assert compact.content_hash(compact.read_canvas(moved)) != known


def _reordered(value: Any, random: Random) -> Any:
    """The same canvas: nodes and edges in another order, and the members of every object."""
    if isinstance(value, dict):
        keys = random.sample(list(value), len(value))
        copied = {key: _reordered(value[key], random) for key in keys}
        for key in {"nodes", "edges"} & copied.keys():
            random.shuffle(copied[key])
        return copied
    return [_reordered(item, random) for item in value] if isinstance(value, list) else value


def test_a_number_is_one_number_however_it_is_written() -> None:
    def graph(version: object, window: object) -> compact.CompactGraph:
        data = {"name": "agentAgentflow", "version": version, "inputs": {"agentMemoryWindowSize": window}}
        return compact.read_canvas({"nodes": [{"id": "a", "data": data}]})

    assert graph(2, 7).hash == graph(2.0, 7.0).hash == compact.from_json(compact.to_json(graph(2, 7))).hash
    assert graph(2, 7).hash != graph(2, True).hash


def test_a_changed_prompt_changes_the_hash() -> None:
    canvas = load(EXAMPLE)
    known = compact.content_hash(compact.read_canvas(canvas))
    agent = next(node for node in canvas["nodes"] if node["data"]["type"] == "Agent")
    agent["data"]["inputs"]["agentGreeting"] += "<p>One more thing.</p>"
    assert compact.content_hash(compact.read_canvas(canvas)) != known


def test_the_corpus_is_as_small_as_promised() -> None:
    shares, shipped, ours = [], 0, 0
    for path in CANVASES:
        canvas = load(path)
        minified = json.dumps(
            {"nodes": canvas["nodes"], "edges": canvas["edges"]}, separators=(",", ":"), ensure_ascii=False
        )
        size = len(compact.to_json(compact.read_canvas(canvas)))
        shares.append(size / len(minified.encode()))
        shipped += path.stat().st_size
        ours += size
    assert ours / shipped <= 0.08
    assert statistics.median(shares) <= 0.08


def test_nothing_that_a_run_needs_is_lost() -> None:
    """Every long text, model, tool and code of the canvases is in the compact graph, word for word."""
    for path in CANVASES:
        canvas = load(path)
        graph = compact.read_canvas(canvas)
        held = json.dumps(json.loads(compact.to_json(graph)), ensure_ascii=False)
        for node in canvas["nodes"]:
            if node["type"] == "stickyNote":
                continue
            inputs = node["data"]["inputs"]
            for key, value in inputs.items():
                if key.endswith(("Model", "SelectedTool")):
                    assert json.dumps(value) in held, (path.name, key)
                if key.endswith("ModelConfig"):
                    assert json.dumps(value["modelName"]) in held
            for tool in inputs.get("agentTools") or []:
                assert json.dumps(tool["agentSelectedTool"]) in held
            for field in inputs.get("llmStructuredOutput") or []:
                assert json.dumps(field["description"]) in held
            code = inputs.get("customFunctionJavascriptFunction")
            if code:
                assert graph.by_id[node["id"]].inputs["code"] == code


def test_loops_iterations_start_and_prompts() -> None:
    graph = compact.read_canvas(load(CANVASES[0].with_name("agentic-rag.json")))
    loop = next(node for node in graph.nodes if node.kind == "loop")
    assert (loop.inputs["to"], loop.inputs["max"]) == ("retrieverAgentflow_0", 5)
    assert graph.starts[0].inputs["state"] == [{"key": "query"}]
    asker = graph.by_id["llmAgentflow_2"].inputs["input"]
    assert asker == (
        "Given the question: {{question}}\nAnd the findings: {{retrieverAgentflow_0}}\nOutput the final response"
    )
    assert not any(node.kind == "stickyNote" for node in graph.nodes)
    iterations = compact.read_canvas(load(CANVASES[0].with_name("iterations.json")))
    assert {node.parent for node in iterations.nodes if node.kind == "llm"} == {"iterationAgentflow_0"}


def test_the_example_is_realtime_and_others_are_text() -> None:
    assert compact.read_canvas(load(EXAMPLE)).kind == "realtime"
    assert {compact.read_canvas(load(path)).kind for path in CANVASES} == {"text"}
    assert compact.read_canvas(load(CANVASES[0]), kind="realtime").kind == "realtime"


def test_a_default_that_was_decoded_is_left_out_too() -> None:
    """What a default is, is found by identity: a kind or label out of another JSON text must not change the hash."""
    canvas = load(CANVASES[1])
    known = compact.content_hash(compact.read_canvas(canvas))
    assert compact.content_hash(compact.read_canvas(canvas, kind=json.loads('"text"'))) == known
    canvas["nodes"][0]["data"]["label"] = json.loads('""')
    unnamed = json.loads(compact.to_json(compact.read_canvas(canvas)))
    assert "l" not in next(node for node in unnamed["n"] if node["i"] == canvas["nodes"][0]["id"])


def test_wrapped_canvases() -> None:
    canvas = load(CANVASES[1])
    graph = compact.read_canvas(canvas)
    assert compact.read_canvas({"flowData": canvas}) == graph
    assert compact.read_canvas({"flowData": json.dumps(canvas)}) == graph
    assert compact.read_canvas({"flowData": json.dumps(canvas), "type": "REALTIME"}).kind == "realtime"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ([], ""),
        (None, ""),
        ("nonsense", ""),
        ({}, "/nodes"),
        ({"nodes": {}}, "/nodes"),
        ({"nodes": [], "edges": 3}, "/edges"),
        ({"flowData": "{"}, "/flowData"),
        ({"flowData": {"nodes": None}}, "/flowData/nodes"),
    ],
)
def test_no_canvas_at_all(body: object, pointer: str) -> None:
    with pytest.raises(BadInput) as caught:
        compact.compact_canvas(body)
    assert [fault.pointer for fault in caught.value.faults] == [pointer]


def test_a_credential_never_comes_along() -> None:
    secret = "sk-" + "a1B2" * 8
    node = {
        "id": "httpAgentflow_0",
        "data": {
            "name": "httpAgentflow",
            "inputs": {
                "credential": "11111111-aaaa",
                "url": "https://user:hunter2@api.example.com/x",
                "headers": [
                    {"key": "Authorization", "value": "Bearer hunter2"},
                    {"key": "X-Api-Key", "value": "{{ $vars.KEY }}"},
                    {"key": "Accept", "value": "text/plain"},
                ],
                "body": f"my key is {secret}",
            },
        },
    }
    agent = {
        "id": "agentAgentflow_0",
        "data": {
            "name": "agentAgentflow",
            "inputs": {
                "agentModel": "chatOpenAI",
                "agentModelConfig": {"FLOWISE_CREDENTIAL_ID": "22222222", "openAIApiKey": "hunter2", "maxTokens": 7},
                "agentTools": [
                    {
                        "agentSelectedTool": "gmail",
                        "agentSelectedToolConfig": {"credential": "333", "password": "hunter2"},
                    }
                ],
            },
        },
    }
    unknown = {"id": "x", "data": {"name": "thirdPartyNode", "inputs": {"deep": {"apiKey": "hunter2", "size": 3}}}}
    graph = compact.read_canvas({"nodes": [node, agent, unknown], "edges": []})
    text = compact.to_json(graph).decode()
    for gone in ("hunter2", secret, "11111111", "22222222", "333"):
        assert gone not in text
    assert graph.by_id["agentAgentflow_0"].inputs["modelConfig"] == {"maxTokens": 7}
    assert graph.by_id["x"].inputs == {"deep": {"size": 3}}
    assert "{{$vars.KEY}}" in text
    assert "https://api.example.com/x" in text


@pytest.mark.parametrize(
    ("name", "type_", "kind"),
    [
        ("agentRealtime", "", "agent"),
        ("realtimeAgent", "", "agent"),
        ("conditionAgentRealtime", "ConditionAgent", "conditionAgent"),
        ("agentAgentflow", "Agent", "agent"),
        ("conditionAgentAgentflow", "", "conditionAgent"),
        ("startRealtimeAgentflow", "", "start"),
        ("", "Direct Reply", "directReply"),
        ("somethingElse", "ExecuteFlow", "executeFlow"),
        ("loadRealtimeAgentAgentflow", "", "loadRealtimeAgent"),
    ],
)
def test_spellings_of_kinds(name: str, type_: str, kind: str) -> None:
    graph = compact.read_canvas({"nodes": [{"id": "a", "data": {"name": name, "type": type_}}]})
    assert graph.nodes[0].kind == kind


def test_handles_of_a_condition() -> None:
    nodes = [
        {"id": name, "data": {"name": kind}} for name, kind in (("c", "conditionRealtime"), ("a", "agentRealtime"))
    ]
    for handle, label, port in (
        ("c-output-0", None, 0),
        ("c-output-1", None, 1),
        ("c-output-true", None, 0),
        ("c-output-False", None, 1),
        ("c-output-conditionRealtime", "false", 1),
        (None, "true", 0),
    ):
        edge = {"source": "c", "target": "a", "sourceHandle": handle, "data": {"edgeLabel": label}}
        assert compact.read_canvas({"nodes": nodes, "edges": [edge]}).edges == (("c", port, "a"),)


def test_handles_by_the_name_of_an_anchor_and_numbers_as_ids() -> None:
    anchors = [{"id": "c-yes"}, {"id": "c-otherwise"}]
    nodes = [{"id": 1, "data": {"name": "conditionAgentflow", "outputAnchors": anchors}}, {"id": "a", "data": {}}]
    edges = [{"source": 1, "target": "a", "sourceHandle": "c-otherwise"}]
    assert compact.read_canvas({"nodes": nodes, "edges": edges}).edges == (("1", 1, "a"),)
    assert compact.read_canvas({"nodes": nodes, "edges": None}).edges == ()


def test_inputs_of_every_age_of_a_kind() -> None:
    tool = {"selectedTool": "slackMCP", "selectedToolConfig": {"selectedTool": "slackMCP", "mcpActions": '["post"]'}}
    agent = {"agentStructuredOutput": [{"key": "name", "type": "string"}]}
    chooser = {"conditionAgentEnableMemory": True, "conditionAgentMemoryType": "windowSize"}
    given = {"toolAgentflow": tool, "agentAgentflow": agent, "conditionAgentAgentflow": chooser}
    graph = compact.read_canvas(
        {"nodes": [{"id": name, "data": {"name": name, "inputs": given[name]}} for name in given]}
    )
    assert graph.by_id["toolAgentflow"].inputs == {"tool": "slackMCP", "toolConfig": {"mcpActions": '["post"]'}}
    assert graph.by_id["agentAgentflow"].inputs == {"schema": [{"key": "name", "type": "string"}]}
    assert graph.by_id["conditionAgentAgentflow"].inputs == {"memory": True, "memoryType": "windowSize"}
    assert compact.read_canvas(compact.expand(graph)) == graph


def test_the_published_schema_fits_and_a_wrong_version_is_refused() -> None:
    schema = Draft202012Validator(compact.json_schema())
    for path in ALL:
        schema.validate(json.loads(compact.to_json(compact.read_canvas(load(path)))))
    for wrong in ({"v": 2}, {"v": 1, "n": [{"i": "a"}]}, {"v": 1, "e": [["a", 0]]}, {"v": 1, "k": "chat"}, []):
        assert not schema.is_valid(wrong), wrong
    with pytest.raises(BadInput):
        compact.from_json(b'{"v":99}')
    with pytest.raises(BadInput):
        compact.from_json(b"[]")


def test_mermaid_draws_every_node_and_the_loop() -> None:
    drawn = compact.to_mermaid(compact.read_canvas(load(EXAMPLE)))
    assert drawn.startswith("flowchart TD\n")
    assert drawn.count("-->") == 6
    assert "-.->|max 20|" in drawn
    assert '"Wants an operator?"' in drawn


def test_the_realtime_palette_has_its_eight_kinds() -> None:
    assert [kind.label for kind in REALTIME] == [
        "Start",
        "Agent",
        "Condition",
        "Condition Agent",
        "Iteration",
        "Loop",
        "Execute Flow",
        "Direct Reply",
    ]


def test_looser_spellings_of_values() -> None:
    inputs = {
        "agentEnableMemory": "true",
        "agentMemoryWindowSize": "12",
        "agentFallback": 7,
        "agentIntents": '[{"intent": "A", "examples": "one\\ntwo"}]',
    }
    graph = compact.read_canvas({"nodes": [{"id": "a", "data": {"name": "agentRealtime", "inputs": inputs}}]})
    assert graph.nodes[0].inputs == {
        "memory": True,
        "window": 12,
        "fallback": "7",
        "intents": [{"intent": "A", "examples": ["one", "two"]}],
    }
