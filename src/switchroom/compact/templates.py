"""Templates: `{{ $form.x }}`, `{{ $flow.state.k }}`, `{{ question }}`, `{{ nodeId.output.path }}`, `{{ $vars.x }}`.

A value is put in as text and never read as a template again, so what a caller says stays what it is. A filter may
follow: `{{ $form.ticket | spell }}` sets letters and digits apart, so that they are spoken one by one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

__all__ = ["FILTERS", "MISSING", "Lookup", "Ref", "as_text", "parse", "render", "value_of", "walk"]

_SLOT = re.compile(r"\{\{\s*(.*?)\s*\}\}", re.S)
_SEGMENT = re.compile(r"\.?([^.\[\]\s|{}]+)|\[\s*(?:(\d+)|\"([^\"]*)\"|'([^']*)')\s*\]")


class _Missing:
    def __bool__(self) -> bool:
        return False


MISSING = _Missing()
"""What a lookup gives for a path that names nothing."""

Lookup = Callable[[tuple[str, ...]], Any]


class Ref(NamedTuple):
    """One `{{ … }}`: its path by segments (empty if it is not a path), its filters, and its text."""

    path: tuple[str, ...]
    filters: tuple[str, ...]
    text: str


def spell(text: str) -> str:
    """Letters and digits one by one: `T-42` → `T 4 2`."""
    return " ".join(char for char in text if char.isalnum())


FILTERS: dict[str, Callable[[str], str]] = {"spell": spell, "upper": str.upper, "lower": str.lower, "trim": str.strip}


@lru_cache(maxsize=2048)
def parse(text: str) -> tuple[str | Ref, ...]:
    """A template as literal texts and references, in order."""
    parts: list[str | Ref] = []
    at = 0
    for found in _SLOT.finditer(text):
        if found.start() > at:
            parts.append(text[at : found.start()])
        inner, *filters = (piece.strip() for piece in found[1].split("|"))
        parts.append(Ref(_path(inner), tuple(filters), found[0]))
        at = found.end()
    if at < len(text):
        parts.append(text[at:])
    return tuple(parts)


def _path(text: str) -> tuple[str, ...]:
    segments: list[str] = []
    at = 0
    while at < len(text):
        found = _SEGMENT.match(text, at)
        if found is None:
            return ()
        segments.append(next(group for group in found.groups() if group is not None))
        at = found.end()
    return tuple(segments)


def walk(value: Any, path: tuple[str, ...]) -> Any:
    """Goes down objects by key (then by key without case) and arrays by index; MISSING where there is nothing."""
    for segment in path:
        if isinstance(value, dict):
            if segment not in value:
                folded = segment.casefold()
                segment = next((key for key in value if str(key).casefold() == folded), segment)
            value = value.get(segment, MISSING)
        elif isinstance(value, (list, tuple)) and segment.isdigit() and len(segment) < 9:
            value = value[int(segment)] if int(segment) < len(value) else MISSING
        else:
            return MISSING
    return value


def as_text(value: Any) -> str:
    """How a value reads inside of a text: nothing for null, JSON for objects and arrays."""
    if value is None or value is MISSING:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return msgspec.json.encode(value).decode()


def _resolved(ref: Ref, lookup: Lookup) -> Any:
    value = lookup(ref.path) if ref.path else MISSING
    if not ref.filters:
        return value
    text = as_text(value)
    for name in ref.filters:
        text = FILTERS[name](text) if name in FILTERS else text
    return text


def render(text: str, lookup: Lookup) -> str:
    """The text with its references filled in; one that names nothing becomes nothing."""
    if "{{" not in text:
        return text
    return "".join(part if isinstance(part, str) else as_text(_resolved(part, lookup)) for part in parse(text))


def value_of(value: Any, lookup: Lookup) -> Any:
    """A template's value: a lone reference keeps its type; objects and arrays are rendered inside."""
    if isinstance(value, str):
        parts = parse(value) if "{{" in value else ()
        if len(parts) == 1 and isinstance(parts[0], Ref):
            found = _resolved(parts[0], lookup)
            return "" if found is MISSING else found
        return render(value, lookup)
    if isinstance(value, dict):
        return {key: value_of(item, lookup) for key, item in value.items()}
    if isinstance(value, list):
        return [value_of(item, lookup) for item in value]
    return value
