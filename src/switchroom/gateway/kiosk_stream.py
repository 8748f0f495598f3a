"""A turn as the text that assembles to `{"text", "tool_calls", "error"}` at a kiosk, however it is cut."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from switchroom.engine.events import Event, NodeFinished, Token, TurnFailed

_OBJECT = re.compile(r'\s*\{\s*"(text|tool_calls|error)"\s*:')
_UNDECIDED = re.compile(r'\s*(\{\s*("[a-z_]{0,10}"?\s*:?)?)?')


class KioskStream:
    """One turn. `feed` an event, send what it returns ('' for nothing yet), and what `end` returns last.

    Tokens are escaped into `text` as they come. A model that was told to speak in this form itself (its text begins
    with such an object) is passed on as it is.
    """

    def __init__(self) -> None:
        self._held = ""
        self._raw: bool | None = None
        self._tools: list[Any] = []
        self._error: str | None = None

    def feed(self, event: Event) -> str:
        match event:
            case Token():
                return self._text(event.text)
            case NodeFinished():
                found = event.output.get("tool_calls") if isinstance(event.output, dict) else None
                if isinstance(found, list):
                    self._tools += [_tool_call(one) for one in found if isinstance(one, dict) and one.get("name")]
            case TurnFailed():
                self._error = event.detail
            case _:
                pass
        return ""

    def end(self) -> str:
        """The rest of the object."""
        if self._raw:
            return ""
        begin = self._begin() if self._raw is None else ""
        tail = '"'
        if self._tools:
            tail += ',"tool_calls":' + msgspec.json.encode(self._tools).decode()
        if self._error is not None:
            tail += ',"error":' + _quoted(self._error)
        return begin + tail + "}"

    def _text(self, text: str) -> str:
        if self._raw is None:
            self._held += text
            if _OBJECT.match(self._held):
                self._raw = True
                return self._held
            if _UNDECIDED.fullmatch(self._held):
                return ""
            return self._begin()
        return text if self._raw else _quoted(text)[1:-1]

    def _begin(self) -> str:
        self._raw = False
        return '{"text":"' + _quoted(self._held)[1:-1]


def _tool_call(given: dict[str, Any]) -> dict[str, Any]:
    args = given.get("args", given.get("arguments"))
    return {"name": str(given["name"]), "args": args if isinstance(args, dict) else {}}


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()
