"""What a kiosk assembles of a turn: always one JSON object, whatever the text and however it is cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchroom.engine.events import NodeFinished, Token, TurnFailed
from switchroom.gateway.kiosk_stream import KioskStream


def token(text: str) -> Token:
    return Token(node_id="a", text=text)


def done(output: Any) -> NodeFinished:
    return NodeFinished(
        node_id="a",
        label="a",
        node_kind="agent",
        at_ms=0,
        duration_ms=1,
        input=None,
        output=output,
        branch=None,
        state={},
    )


def assemble(*events: Any) -> Any:
    stream = KioskStream()
    return json.loads("".join([*(stream.feed(event) for event in events), stream.end()]))


@given(st.lists(st.text(max_size=8), max_size=12))
def test_any_text_in_any_pieces(pieces: list[str]) -> None:
    assert assemble(*map(token, pieces)) == {"text": "".join(pieces)}


@given(st.text('{"tex :a}', max_size=14), st.integers(1, 4))
def test_text_that_only_looks_like_the_object(text: str, size: int) -> None:
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    stream = KioskStream()
    whole = "".join([*(stream.feed(token(piece)) for piece in pieces), stream.end()])
    # Either it is the text, or it began as the object itself and was passed on untouched.
    assert whole == text or json.loads(whole) == {"text": text}


def test_tool_calls_and_errors_come_with_it() -> None:
    found = assemble(
        token("Look at "),
        done({"content": "x", "tool_calls": [{"name": "LoadFlowiseImageCommand", "args": {"id": "7"}}, {"no": 1}]}),
        token("this."),
        done({"tool_calls": [{"name": "SwitchCamera", "arguments": {"to": 2}}]}),
        TurnFailed(node_id="a", code="x", detail='it "broke"'),
    )
    assert found == {
        "text": "Look at this.",
        "tool_calls": [
            {"name": "LoadFlowiseImageCommand", "args": {"id": "7"}},
            {"name": "SwitchCamera", "args": {"to": 2}},
        ],
        "error": 'it "broke"',
    }


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_a_model_that_speaks_in_this_form_is_passed_on(size: int) -> None:
    text = ' {"text": "Hi", "tool_calls": [{"name": "TransferCallCommand", "args": {}}], "error": ""}'
    pieces = [token(text[start : start + size]) for start in range(0, len(text), size)]
    assert assemble(*pieces) == json.loads(text)


def test_words_are_not_held_back() -> None:
    stream = KioskStream()
    assert stream.feed(token("H")) == '{"text":"H'
    assert stream.feed(token('"i"\n')) == '\\"i\\"\\n'
