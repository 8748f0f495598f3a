"""Dialect: the compact export at `/api/v1/openai-realtime/…compact`."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import msgspec
from aiohttp import hdrs, web

from switchroom.access import Scope
from switchroom.compact import (
    CompactGraph,
    compact_canvas,
    content_hash,
    expand,
    from_json,
    json_schema,
    sound,
    to_json,
    to_msgpack,
)
from switchroom.errors import BadInput, Fault
from switchroom.gateway.operation import IF_NONE_MATCH, operation
from switchroom.gateway.reply import bad_parameter, not_modified
from switchroom.gateway.services import known_flow, services
from switchroom.http_problems import read_json

Format = Literal["json", "msgpack"]
_MEDIA_TYPES: dict[Format, str] = {"json": "application/json", "msgpack": "application/vnd.msgpack"}
_MSGPACK_NAMES = {"application/vnd.msgpack", "application/msgpack", "application/x-msgpack"}


class CompactBody(msgspec.Struct, rename="camel", omit_defaults=True):
    """One of the three says what to compact; `flowData` is a canvas or the JSON string of one."""

    flow_id: str | None = None
    chatflow_id: str | None = None
    flow_data: dict[str, Any] | str | None = None
    format: Format | None = None


def routes() -> list[web.RouteDef]:
    base = "/api/v1/openai-realtime"
    return [
        web.post(base + "/compact", compact),
        web.get(base + "/compact/schema", compact_schema),
        web.get(base + "/{flow_id}/compact", compact_stored),
    ]


@operation(
    Scope.FLOWS_READ,
    "The compact graph of a stored flow or of a canvas in the body",
    tag="flows",
    body=CompactBody,
    replies={200: (CompactGraph, _MEDIA_TYPES["msgpack"]), 304: None},
    headers=IF_NONE_MATCH,
    errors=(400, 404, 413, 422),
)
async def compact(request: web.Request) -> web.Response:
    body = await read_json(request, services(request).max_canvas_bytes)
    if not isinstance(body, dict):
        raise BadInput("The body must be a JSON object.", faults=[Fault("must be an object", "")])
    kind = _format(body.get("format"), request, pointer="/format")
    given = [name for name in ("flowId", "chatflowId", "flowData") if body.get(name) is not None]
    if given in (["flowId"], ["chatflowId"], ["flowId", "chatflowId"]):
        flow_id = _one_id(body, given)
        flow = await known_flow(request, flow_id)
        return _reply(request, flow.graph, flow.hash, kind)
    if given != ["flowData"]:
        detail = "give either `flowId` (or `chatflowId`) or `flowData`" + (", not both" if given else "")
        raise BadInput(f"Nothing to compact is named: {detail}.", faults=[Fault(detail, f"/{name}") for name in given])
    canvas = canvas_of(body["flowData"], "/flowData")
    graph = await asyncio.to_thread(compact_canvas, canvas)
    return _reply(request, graph, content_hash(graph), kind)


@operation(
    Scope.FLOWS_READ,
    "The compact graph of a stored flow",
    tag="flows",
    replies={200: (CompactGraph, _MEDIA_TYPES["msgpack"]), 304: None},
    query={"format": (Format, "`json` or `msgpack`; else `Accept` decides")},
    headers=IF_NONE_MATCH,
    errors=(400, 404),
)
async def compact_stored(request: web.Request) -> web.Response:
    kind = _format(request.query.get("format"), request, pointer=None)
    flow = await known_flow(request, request.match_info["flow_id"])
    return _reply(request, flow.graph, flow.hash, kind)


@operation(None, "JSON Schema of the compact graph's JSON form", tag="flows", replies={200: "application/schema+json"})
async def compact_schema(request: web.Request) -> web.Response:
    headers = {hdrs.CACHE_CONTROL: "public, max-age=3600"}
    return web.Response(
        body=msgspec.json.encode(json_schema()), content_type="application/schema+json", headers=headers
    )


def canvas_of(value: object, pointer: str) -> dict[str, Any]:
    """A canvas from a body: an object, or the JSON string of one (as canvas editors save it). A compact graph is drawn
    as one, so that what was exported can be imported."""
    name = pointer.removeprefix("/")
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
            raise BadInput(
                f"`{name}` is a string that is not JSON: {error}.", faults=[Fault(str(error), pointer)]
            ) from (error)
    if not isinstance(value, dict):
        what = "must be a canvas: an object, or the JSON string of one"
        raise BadInput(f"`{name}` {what}.", faults=[Fault(what, pointer)])
    if "nodes" not in value and isinstance(value.get("n"), list):
        return expand(sound(from_json(msgspec.json.encode(value))))
    return value


def _one_id(body: dict[str, Any], names: list[str]) -> str:
    for name in names:
        if not isinstance(body[name], str):
            raise BadInput(f"`{name}` must be a string.", faults=[Fault("must be a string", f"/{name}")])
    if len({body[name] for name in names}) > 1:
        what = "differs from `flowId`"
        raise BadInput("`chatflowId` and `flowId` name different flows.", faults=[Fault(what, "/chatflowId")])
    return str(body[names[0]])


def _format(value: object, request: web.Request, *, pointer: str | None) -> Format:
    match value:
        case "json" | "msgpack":
            return value
        case None:
            accepted = {
                part.partition(";")[0].strip().lower() for part in request.headers.get(hdrs.ACCEPT, "").split(",")
            }
            return "msgpack" if accepted & _MSGPACK_NAMES else "json"
    what = "must be `json` or `msgpack`"
    if pointer is None:
        raise bad_parameter("format", what)
    raise BadInput(f"`format` {what}.", faults=[Fault(what, pointer)])


def _reply(request: web.Request, graph: CompactGraph, graph_hash: str, kind: Format) -> web.Response:
    # One graph has two encodings, so a tag that is only the hash is a weak one for neither: the format is in it.
    etag = f'"{graph_hash}"' if kind == "json" else f'"{graph_hash};{kind}"'
    headers = {hdrs.ETAG: etag, hdrs.VARY: "Accept", hdrs.CACHE_CONTROL: "private, no-cache"}
    if not_modified(request, etag):
        return web.Response(status=304, headers=headers)
    body = to_json(graph) if kind == "json" else to_msgpack(graph)
    return web.Response(body=body, content_type=_MEDIA_TYPES[kind], headers=headers)
