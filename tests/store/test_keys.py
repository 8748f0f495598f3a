"""Every key of a flow is in the flow's slot: so a script may touch all of them in a cluster."""

from __future__ import annotations

import inspect

import pytest

from switchroom.store import keys
from switchroom.store.nodes import key_of, slot_of

OF_A_FLOW = [
    function
    for _, function in inspect.getmembers(keys, inspect.isfunction)
    if next(iter(inspect.signature(function).parameters), "") == "flow_id"
]


@pytest.mark.parametrize("function", OF_A_FLOW, ids=lambda function: function.__name__)
def test_a_flows_keys_share_its_slot(function: object) -> None:
    others = list(inspect.signature(function).parameters)[1:]  # type: ignore[arg-type]
    key = function("line", *(f"other-{name}" for name in others))  # type: ignore[operator]
    assert slot_of(key) == slot_of(keys.flow("line"))


def test_there_are_such_keys() -> None:
    assert len(OF_A_FLOW) >= 8


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("GET", "a"), "a"),
        (("EVALSHA", "0" * 40, 2, "a", "b", "x"), "a"),
        (("EVAL", "return 1", 0), None),
        (("XREAD", "COUNT", 1, "BLOCK", 5, "STREAMS", "a", "0-0"), "a"),
        (("XREAD", "STREAMS", "a", "0-0"), "a"),
        (("BZPOPMIN", "a", 5), "a"),
        (("XINFO", "STREAM", "a"), "a"),
        (("MEMORY", "USAGE", "a"), "a"),
        (("PING",), None),
        (("INFO", "memory"), None),
        (("SCRIPT", "FLUSH"), None),
    ],
)
def test_the_key_of_a_command(command: tuple[object, ...], key: str | None) -> None:
    assert key_of(command) == key
