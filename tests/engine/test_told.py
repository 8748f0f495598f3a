"""What a trace tells of each step, and what templates read of the run itself."""

from __future__ import annotations

from typing import Any

import pytest

from switchroom.compact import compact_canvas, validate
from switchroom.engine import Engine, FlowStore, Session
from switchroom.engine.events import NodeFinished, TurnEnded, TurnInput

from .conftest import draw


def function(code: str, **given: str) -> tuple[str, dict[str, Any]]:
    rows = [{"variableName": name, "variableValue": value} for name, value in given.items()]
    inputs = {"customFunctionJavascriptFunction": code, "customFunctionInputVariables": rows}
    return "customFunctionAgentflow", inputs


START: tuple[str, dict[str, Any]] = ("startAgentflow", {})


async def run(flows: FlowStore, canvas: dict[str, Any], text: str = "go") -> tuple[list[NodeFinished], TurnEnded]:
    running = Engine(flows).run(
        compact_canvas(canvas), Session(session_id="s"), TurnInput(text=text, kind="start"), flow_id="f-1"
    )
    events = [event async for event in running]
    assert isinstance(events[-1], TurnEnded), events[-1]
    return [event for event in events if isinstance(event, NodeFinished)], events[-1]


async def test_each_step_names_the_steps_that_led_to_it(flows: FlowStore) -> None:
    yes = {"conditions": [{"type": "number", "value1": "{{loop_count}}", "operation": "smaller", "value2": "1"}]}
    canvas = draw(
        {
            "start": START,
            "one": function("return 1"),
            "two": function("return 2"),
            "both": function("return 3"),
            "again": ("conditionAgentflow", yes),
            "back": ("loopAgentflow", {"loopBackToNode": "both-both", "maxLoopCount": 3}),
            "end": ("directReplyAgentflow", {"directReplyMessage": "{{loop_count}}"}),
        },
        [
            ("start", "one"),
            ("start", "two"),
            ("one", "both"),
            ("two", "both"),
            ("both", "again"),
            ("again", "back", 0),
            ("again", "end", 1),
        ],
    )
    told, ended = await run(flows, canvas)
    assert [(event.node_id, sorted(event.previous or [])) for event in told if event.node_id not in ("one", "two")] == [
        ("start", []),
        ("both", ["one", "two"]),
        ("again", ["both"]),
        ("back", ["again"]),
        ("both", ["back"]),
        ("again", ["both"]),
        ("end", ["again"]),
    ]
    assert {event.node_id: event.previous for event in told if event.node_id in ("one", "two")} == {
        "one": ["start"],
        "two": ["start"],
    }
    assert ended.text == "1"


async def test_a_loop_that_is_spent_has_counted_to_its_limit(flows: FlowStore) -> None:
    spent = {"loopBackToNode": "f-f", "maxLoopCount": "2", "fallbackMessage": "gave up after {{ loop_count }}"}
    canvas = draw(
        {"start": START, "f": function("return 1"), "l": ("loopAgentflow", spent)}, [("start", "f"), ("f", "l")]
    )
    _, ended = await run(flows, canvas)
    assert ended.text == "gave up after 2"


async def test_a_step_inside_names_what_holds_it(flows: FlowStore) -> None:
    await flows.save(draw({"start": START, "in": function("return 1")}, [("start", "in")]), flow_id="other")
    canvas = draw(
        {
            "start": START,
            "each": ("iterationAgentflow", {"iterationInput": "['x', {name: 'y'}]"}),
            "child": function("return $n", n="{{$iteration.name}}"),
            "then": function("return $n", n="{{child}}"),
            "flow": ("executeFlowAgentflow", {"executeFlowSelectedFlow": "other"}),
        },
        [("start", "each"), ("child", "then"), ("each", "flow")],
        child="each",
        then="each",
    )
    told, _ = await run(flows, canvas)
    # Of an item that is a text every member is the text, as in Flowise.
    assert [event.output["content"] for event in told if event.node_id == "then"] == ["x", "y"]
    assert [(event.node_id, event.previous, event.inside, event.item) for event in told] == [
        ("start", [], None, None),
        ("child", [], "each", 0),
        ("then", ["child"], "each", 0),
        ("child", [], "each", 1),
        ("then", ["child"], "each", 1),
        ("each", ["start"], None, None),
        ("start", [], "flow", None),
        ("in", ["start"], "flow", None),
        ("flow", ["each"], None, None),
    ]


async def test_templates_of_the_run(flows: FlowStore) -> None:
    names = {
        "flow": "{{ $flow.chatflowId }}",
        "session": "{{ $flow.sessionId }}",
        "chat": "{{ $flow.chatId }}",
        "input": "{{ $flow.input }}",
        "files": "{{ file_attachment }}",
        "loops": "{{ loop_count }}",
        "talked": "{{ $flow.runtimeChatHistoryLength }}",
    }
    body = "return {" + ", ".join(f"{name}: ${name}" for name in names) + "}"
    canvas = draw({"start": START, "all": function(body, **names)}, [("start", "all")])
    assert validate(canvas) == []
    question = '<doc name="a.txt">one &lt; two</doc>\n<doc name="b.txt">three</doc>\nWhich?'
    told, _ = await run(flows, canvas, question)
    output = {name: told[-1].output[name] for name in names}
    assert output == {
        "flow": "f-1",
        "session": "s",
        "chat": "s",
        "input": question,
        "files": '<doc name="a.txt">one &lt; two</doc>\n<doc name="b.txt">three</doc>',
        "loops": 0,
        "talked": 0,
    }


async def test_what_a_flow_is_run_with(flows: FlowStore) -> None:
    """Execute Flow's override config, as people write it; and what its answer is to the nodes after it."""
    inner = draw(
        {
            "start": ("startAgentflow", {"startState": [{"key": "tier", "value": "none"}]}),
            "in": function("return $a + ' ' + $b", a="{{ $vars.shop }}", b="{{ $flow.state.tier }}"),
        },
        [("start", "in")],
    )
    await flows.save(inner, flow_id="other")
    config = "{vars: {shop: '{{ question }}'}, startState: [{key: 'tier', value: 'gold'}],}"
    canvas = draw(
        {
            "start": START,
            "flow": ("executeFlowAgentflow", {"executeFlowSelectedFlow": "other", "executeFlowOverrideConfig": config}),
            "all": function("return $n", n="{{ runtime_messages_length }} {{ flow }}"),
        },
        [("start", "flow"), ("flow", "all")],
    )
    told, _ = await run(flows, canvas, "Bled")
    assert told[-1].output["content"] == "2 Bled gold"
    with pytest.raises(AssertionError, match="no JSON object"):
        canvas["nodes"][1]["data"]["inputs"]["executeFlowOverrideConfig"] = "[1]"
        await run(flows, canvas)
