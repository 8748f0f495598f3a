"""A node's inputs as a canvas has them, read by the declaration of its kind: short names, plain templates, no
credential, nothing that is empty."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from switchroom.compact.fields import Field
from switchroom.compact.kinds import KINDS
from switchroom.compact.richtext import plain
from switchroom.compact.secrets import is_secret_name, scrub_pairs, scrub_text
from switchroom.compact.templates import as_text

__all__ = ["FORMS", "Form", "opaque", "scalar"]

_TEXTS = frozenset({"string", "options", "code", "reference", "model", "node"})
_NUMBERS = (int, float)
_BOOLEANS = {"true": True, "false": False}


class Form:
    """The declared inputs of a node or of a row, found by any of their spellings."""

    def __init__(self, fields: tuple[Field, ...]) -> None:
        self._spelled: dict[str, tuple[int, Field, Form | None]] = {}
        self._configs: dict[str, tuple[int, Field]] = {}
        for field in fields:
            rows = Form(field.items) if field.items else None
            for rank, spelling in enumerate((field.wire, field.name, *field.aliases)):
                self._spelled.setdefault(spelling, (rank, field, rows))
                if field.config:
                    self._configs.setdefault(spelling + "Config", (rank, field))

    def read(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Inputs by their short names; one that is not declared keeps its own name. Where an input stands under
        several of its spellings, the first one that is not empty counts."""
        taken: dict[str, Any] = {}
        ranks: dict[str, int] = {}
        for key, given in inputs.items():
            if _empty(given):
                continue
            declared = self._spelled.get(key)
            if declared is None:
                self._undeclared(key, given, taken, ranks)
                continue
            rank, field, rows = declared
            name = field.name
            if rank >= ranks.get(name, 99):
                continue
            ranks[name] = rank
            taken.pop(name, None)
            value = _value(given, field, rows)
            # A choice left at its default runs the same as one that was never made.
            if field.type == "options" and value == field.default:
                continue
            if not _empty(value) and not is_secret_name(key, value):
                taken[name] = value
        return taken

    def _undeclared(self, key: str, given: Any, taken: dict[str, Any], ranks: dict[str, int]) -> None:
        config = self._configs.get(key)
        if config is None:
            if key != "undefined" and not is_secret_name(key, given):
                value = opaque(given)
                if not _empty(value):
                    taken[key] = value
            return
        rank, field = config
        name = field.name + "Config"
        if rank < ranks.get(name, 99) and isinstance(given, dict):
            ranks[name] = rank
            # The editor repeats the choice inside of its settings.
            choices = (field.wire, *field.aliases)
            kept = opaque({key: item for key, item in given.items() if key not in choices})
            if kept:
                taken[name] = kept


def opaque(value: Any) -> Any:
    """A value of a shape that we do not declare: without what is empty and without credentials."""
    if isinstance(value, str):
        return _tight(scrub_text(plain(value)))
    if isinstance(value, dict):
        kept = {}
        for key, item in scrub_pairs(value).items():
            if not _empty(item) and not is_secret_name(key, item):
                item = opaque(item)
                if not _empty(item):
                    kept[key] = item
        return kept
    if isinstance(value, list):
        return [opaque(item) for item in value]
    return scalar(value)


def scalar(value: Any) -> Any:
    """A number as JSON and MessagePack can hold it, and as JavaScript, which has one kind of number, would write it:
    `1` for 1.0, a floating one beyond 64 bits, none if it is not finite."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value.is_integer() and abs(value) <= 2**53 else value
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        return scalar(float(value)) if abs(value) < 10**300 else None
    return value


def _empty(value: object) -> bool:
    return not value and not isinstance(value, _NUMBERS)


def _value(value: Any, field: Field, rows: Form | None) -> Any:
    if isinstance(value, str):
        kind = field.type
        if kind == "array":
            return _parsed_array(value, field, rows)
        if kind == "code":
            return scrub_text(value)
        if kind == "json":
            return _parsed_json(scrub_text(value))
        text = scrub_text(plain(value))
        if kind == "boolean":
            return _BOOLEANS.get(text.strip().lower(), text)
        return _number(text) if kind == "number" else text
    if isinstance(value, _NUMBERS):
        return as_text(scalar(value)) if field.type in _TEXTS and not field.free else scalar(value)
    if field.type == "json":
        return _finite(value)
    if isinstance(value, list):
        read = [_row(item, rows) for item in value]
        return [row for row in read if not _empty(row)]
    return opaque(value)


def _parsed_array(value: str, field: Field, rows: Form | None) -> Any:
    """Some editors save an array as a JSON string."""
    try:
        parsed = msgspec.json.decode(value)
    except msgspec.DecodeError:
        parsed = None
    if isinstance(parsed, list):
        return _value(parsed, field, rows)
    text = scrub_text(plain(value))
    # A list of texts may be written one a line.
    return text if rows else [line.strip() for line in text.split("\n") if line.strip()]


def _parsed_json(value: str) -> Any:
    """A schema that the editor keeps as text: the object itself, or the text if it is not JSON."""
    try:
        parsed = msgspec.json.decode(value)
    except msgspec.DecodeError:
        return value
    return _finite(parsed) if isinstance(parsed, (dict, list)) else value


def _finite(value: Any) -> Any:
    """A schema untouched but for numbers that nothing can hold."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else scalar(value)


def _row(item: Any, rows: Form | None) -> Any:
    if isinstance(item, dict):
        return rows.read(scrub_pairs(item)) if rows is not None else opaque(item)
    return scrub_text(plain(item)) if isinstance(item, str) else opaque(item)


def _tight(text: str) -> str:
    """JSON inside of a text, without its blanks."""
    if text[:1] not in ("{", "["):
        return text
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    return msgspec.json.format(text, indent=-1)


def _number(text: str) -> Any:
    try:
        number = float(text)
    except ValueError:
        return text
    if number != number or abs(number) > 1e15:
        return text
    return int(number) if number.is_integer() else number


FORMS: dict[str, Form] = {kind.name: Form(kind.fields) for kind in KINDS}
"""By the kind's name."""
