"""Dialect: a call whose caller's browser talks with a Realtime service directly; the flow steers it from beside."""

from __future__ import annotations

import msgspec
from aiohttp import hdrs, web

from switchroom.access import Scope
from switchroom.errors import BadInput, Fault
from switchroom.gateway.operation import operation
from switchroom.gateway.reply import json_reply, read_as
from switchroom.gateway.services import known_flow, services

_MAX_BODY = 16 << 10
_MAX_ID = 256


class DirectBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """`taskId` as enqueue named the call; `callId` as the service did (`rtc_…`, in the `Location` of its answer)."""

    task_id: str
    call_id: str


class DirectReply(msgspec.Struct, rename="camel"):
    """`callId` is our name of the leg: DELETE at the Location hangs up."""

    call_id: str


def routes() -> list[web.RouteDef]:
    return [web.post("/api/v1/openai-realtime/{flow_id}/calls/direct", steer)]


@operation(
    Scope.CALLS,
    "Steer a call that a browser made at the Realtime service itself (`media.openai_url`), by its name there",
    tag="calls",
    body=DirectBody,
    replies={201: DirectReply},
    errors=(400, 404, 409, 413, 429, 503, 504),
)
async def steer(request: web.Request) -> web.Response:
    flow = await known_flow(request, request.match_info["flow_id"])
    body = await read_as(request, DirectBody, _MAX_BODY)
    if not 0 < len(body.call_id) <= _MAX_ID:
        raise BadInput("callId must be the service's name of the call.", faults=[Fault("must not be empty", "/callId")])
    leg = await services(request).signals.direct(flow.id, body.task_id, body.call_id)
    headers: dict[str, str] = {hdrs.LOCATION: f"/api/v1/openai-realtime/{flow.id}/calls/{leg}"}
    return json_reply(DirectReply(call_id=leg), status=201, headers=headers)
