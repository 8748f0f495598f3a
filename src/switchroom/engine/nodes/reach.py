"""The kinds that reach out: HTTP, Tool, Retriever."""

from __future__ import annotations

import base64
from typing import Any, ClassVar
from urllib.parse import urlencode

import aiohttp
import msgspec

from switchroom.compact.model import Node
from switchroom.compact.templates import as_text
from switchroom.engine.nodes.base import NodeFault, Result, Step, decoded, drawn, params, update_state
from switchroom.engine.outbound import send
from switchroom.engine.responder import Row
from switchroom.engine.retriever import Passage, source_documents
from switchroom.engine.tools.registry import MissingStore, call_tool, search, told
from switchroom.net.client import Fetched

__all__ = ["Http", "Retrieve", "UseTool"]

_METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "PATCH"})


class HttpParams(msgspec.Struct, frozen=True, kw_only=True):
    """`body_type`: `json`, `raw`, `formData` or `xWwwFormUrlencoded`; `response`: `json`, `text`, `arraybuffer` or
    `base64`."""

    method: str = "GET"
    url: str = ""
    headers: list[Row] = []
    query: list[Row] = []
    body_type: str = msgspec.field(name="bodyType", default="")
    body: Any = ""
    response: str = ""


class Http:
    """Sends a request; an error status fails the run. Output: `status`, `headers`, `data`, and the body as `content`;
    the same under `http`, as canvases read it."""

    kind: ClassVar[str] = "http"
    params: ClassVar[type[msgspec.Struct]] = HttpParams

    def listens(self, node: Node) -> bool:
        return False

    async def run(self, step: Step) -> Result:
        declared = params(step.node, HttpParams)
        url = step.render(declared.url).strip()
        method = declared.method.upper() or "GET"
        if not url:
            raise NodeFault(f"The HTTP node `{step.label}` has no URL: give it one.", code="bad_node")
        if method not in _METHODS:
            raise NodeFault(f"The HTTP node `{step.label}` has the unknown method `{method}`.", code="bad_node")
        query = [(row.key, as_text(step.value(row.value))) for row in declared.query if row.key]
        if query:
            url += ("&" if "?" in url else "?") + urlencode(query)
        headers = {row.key: as_text(step.value(row.value)) for row in declared.headers if row.key}
        body = None
        if method not in ("GET", "DELETE") or declared.body:
            body = await _body(step, declared, headers)
        answer = await send(step, method, url, headers, body)
        if answer.status >= 400:
            raise NodeFault(
                f"`{step.label}` was answered {answer.status}: {answer.text()[:300]}", code="http_error_status"
            )
        data = _read(step, declared.response, answer)
        seen = {"status": answer.status, "headers": dict(answer.headers), "data": data}
        content = data if isinstance(data, str) else msgspec.json.encode(data).decode()
        output = {"content": content, **seen, "http": seen}
        return Result(output, {"method": method, "url": url})


def _read(step: Step, wanted: str, answer: Fetched) -> Any:
    if wanted in ("arraybuffer", "base64"):
        return base64.b64encode(answer.body).decode()
    text = answer.text()
    if not wanted:
        value = decoded(text)  # a body that is JSON is its value, whatever the server calls it
        return value if isinstance(value, (dict, list)) or "json" in answer.content_type else text
    if wanted == "json" and text.strip():
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            raise NodeFault(f"`{step.label}` was answered with no JSON: {error}.", code="http_no_json") from error
    return text


async def _body(step: Step, declared: HttpParams, headers: dict[str, str]) -> bytes | None:
    """The body, and its Content-Type among the headers unless the canvas set one."""
    given = declared.body
    if given in ("", None, [], {}):
        return None
    typed = {name.lower() for name in headers}

    def content_type(value: str) -> None:
        if "content-type" not in typed:
            headers["Content-Type"] = value

    match declared.body_type:
        case "formData":
            form = aiohttp.MultipartWriter("form-data")
            for key, value in _pairs(step, given):
                form.append(value).set_content_disposition("form-data", name=key)
            content_type(form.content_type)
            return await form.as_bytes()
        case "xWwwFormUrlencoded":
            content_type("application/x-www-form-urlencoded")
            return urlencode(_pairs(step, given)).encode()
        case "raw":
            content_type("text/plain; charset=utf-8")
            return as_text(step.value(given)).encode()
    content_type("application/json")
    # A JSON text is filled in value by value, so that a quote in what a caller said stays a quote.
    shape = drawn(given) if isinstance(given, str) else given
    filled = step.value(shape)
    if isinstance(filled, str) and isinstance(whole := drawn(filled), (dict, list)):
        filled = whole
    return filled.encode() if isinstance(filled, str) else msgspec.json.encode(filled)


def _pairs(step: Step, given: Any) -> list[tuple[str, str]]:
    shape = drawn(given) if isinstance(given, str) else given
    if isinstance(shape, list):
        shape = {row.get("key"): row.get("value") for row in shape if isinstance(row, dict) and row.get("key")}
    if not isinstance(shape, dict):
        raise NodeFault(f"The form of `{step.label}` is not a list of keys and values.", code="bad_node")
    return [(str(key), as_text(step.value(value))) for key, value in shape.items()]


class Argument(msgspec.Struct, frozen=True, kw_only=True):
    name: str = ""
    value: Any = ""


class ToolParams(msgspec.Struct, frozen=True, kw_only=True):
    tool: str = ""
    config: dict[str, Any] = msgspec.field(name="toolConfig", default_factory=dict)
    args: list[Argument] = []
    update: list[Row] = msgspec.field(name="updateState", default_factory=list)


class UseTool:
    """Calls one tool with arguments from templates. Output: `content`, and `value` where the tool gave JSON."""

    kind: ClassVar[str] = "tool"
    params: ClassVar[type[msgspec.Struct]] = ToolParams

    def listens(self, node: Node) -> bool:
        return False

    async def run(self, step: Step) -> Result:
        declared = params(step.node, ToolParams)
        if not declared.tool:
            raise NodeFault(f"`{step.label}` names no tool: choose one.", code="bad_node")
        given = {row.name: _argument(step.value(row.value)) for row in declared.args if row.name}
        text = await call_tool(step, declared.tool, declared.config, given)
        used = [{"tool": declared.tool, "toolInput": given, "toolOutput": text}]
        output = {"content": text, "value": decoded(text), "usedTools": used}
        update_state(step, declared.update, output)
        return Result(output, given)


def _argument(value: Any) -> Any:
    """A list or an object may stand in a canvas as its text."""
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        return decoded(value)
    return value


class Store(msgspec.Struct, frozen=True, kw_only=True):
    store: str = ""


class RetrieverParams(msgspec.Struct, frozen=True, kw_only=True):
    """`format`: `text`, or `textWithMetadata` with the source of each passage."""

    stores: list[Store] = []
    query: str = ""
    format: str = "text"
    update: list[Row] = msgspec.field(name="updateState", default_factory=list)


class Retrieve:
    """Searches knowledge stores; without a query of its own, for the caller's words. Output: `content`,
    `sourceDocuments`, and `missingStores`: those that are not here, in which nothing is found."""

    kind: ClassVar[str] = "retriever"
    params: ClassVar[type[msgspec.Struct]] = RetrieverParams

    def listens(self, node: Node) -> bool:
        return not node.inputs.get("query")

    async def run(self, step: Step) -> Result:
        if step.may_wait and not step.fresh and self.listens(step.node):
            return Result(wait=True)
        declared = params(step.node, RetrieverParams)
        query = step.render(declared.query) or step.scope.question
        if not any(row.store for row in declared.stores):
            raise NodeFault(f"The Retriever `{step.label}` names no knowledge store.", code="bad_node")
        found: list[Passage] = []
        missing: list[str] = []
        for row in declared.stores:
            try:
                found += await search(step, row.store, query) if row.store else []
            except MissingStore:
                missing.append(row.store)
        content = told(found, sources=declared.format == "textWithMetadata")
        output: dict[str, Any] = {"content": content, "sourceDocuments": source_documents(found)}
        if missing:
            output["missingStores"] = missing
        update_state(step, declared.update, output)
        return Result(output, {"query": query})
