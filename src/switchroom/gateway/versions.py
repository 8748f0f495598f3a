"""Dialect: a flow's versions by the hash of what runs: list, read, deploy, export."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import hdrs, web

from switchroom.access import Scope
from switchroom.compact import expand
from switchroom.engine import Flow
from switchroom.errors import NotFound
from switchroom.gateway.chat_rows import newest_rows, one_row
from switchroom.gateway.chatflows import FlowView, deployed, stored_flow, view_of
from switchroom.gateway.flow_versions import MAX_VERSIONS, Stored
from switchroom.gateway.operation import operation
from switchroom.gateway.reply import json_reply, rfc3339
from switchroom.gateway.services import services


class Version(msgspec.Struct, rename="camel"):
    """`live` is the one that runs. `createdDate` is when it was saved last."""

    hash: str
    name: str
    type: str
    created_date: str | None
    live: bool


class VersionCanvas(Version, rename="camel"):
    flow_data: str


def routes() -> list[web.RouteDef]:
    base = "/api/v1/chatflows/{flow_id}"
    return [
        web.get(base + "/versions", list_versions),
        web.get(base + "/versions/{hash}", get_version),
        web.post(base + "/versions/{hash}/deploy", deploy_version),
        web.get(base + "/export", export_flow),
    ]


@operation(
    Scope.FLOWS_READ, "A flow's versions, newest first", tag="flows", replies={200: list[Version]}, errors=(404,)
)
async def list_versions(request: web.Request) -> web.Response:
    flow = await stored_flow(request)
    rows = await newest_rows(services(request), flow.id, "versions", Stored, MAX_VERSIONS)
    return json_reply([_version(row, flow) for row in rows])


@operation(Scope.FLOWS_READ, "One version with its canvas", tag="flows", replies={200: VersionCanvas}, errors=(404,))
async def get_version(request: web.Request) -> web.Response:
    flow = await stored_flow(request)
    row = await _stored(request, flow)
    shown = _version(row, flow)
    canvas = msgspec.json.encode(row.canvas).decode()
    return json_reply(VersionCanvas(shown.hash, shown.name, shown.type, shown.created_date, shown.live, canvas))


@operation(
    Scope.FLOWS_WRITE,
    "Let this version run from now on (forwards or back); settings and runs under way stay as they are",
    tag="flows",
    replies={200: FlowView},
    errors=(404, 422),
)
async def deploy_version(request: web.Request) -> web.Response:
    flow = await stored_flow(request)
    row = await _stored(request, flow)
    return json_reply(view_of(await deployed(request, row.canvas, flow=flow, name=row.name, kind=row.kind)))


@operation(
    Scope.FLOWS_READ,
    "The flow as a canvas that Agentflow editors open, to be imported here or there; it holds no credential",
    tag="flows",
    replies={200: dict[str, Any]},
    errors=(404,),
)
async def export_flow(request: web.Request) -> web.Response:
    flow = await stored_flow(request)
    disposition = f'attachment; filename="{flow.id}.json"'
    return json_reply({"name": flow.name, **expand(flow.graph)}, headers={hdrs.CONTENT_DISPOSITION: disposition})


def _version(row: Stored, flow: Flow) -> Version:
    shown = "REALTIME" if row.kind == "realtime" else "AGENTFLOW"
    return Version(row.hash, row.name, shown, rfc3339(row.saved_ms), row.hash == flow.hash)


async def _stored(request: web.Request, flow: Flow) -> Stored:
    row = await one_row(services(request), flow.id, "versions", request.match_info["hash"], Stored)
    if row is None:
        raise NotFound("This flow has no version of this hash.", code="version_not_found")
    return row
