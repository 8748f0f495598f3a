"""What the flow noted of the caller's words is read back, where its own answer does not do so: digits one by one,
names and addresses as they were understood."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from switchroom.compact.templates import spell

_DIGITS = re.compile(r"\d{3,32}")
_NAMED = re.compile(r"name|address|street|city|town|mail", re.IGNORECASE)
_MOST_WORDS = 12


def noted(output: Any, state: Mapping[str, Any]) -> dict[str, str]:
    """Of a node's output the details (`slots`) that its flow keeps in its state: a field depends on them."""
    slots = output.get("slots") if isinstance(output, dict) else None
    if not isinstance(slots, dict):
        return {}
    kept = set(_leaves(state))
    return {str(name): str(value) for name, value in slots.items() if value and str(value) in kept}


def read_back(details: Mapping[str, str], said: str) -> str:
    """The details as words to say; "" where all were said, or none is of a kind that is easily misheard."""
    plain = _plain(said)
    parts: list[str] = []
    for name, value in details.items():
        if _DIGITS.fullmatch(value.replace(" ", "")):
            words = spell(value)
        elif _NAMED.search(name) and len(value.split()) <= _MOST_WORDS:
            words = value
        else:
            continue
        if _plain(value) not in plain:
            parts.append(words)
    return ", and ".join(parts)


def _plain(text: str) -> str:
    return re.sub(r"\W+", "", text.casefold())


def _leaves(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [leaf for one in value.values() for leaf in _leaves(one)]
    if isinstance(value, list):
        return [leaf for one in value for leaf in _leaves(one)]
    return [str(value)]
