"""Understanding what was said."""

from __future__ import annotations

import pytest

from switchroom.engine.match import best, digits_in, find_slot

INTENTS = [
    ["invoice", "I have a question about my invoice", "I was charged twice"],
    ["operator", "I want to talk to an operator", "speak to a human"],
    ["goodbye", "that is all", "nothing else"],
]


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("Hi, I've got a question on my invoices.", 0),
        ("They have charged me twice!", 0),
        ("my invoce", 0),
        ("OPERATOR", 1),
        ("could you put me through to the operater, please", 1),
        ("I'd rather speak with a human being", 1),
        ("Good bye", 2),
        ("no, that's all", 2),
        ("the weather is nice", None),
        ("", None),
        ("...", None),
        ("I don't want an operator", None),
    ],
)
def test_best(said: str, wanted: int | None) -> None:
    found = best(said, INTENTS)
    assert (found.candidate if found else None) == wanted


@pytest.mark.parametrize(
    ("said", "runs"),
    [
        ("four one seven", ["417"]),
        ("4-1-7", ["417"]),
        ("417", ["417"]),
        ("four one, seven.", ["417"]),
        ("double five oh nine", ["5509"]),
        ("triple 7", ["777"]),
        ("twenty one and thirty", ["2130"]),
        ("nineteen forty two", ["1942"]),
        ("number is for one seven", ["417"]),
        ("one too three", ["123"]),
        ("this is for my friend", []),
        ("I want to go", []),
        ("oh well", []),
        ("order 12 from May 3", ["12", "3"]),
        ("my order is 4172, 3 of them", ["4172", "3"]),
        ("it is four one seven two. 300 pieces", ["4172", "300"]),
    ],
)
def test_digits(said: str, runs: list[str]) -> None:
    assert digits_in(said) == runs


def test_slots() -> None:
    assert find_slot("digits", "it is 12 or maybe 41722", least=3) == "41722"
    assert find_slot("digits", "no number here") is None
    assert find_slot("name", "My name is Ana Novak.") == "Ana Novak"
    assert find_slot("name", "Hello, my name is Ana Novak and I call about") == "Ana Novak"
    assert find_slot("date", "on the 3rd of May") == "3 May"
    assert find_slot("date", "by 2026-5-9") == "2026-05-09"
    assert find_slot("date", "Tomorrow, please") == "tomorrow"
    assert find_slot("text", "  ") is None


def test_a_pasted_page_costs_no_more_than_an_utterance() -> None:
    page = "and so on " * 20_000
    found = best("an operator, please: " + page, INTENTS)
    assert found is not None and found.candidate == 1
    assert best(page + "an operator", INTENTS) is None  # what stands that far behind is not looked at
