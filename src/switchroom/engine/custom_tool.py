"""A tool that a flow's owner wrote."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

__all__ = ["CustomTool", "LiveTool"]


class CustomTool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`name` is what the canvas and the model call it, `schema` the JSON Schema of its arguments (an object), `code`
    the body of a JavaScript function in which each argument is `$name` (and all of them `$args`). It runs in the
    sandbox: no file, no network, no modules."""

    name: str
    description: str = ""
    schema: dict[str, Any] = {}
    code: str


class LiveTool(CustomTool, frozen=True, kw_only=True):
    """A tool that somebody outside runs for as long as a conversation lasts. `call` takes the arguments and a word that
    tells this call from the others of its node; it has no code and is never stored."""

    code: str = ""
    call: Callable[[dict[str, Any], str], Awaitable[str]]
