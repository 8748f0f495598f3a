"""The example canvas, in several conversations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from switchroom.compact import validate
from switchroom.engine import Session
from switchroom.engine.events import Token

CANVAS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "examples" / "support-line.json").read_bytes())
FORM = {"ID": "+38641656457", "ticket": "T-1042"}


@pytest.fixture
def call(talk: Callable[..., Any]) -> Any:
    return talk(CANVAS, form=dict(FORM), state={"crm": {"tier": "gold"}})


def test_the_example_is_without_fault() -> None:
    assert validate(CANVAS) == []


async def test_it_greets_with_the_ticket_and_waits(call: Any) -> None:
    ended = await call.say()
    assert ended.outcome == "await_input"
    assert "T-1042" in ended.text
    assert call.session.position == "agentRealtime_0"
    assert call.session.state == {"topic": "", "order": "", "crm": {"tier": "gold"}}


@pytest.mark.parametrize(
    "said",
    ["I want to talk to an operator, please.", "Can I speak to an operate her?", "Operator!", "a real person please"],
)
async def test_an_operator_ends_the_call_with_a_hand_over(call: Any, said: str) -> None:
    await call.say()
    ended = await call.say(said)
    assert (ended.outcome, ended.text) == ("finished", "I am connecting you with an operator. One moment, please.")
    assert call.session.state["topic"] == "OPERATOR"


async def test_an_invoice_then_an_order_number_then_goodbye(call: Any) -> None:
    await call.say()
    ended = await call.say("I have a question about my in voice.")
    assert (ended.outcome, "order number" in ended.text) == ("await_input", True)
    ended = await call.say("It's four one seven, double two.")
    assert "4 1 7 2 2" in ended.text
    assert call.session.state["order"] == "41722"
    ended = await call.say("No, that's all. Bye.")
    assert (ended.outcome, ended.text) == ("finished", "Thank you for calling. Goodbye.")
    assert [message.role for message in call.session.messages] == ["agent"] + ["caller", "agent"] * 3


async def test_it_asks_for_the_number_it_was_not_given(call: Any) -> None:
    await call.say()
    ended = await call.say("I would like to give you my order number")
    assert ended.text.startswith("Please tell me your order number")
    ended = await call.say("8 8 oh 5")
    assert "8 8 0 5" in ended.text


async def test_what_it_does_not_understand(call: Any) -> None:
    await call.say()
    ended = await call.say("The weather is lovely")
    assert (ended.outcome, ended.text.startswith("I am sorry, I did not understand")) == ("await_input", True)


async def test_a_negation_is_no_wish(call: Any) -> None:
    await call.say()
    ended = await call.say("No operator. My order number is 4 1 7.")
    assert "4 1 7" in ended.text


async def test_the_form_question_is_the_first_utterance(talk: Callable[..., Any]) -> None:
    call = talk(CANVAS, form=FORM | {"question": "Connect me with an operator"})
    ended = await call.say()
    assert ended.outcome == "finished"
    assert call.session.messages[0].text == "Connect me with an operator"


async def test_it_talks_no_longer_than_its_limit(call: Any) -> None:
    await call.say()
    for _ in range(20):
        assert (await call.say("blah")).outcome == "await_input"
    ended = await call.say("blah")
    assert ended.outcome == "finished"
    assert ended.text.endswith("A colleague will call you back. Goodbye.")


async def test_another_process_can_go_on(call: Any, talk: Callable[..., Any]) -> None:
    await call.say()
    await call.say("my order number is 55512")
    moved = talk(CANVAS)
    moved.session = msgspec.msgpack.decode(msgspec.msgpack.encode(call.session), type=Session)
    ended = await moved.say("operator")
    assert (ended.outcome, moved.session.state["order"]) == ("finished", "55512")


async def test_an_answer_comes_clause_by_clause(call: Any) -> None:
    await call.say()
    await call.say("my bill is wrong")
    tokens = [event.text for event in call.events if isinstance(event, Token)]
    assert len(tokens) >= 3
    assert tokens[0] == "I can look into your invoice. "
