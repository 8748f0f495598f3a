"""The OpenAPI 3.1 document, made of the routes as they are and of the operations that their handlers declare."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from switchroom import __version__
from switchroom.gateway import examples
from switchroom.gateway.operation import Operation, operation, operation_of
from switchroom.gateway.reply import json_reply
from switchroom.gateway.webhooks import WebhookMessage
from switchroom.webhooks import TYPES

_PARAMETER = re.compile(r"{(\w+)(?::[^}]*)?}")
_FILES = {"type": "array", "items": {"type": "string", "contentMediaType": "application/octet-stream"}}
_FORM = {"multipart/form-data": {"schema": {"type": "object", "required": ["files"], "properties": {"files": _FILES}}}}


class ProblemError(msgspec.Struct):
    """One thing that is wrong, with a JSON Pointer to it."""

    detail: str
    pointer: str


class Problem(msgspec.Struct, rename="camel", omit_defaults=True):
    """Problem details (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    correlation_id: str
    errors: list[ProblemError] = []


def routes() -> list[web.RouteDef]:
    return [web.get("/openapi.json", openapi)]


@operation(None, "This document", tag="health", replies={200: dict[str, Any]})
async def openapi(request: web.Request) -> web.Response:
    return json_reply(document(request.app))


def document(app: web.Application) -> dict[str, Any]:
    """The document of a built gateway."""
    declared = [
        (route.method.lower(), route.resource.canonical, operation_of(route.handler), route.handler)
        for route in app.router.routes()
        # A path with a slash at its end is the same operation, kept for clients that write it so.
        if route.resource is not None and route.method != "HEAD" and not route.resource.canonical.endswith("/")
    ]
    types: list[Any] = [Problem, WebhookMessage]
    for _, _, op, _ in declared:
        if op is not None:
            given = [one for kind in (op.body, *op.replies.values()) for one in _several(kind)]
            types += [kind for kind in given if not isinstance(kind, str)]
            types += [kind for kind, _ in (*op.query.values(), *op.headers.values())]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    # A type may stand twice in the list (and dict[str, Any] cannot be a key): its place leads to its schema.
    schema_of = {_type_key(kind): schema for kind, schema in zip(types, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for method, path, op, handler in declared:
        if op is not None:
            wire_path = _PARAMETER.sub(lambda m: "{" + _camel(m[1]) + "}", path)
            paths.setdefault(wire_path, {})[method] = _describe(op, wire_path, handler, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Switchroom", "version": __version__, "license": {"name": "Apache-2.0"}},
        "paths": dict(sorted(paths.items())),
        "webhooks": {kind: {"post": _message(kind, schema_of)} for kind in TYPES},
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _message(kind: str, schema_of: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What we send (OpenAPI 3.1 `webhooks`), with the headers of Standard Webhooks."""
    headers = {
        "webhook-id": "the message's ID, the same over retries",
        "webhook-timestamp": "when this try was made, in Unix seconds",
        "webhook-signature": "`v1,` and the base64 HMAC-SHA256 of `id.timestamp.body`; several with spaces between",
    }
    return {
        "operationId": f"webhook_{kind.replace('.', '_')}",
        "summary": f"A call came to the state {kind.removeprefix('call.')}",
        "tags": ["webhooks"],
        "parameters": [
            {"name": name, "in": "header", "required": True, "description": what, "schema": {"type": "string"}}
            for name, what in headers.items()
        ],
        "requestBody": {"required": True, "content": _content(WebhookMessage, schema_of)["content"]},
        "responses": {
            "2XX": {"description": "Taken"},
            "410": {"description": "Gone: the endpoint is switched off"},
            "default": {"description": "Tried again later"},
        },
    }


def _describe(
    op: Operation, path: str, handler: Callable[..., Any], schema_of: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": f"{handler.__module__.rsplit('.', 1)[-1]}_{handler.__qualname__}",
        "summary": op.summary,
        "tags": [op.tag],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, **_example_of(name)}
            for name in _PARAMETER.findall(path)
        ]
        + [
            {"name": name, "in": "query", "description": sentence, "schema": schema_of[_type_key(kind)]}
            for name, (kind, sentence) in op.query.items()
        ]
        + [
            {"name": name, "in": "header", "description": sentence, "schema": schema_of[_type_key(kind)]}
            for name, (kind, sentence) in op.headers.items()
        ],
        "responses": {str(status): _content(kind, schema_of) for status, kind in (op.replies or {200: None}).items()},
    }
    if op.body is not None or op.files:
        content = _content(op.body, schema_of).get("content", {})
        if bodies := examples.BODIES.get(described["operationId"]):
            content["application/json"]["examples"] = {name: {"value": body} for name, body in bodies.items()}
        described["requestBody"] = {"required": True, "content": content | (_FORM if op.files else {})}
    refused = [401, 403] if op.scope is not None else []
    for status in sorted({*op.errors, *refused}):
        problem = {"application/problem+json": {"schema": schema_of[_type_key(Problem)]}}
        described["responses"][str(status)] = {"description": "Problem", "content": problem}
    if op.scope is not None:
        # A flow that its owner made public asks for no key: an empty requirement says so.
        described["security"] = [{"bearer": []}, {"apiKey": []}, *([{}] if op.public_flows else [])]
        described["x-scope"] = str(op.scope)
    return described


def _example_of(parameter: str) -> dict[str, str]:
    return {"example": examples.PARAMETERS[parameter]} if parameter in examples.PARAMETERS else {}


def _content(kind: Any, schema_of: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if kind is None:
        return {"description": "Done"}
    content: dict[str, Any] = {}
    for one in _several(kind):
        if isinstance(one, str):
            content[one] = {}
        else:
            content["application/json"] = {"schema": schema_of[_type_key(one)]}
    return {"description": "Done", "content": content}


def _several(kind: Any) -> tuple[Any, ...]:
    return kind if isinstance(kind, tuple) else () if kind is None else (kind,)


def _type_key(kind: Any) -> str:
    return f"{getattr(kind, '__module__', '')}:{kind!r}"


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)
