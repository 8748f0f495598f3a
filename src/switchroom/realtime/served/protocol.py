"""What every part of a served session says on the wire: identifiers, and errors that name the event and the field."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

Event = dict[str, Any]
"""A server event without its `event_id`."""
Tell = Callable[[Event], None]
"""Sends an event to every client of the session; must not block."""


def new_id(kind: str) -> str:
    """`item_…`, `resp_…` and the like; at most 32 characters, as the protocol asks of identifiers."""
    return f"{kind}_{secrets.token_hex(12)}"


class WireError(Exception):
    """A client event that cannot be done; it becomes an `error` event and the session goes on.

    `code` is a stable word, `param` the field (`session.audio.input.format`).
    """

    def __init__(
        self, message: str, *, code: str, param: str | None = None, kind: str = "invalid_request_error"
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param
        self.kind = kind

    def event(self, event_id: str | None) -> Event:
        """`event_id` is that of the client event which caused it."""
        return error_event(self.message, code=self.code, kind=self.kind, param=self.param, event_id=event_id)


def error_event(
    message: str,
    *,
    code: str | None,
    kind: str = "invalid_request_error",
    param: str | None = None,
    event_id: str | None = None,
) -> Event:
    told = {"type": kind, "code": code, "message": message, "param": param, "event_id": event_id}
    return {"type": "error", "error": told}


def text_of(event: Event, name: str, *, needed: bool = True) -> str:
    """A string member of a client event. Raises `WireError`."""
    value = event.get(name)
    if value is None and not needed:
        return ""
    if value is None:
        raise WireError(f"Missing required parameter: '{name}'.", code="missing_required_parameter", param=name)
    if not isinstance(value, str):
        raise WireError(f"Invalid type for '{name}': expected a string.", code="invalid_type", param=name)
    return value


def count_of(event: Event, name: str) -> int:
    """A member that is a whole number from 0 on. Raises `WireError`."""
    value = event.get(name)
    if value is None:
        raise WireError(f"Missing required parameter: '{name}'.", code="missing_required_parameter", param=name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise WireError(
            f"Invalid value for '{name}': expected a whole number from 0.", code="invalid_value", param=name
        )
    return value
