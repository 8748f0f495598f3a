"""The rules of a live call: who waits, where it goes on, when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from switchroom.compact import compact_canvas
from switchroom.engine import Bounds, Engine, FlowStore, Session
from switchroom.engine.events import Token, TurnEnded, TurnFailed, TurnInput
from switchroom.engine.responder import Answer, Ask, Choice, Understood

from .conftest import draw

Open = Callable[..., Any]
START = ("startRealtime", {})
AGENT = ("agentRealtime", {"agentGreeting": "Hello.", "agentFallback": "So you say {{ question }}."})


def loop(to: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return ("loopRealtime", {"loopBackToNode": f"{to}-{to}", "maxLoopCount": 10, **more})


def reply(text: str) -> tuple[str, dict[str, Any]]:
    return ("directReplyRealtime", {"directReplyMessage": text})


async def test_the_contracts_condition_routes(talk: Open) -> None:
    canvas = draw(
        {
            "s": START,
            "a": AGENT,
            "c": ("conditionRealtime", {"conditionExpression": '"${$question}" === "OPERATOR"'}),
            "r": reply("One moment."),
            "l": loop("a"),
        },
        [("s", "a"), ("a", "c"), ("c", "r", "true"), ("c", "l", "false")],
    )
    call = talk(canvas)
    assert (await call.say()).text == "Hello."
    ended = await call.say('"; while(true){}//')
    assert (ended.outcome, ended.text) == ("await_input", 'So you say "; while(true){}//.')
    ended = await call.say("Operator.")
    assert (ended.outcome, ended.text) == ("finished", "So you say Operator.. One moment.")


async def test_without_a_loop_each_utterance_starts_at_the_top(talk: Open) -> None:
    call = talk(draw({"s": START, "a": AGENT}, [("s", "a")]))
    assert (await call.say()).outcome == "await_input"
    for _ in range(2):
        ended = await call.say("hi there")
        assert (ended.outcome, ended.text) == ("await_input", "So you say hi there.")
        call.session.position = None
        assert call.trace[-1] == "a"


async def test_a_first_reply_says_its_text_and_goes_on_to_the_listener(talk: Open) -> None:
    canvas = draw(
        {
            "s": START,
            "w": reply("Welcome. Say sales or support."),
            "k": (
                "conditionAgentRealtime",
                {"conditionAgentScenarios": [{"scenario": "sales"}, {"scenario": "support"}]},
            ),
            "x": reply("This is sales."),
            "y": reply("This is support."),
        },
        [("s", "w"), ("w", "k"), ("k", "x", 0), ("k", "y", 1)],
    )
    call = talk(canvas)
    assert (await call.say()).text == "Welcome. Say sales or support."
    assert call.session.position == "k"
    assert (await call.say("I'd like sails, um, sales please")).text == "This is sales."
    call = talk(canvas)
    await call.say()
    assert (await call.say("support")).text == "This is support."


async def test_a_loop_to_a_reply_asks_at_once_and_then_listens(talk: Open) -> None:
    canvas = draw(
        {
            "s": START,
            "q": reply("What colour?"),
            "c": (
                "conditionRealtime",
                {"conditions": [{"value1": "{{ question }}", "operation": "contains", "value2": "blue"}]},
            ),
            "yes": reply("Blue it is."),
            "no": reply("Not that one."),
            "l": loop("q"),
        },
        [("s", "q"), ("q", "c"), ("c", "yes", 0), ("c", "no", 1), ("no", "l")],
    )
    call = talk(canvas)
    assert (await call.say()).text == "What colour?"
    ended = await call.say("red")
    assert (ended.outcome, ended.text) == ("await_input", "Not that one. What colour?")
    ended = await call.say("Light BLUE!")
    assert (ended.outcome, ended.text) == ("finished", "Blue it is.")


async def test_a_work_loop_runs_at_once_and_only_so_often(talk: Open) -> None:
    canvas = draw(
        {
            "s": ("startRealtime", {"startState": [{"key": "n", "value": "0"}]}),
            "f": (
                "customFunctionAgentflow",
                {
                    "customFunctionJavascriptFunction": "return Number($flow.state.n) + 1",
                    "customFunctionUpdateState": [{"key": "n", "value": "{{ output }}"}],
                },
            ),
            "c": ("conditionRealtime", {"conditionExpression": "Number($flow.state.n) >= 4"}),
            "r": reply("Counted to {{ $flow.state.n }}."),
            "l": loop("f", maxLoopCount=5),
        },
        [("s", "f"), ("f", "c"), ("c", "r", 0), ("c", "l", 1)],
    )
    call = talk(canvas)
    assert (await call.say("go")).text == "Counted to 4."
    canvas["nodes"][-1]["data"]["inputs"] |= {"maxLoopCount": 2, "fallbackMessage": "I give up."}
    assert (await talk(canvas).say("go")).text == "I give up."


async def test_branches_that_merge_run_the_end_once(talk: Open) -> None:
    canvas = draw(
        {"s": START, "x": reply("x"), "y": reply("y"), "z": reply("z")},
        [("s", "x"), ("s", "y"), ("x", "z"), ("y", "z")],
    )
    call = talk(canvas)
    assert (await call.say("go")).text == "x y z"
    assert call.trace == ["s", "x", "y", "z"]


async def test_a_branch_not_taken_does_not_hold_up_a_merge(talk: Open) -> None:
    canvas = draw(
        {
            "s": START,
            "c": ("conditionRealtime", {"conditionExpression": "false"}),
            "x": reply("x"),
            "x2": reply("x2"),
            "y": reply("y"),
            "z": reply("z"),
        },
        [("s", "c"), ("c", "x", 0), ("x", "x2"), ("c", "y", 1), ("x2", "z"), ("y", "z")],
    )
    call = talk(canvas)
    assert (await call.say("go")).text == "y z"


async def test_another_flow_in_the_same_call(talk: Open, flows: FlowStore) -> None:
    inner = draw(
        {
            "s": ("startRealtime", {"startState": [{"key": "asked", "value": "no"}]}),
            "q": reply("Inner asks {{ $form.ID }}."),
            "a": (
                "agentRealtime",
                {"agentFallback": "Heard {{ question }}.", "agentUpdateState": [{"key": "asked", "value": "yes"}]},
            ),
        },
        [("s", "q"), ("q", "a")],
    )
    await flows.save(inner, flow_id="inner")
    outer = draw(
        {
            "s": START,
            "e": ("executeFlowRealtime", {"executeFlowSelectedFlow": "inner"}),
            "r": reply("Back: {{ e }} {{ $flow.state.asked }}"),
        },
        [("s", "e"), ("e", "r")],
    )
    call = talk(outer, form={"ID": "7"})
    ended = await call.say()
    assert (ended.outcome, ended.text) == ("await_input", "Inner asks 7.")
    assert call.session.position == "e>a"
    ended = await call.say("blue")
    assert ended.text == "Heard blue. Back: Heard blue. yes"


async def test_a_flow_that_runs_itself_ends_in_an_error(talk: Open, flows: FlowStore) -> None:
    canvas = draw({"s": START, "e": ("executeFlowRealtime", {"executeFlowSelectedFlow": "me"})}, [("s", "e")])
    await flows.save(canvas, flow_id="me")
    ended = await talk(canvas).say("go")
    assert isinstance(ended, TurnFailed)
    assert ended.code == "nested_too_deep"


async def test_a_flow_that_is_not_there(talk: Open) -> None:
    canvas = draw({"s": START, "e": ("executeFlowRealtime", {"executeFlowSelectedFlow": "gone"})}, [("s", "e")])
    ended = await talk(canvas).say("go")
    assert isinstance(ended, TurnFailed)
    assert (ended.code, ended.node_id) == ("unknown_flow", "e")


async def test_an_iteration_runs_its_children_for_each_item(talk: Open) -> None:
    canvas = draw(
        {
            "s": START,
            "i": ("iterationRealtime", {"iterationInput": '[{"n": "a"}, {"n": "b"}]'}),
            "one": reply("Item {{ $iteration.n }}."),
            "two": reply("Again {{$iteration.n}}."),
            "r": reply("Done: {{ i.output.items }}"),
        },
        [("s", "i"), ("one", "two"), ("i", "r")],
        one="i",
        two="i",
    )
    ended = await talk(canvas).say("go")
    assert ended.text == ('Item a. Again a. Item b. Again b. Done: [{"content":"Again a."},{"content":"Again b."}]')
    canvas["nodes"][1]["data"]["inputs"]["iterationInput"] = "nonsense"
    assert (await talk(canvas).say("go")).code == "bad_items"


async def test_a_kind_that_cannot_run_says_so(talk: Open) -> None:
    canvas = draw({"s": START, "z": ("zebra", {})}, [("s", "z")])
    ended = await talk(canvas).say("go")
    assert isinstance(ended, TurnFailed)
    assert (ended.code, ended.node_id, "`z`" in ended.detail) == ("node_not_supported", "z", True)


async def test_state_merges_key_by_key(talk: Open) -> None:
    canvas = draw(
        {
            "s": (
                "startRealtime",
                {
                    "startState": [
                        {"key": "crm.tier", "value": "basic"},
                        {"key": "crm.lang", "value": "en"},
                        {"key": "x", "value": "1"},
                    ]
                },
            ),
            "r": reply("{{ $flow.state.crm.tier }} {{ $state.crm.lang }} {{ $flow.state.extra }}"),
        },
        [("s", "r")],
    )
    call = talk(canvas, state={"crm": {"tier": "gold"}, "extra": "kept"})
    assert (await call.say("go")).text == "gold en kept"


class Slow:
    """A responder that speaks one word and then takes its time."""

    name = "slow"

    def __init__(self) -> None:
        self.stopped = asyncio.Event()

    async def answer(self, ask: Ask) -> AsyncIterator[Understood | str | Answer]:
        yield "Well, "
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.stopped.set()
            raise
        yield Answer(output={"content": "never"})

    async def choose(self, choice: Choice) -> int:
        return 0


async def test_closing_cancels_at_once(flows: FlowStore) -> None:
    slow = Slow()
    engine = Engine(flows, responder=slow)
    graph = compact_canvas(draw({"s": START, "a": AGENT, "l": loop("a")}, [("s", "a"), ("a", "l")]))
    session = Session(session_id="s", started=True, position="a")
    started = time.monotonic()
    async with contextlib.aclosing(engine.run(graph, session, TurnInput(text="hi"))) as events:
        async for event in events:
            if isinstance(event, Token):
                break
    assert slow.stopped.is_set()
    assert time.monotonic() - started < 10
    assert session.position == "a"
    assert [message.text for message in session.messages] == ["hi"]


async def test_bounds(flows: FlowStore) -> None:
    async def run(canvas: dict[str, Any], bounds: Bounds, responder: Slow | None = None) -> str:
        engine = Engine(flows, bounds=bounds, responder=responder)
        async for event in engine.run(compact_canvas(canvas), Session(session_id="s"), TurnInput(text="go")):
            if isinstance(event, TurnFailed):
                return event.code
            if isinstance(event, TurnEnded):
                return "ended"
        return "nothing"

    chain = draw({"s": START, "a": reply("aaaa"), "b": reply("bbbb")}, [("s", "a"), ("a", "b")])
    assert await run(chain, Bounds()) == "ended"
    assert await run(chain, Bounds(steps=2)) == "too_many_steps"
    assert await run(chain, Bounds(output=6)) == "too_long"
    slow = draw({"s": START, "a": AGENT}, [("s", "a")])
    assert await run(slow, Bounds(deadline_s=0.05), Slow()) == "turn_timeout"


async def test_a_text_flow_says_only_its_end(talk: Open) -> None:
    canvas = draw(
        {
            "s": ("startAgentflow", {}),
            "a": ("llmAgentflow", {"llmMessages": [{"role": "system", "content": 'Say "first things first".'}]}),
            "b": ("agentAgentflow", {"agentUserMessage": "{{ a }}!"}),
        },
        [("s", "a"), ("a", "b")],
    )
    call = talk(canvas)
    ended = await call.say("hello")
    assert (ended.outcome, ended.text) == ("finished", "I heard: first things first!")
    assert {event.node_id for event in call.events if isinstance(event, Token)} == {"b"}


@pytest.mark.parametrize(
    ("operation", "value2", "said", "branch"),
    [
        ("equal", "Yes", "yes.", 0),
        ("notEqual", "Yes", "yes.", 1),
        ("contains", "invoice", "My INVOICE, please", 0),
        ("notContains", "invoice", "hello", 0),
        ("startsWith", "good", "Good morning", 0),
        ("endsWith", "bye", "ok, bye!", 0),
        ("regex", "^inv(oice)?$", "INVOICE", 0),
        ("regex", "(a+)+$", "b", 1),
        ("notEmpty", "", "x", 0),
        ("isEmpty", "", "x", 1),
    ],
)
async def test_operations(talk: Open, operation: str, value2: str, said: str, branch: int) -> None:
    row = {"type": "string", "value1": "{{ question }}", "operation": operation, "value2": value2}
    canvas = draw(
        {"s": START, "c": ("conditionRealtime", {"conditions": [row]}), "x": reply("0"), "y": reply("1")},
        [("s", "c"), ("c", "x", 0), ("c", "y", 1)],
    )
    assert (await talk(canvas).say(said)).text == str(branch)


@pytest.mark.parametrize(
    ("operation", "number", "branch"),
    [
        ("smaller", 3, 1),
        ("smallerEqual", 3, 0),
        ("larger", 2, 0),
        ("largerEqual", 4, 1),
        ("equal", 3, 0),
        ("notEqual", 3, 1),
    ],
)
async def test_numbers(talk: Open, operation: str, number: int, branch: int) -> None:
    row = {"type": "number", "value1": "{{ $form.n }}", "operation": operation, "value2": number}
    canvas = draw(
        {"s": START, "c": ("conditionRealtime", {"conditions": [row]}), "x": reply("0"), "y": reply("1")},
        [("s", "c"), ("c", "x", 0), ("c", "y", 1)],
    )
    assert (await talk(canvas, form={"n": "3"}).say("go")).text == str(branch)


async def test_an_agent_that_has_no_answer_is_not_asked_again_with_the_same_words(talk: Open) -> None:
    silent = ("agentRealtime", {"agentIntents": [{"intent": "QUIET", "examples": ["hush"]}]})
    call = talk(draw({"s": START, "a": silent, "l": loop("a")}, [("s", "a"), ("a", "l")]))
    assert (await call.say()).text == "Hello, how can I help you?"
    ended = await call.say("hush")
    assert (ended.outcome, ended.text, call.trace.count("l")) == ("await_input", "", 1)


async def test_an_empty_utterance_does_not_greet_again(talk: Open) -> None:
    call = talk(draw({"s": START, "a": AGENT, "l": loop("a")}, [("s", "a"), ("a", "l")]))
    await call.say()
    ended = await call.say("  ")
    assert (ended.outcome, ended.text) == ("await_input", "")
    assert (await call.say("hi")).text == "So you say hi."
