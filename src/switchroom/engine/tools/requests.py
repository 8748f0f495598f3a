"""The tools `requestsGet`, `requestsPost`, `requestsPut` and `requestsDelete`: a request of which the canvas gives the
URL and the shape, and the model the values."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from switchroom.compact.templates import as_text
from switchroom.engine.nodes.base import Step, decoded
from switchroom.engine.outbound import send
from switchroom.engine.responder import Tool

__all__ = ["METHODS", "request_tool"]

METHODS = {"requestsGet": "GET", "requestsPost": "POST", "requestsPut": "PUT", "requestsDelete": "DELETE"}
_MAX_OUTPUT = 2_000
_TYPES = frozenset({"string", "number", "integer", "boolean", "object", "array"})
_NAME = re.compile(r"[^A-Za-z0-9_-]+")


def request_tool(step: Step, kind: str, config: dict[str, Any]) -> Tool:
    """A schema is an object of `name: {type, in?, required?, description?}`; `in` is `path` or `query`. With no URL in
    the canvas the model gives it."""
    url = step.render(str(config.get(f"{kind}Url") or ""))
    queries = _declared(config, f"{kind}QueryParamsSchema")
    bodies = _declared(config, f"{kind}BodySchema")
    headers = _headers(step, config.get(f"{kind}Headers"))
    limit = int(str(config.get(f"{kind}MaxOutputLength") or _MAX_OUTPUT))
    properties: dict[str, Any] = {
        name: {
            "type": field.get("type") if field.get("type") in _TYPES else "string",
            "description": str(field.get("description", "")),
        }
        for name, field in {**queries, **bodies}.items()
    }
    if not url:
        properties["url"] = {"type": "string", "description": "The URL"}
    free = METHODS[kind] in ("POST", "PUT") and not bodies
    if free:
        properties["body"] = {"type": "object", "description": "The JSON body"}
    required = [name for name, field in {**queries, **bodies}.items() if field.get("required") is True]

    async def call(given: dict[str, Any], place: str) -> str:
        target = url or str(given.get("url", ""))
        query: dict[str, str] = {}
        for name, field in queries.items():
            if given.get(name) in (None, ""):
                continue
            value = as_text(given[name])
            if field.get("in") == "path":
                # A value is one segment of the path: never a way to another one.
                filled = quote(value, safe="")
                target = (
                    target.replace(f":{name}", filled) if f":{name}" in target else f"{target.rstrip('/')}/{filled}"
                )
            else:
                query[name] = value
        if query:
            target += ("&" if "?" in target else "?") + urlencode(query)
        body: bytes | None = None
        sent = dict(headers)
        if METHODS[kind] in ("POST", "PUT"):
            content = given.get("body") if free else {name: given[name] for name in bodies if name in given}
            body = msgspec.json.encode(decoded(content) if isinstance(content, str) else content)
            sent.setdefault("Content-Type", "application/json")
        answer = await send(step, METHODS[kind], target, sent, body, place=place)
        text = answer.text()[:limit]
        return text if answer.status < 400 else f"The server answered {answer.status}: {text}"

    name = _NAME.sub("_", str(config.get(f"{kind}Name") or kind)).strip("_")[:64] or kind
    description = str(config.get(f"{kind}Description") or f"Sends a {METHODS[kind]} request.")
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return Tool(name=name, description=description, schema=schema, call=call)


def _declared(config: dict[str, Any], key: str) -> dict[str, dict[str, Any]]:
    value = config.get(key)
    value = decoded(value) if isinstance(value, str) else value
    if not isinstance(value, dict):
        return {}
    return {str(name): field for name, field in value.items() if isinstance(field, dict)}


def _headers(step: Step, given: Any) -> dict[str, str]:
    value = decoded(step.render(given)) if isinstance(given, str) else given
    if isinstance(value, list):
        value = {row.get("key"): row.get("value") for row in value if isinstance(row, dict) and row.get("key")}
    return {str(name): as_text(step.value(item)) for name, item in value.items()} if isinstance(value, dict) else {}
