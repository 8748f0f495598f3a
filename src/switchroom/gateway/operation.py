"""One declaration beside each handler: who may call it, what it takes and gives. Access and OpenAPI both read it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web

from switchroom.access import Scope

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_H = TypeVar("_H", bound=Handler)

IF_NONE_MATCH = {"If-None-Match": (str, "Entity tags (`ETag`) that the client has: if one still holds, 304")}

_OPERATIONS: dict[Callable[..., Any], Operation] = {}


@dataclass(frozen=True, kw_only=True)
class Operation:
    """`scope` None is public; with `public_flows` the handler asks itself (`chat_flow`), since a flow that its owner
    made public needs no key. `body` and the values of `replies` are types that msgspec can describe, or a media type
    (with a `/`) for what is not JSON, or a tuple of several of these, or None. `query` and `headers` hold
    `name -> (type, sentence)`; `files` says that a multipart form with files is taken as well."""

    scope: Scope | None
    summary: str
    tag: str
    body: Any = None
    replies: Mapping[int, Any] = field(default_factory=dict)
    query: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    headers: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    files: bool = False
    errors: Sequence[int] = ()
    public_flows: bool = False
    own_check: bool = False
    """The handler checks itself, since more than API keys open it (`call_access`)."""


def operation(
    scope: Scope | None,
    summary: str,
    *,
    tag: str,
    body: Any = None,
    replies: Mapping[int, Any] | None = None,
    query: Mapping[str, tuple[Any, str]] | None = None,
    headers: Mapping[str, tuple[Any, str]] | None = None,
    files: bool = False,
    errors: Sequence[int] = (),
    public_flows: bool = False,
    own_check: bool = False,
) -> Callable[[_H], _H]:
    """Declares a handler. One without a declaration cannot be built into the gateway."""

    def declare(handler: _H) -> _H:
        _OPERATIONS[handler] = Operation(
            scope=scope,
            summary=summary,
            tag=tag,
            body=body,
            replies=replies or {},
            query=query or {},
            headers=headers or {},
            files=files,
            errors=errors,
            public_flows=public_flows,
            own_check=own_check,
        )
        return handler

    return declare


def operation_of(handler: Callable[..., Any]) -> Operation | None:
    return _OPERATIONS.get(handler)
