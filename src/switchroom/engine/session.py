"""A conversation's memory between turns: serialisable, so that another process can take it over."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Message(msgspec.Struct, kw_only=True):
    """One utterance that was really said and heard."""

    role: Literal["caller", "agent"]
    text: str
    at_ms: int = 0


class Session(msgspec.Struct, kw_only=True):
    """State of one conversation.

    `form` and `state` come from the enqueue (state is merged over the Start node's declaration by the engine at
    the first turn); `position` is the node at which the next utterance continues (None: from Start); `outputs`
    holds the last output of each node; `loops` counts how often each Loop was taken.
    """

    session_id: str
    realtime: bool = False
    form: dict[str, Any] = {}
    state: dict[str, Any] = {}
    messages: list[Message] = []
    position: str | None = None
    outputs: dict[str, Any] = {}
    loops: dict[str, int] = {}
    started: bool = False
