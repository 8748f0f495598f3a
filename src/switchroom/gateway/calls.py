"""Dialect: a caller joins a call over WebRTC at `/api/v1/openai-realtime/{flowId}/calls` (WHIP-like, RFC 9725)."""

from __future__ import annotations

import msgspec
from aiohttp import hdrs, web

from switchroom.access import Scope
from switchroom.errors import BadInput, Fault
from switchroom.gateway.operation import operation
from switchroom.gateway.reply import json_reply
from switchroom.gateway.services import known_flow, services
from switchroom.http_problems import read_body

SDP = "application/sdp"
MAX_OFFER_BYTES = 64 << 10


class OfferBody(msgspec.Struct, rename="camel", omit_defaults=True):
    """An SDP offer as JSON; a body of type `application/sdp` with `?taskId=` says the same."""

    sdp: str
    task_id: str | None = None
    type: str = "offer"


class AnswerReply(msgspec.Struct, rename="camel"):
    """The answer to an offer that came as JSON."""

    sdp: str
    type: str
    call_id: str


_offer = msgspec.json.Decoder(OfferBody)


def routes() -> list[web.RouteDef]:
    base = "/api/v1/openai-realtime/{flow_id}/calls"
    return [web.post(base, join), web.delete(base + "/{call_id}", hang_up)]


@operation(
    Scope.CALLS,
    "Join a queued call: SDP offer in, 201 with the answer and the leg's Location out",
    tag="calls",
    body=OfferBody,
    replies={201: AnswerReply},
    query={"taskId": (str, "the call, as enqueue named it")},
    errors=(400, 404, 409, 413, 503, 504),
)
async def join(request: web.Request) -> web.Response:
    flow = await known_flow(request, request.match_info["flow_id"])
    raw = await read_body(request, MAX_OFFER_BYTES)
    as_sdp = request.content_type == SDP
    task_id = request.query.get("taskId")
    if as_sdp:
        sdp = raw.decode("utf-8", "replace")
    else:
        try:
            offer = _offer.decode(raw)
        except msgspec.DecodeError as error:
            detail = f"send the SDP offer as {SDP}, or as JSON {{'sdp', 'taskId'}}: {error}"
            raise BadInput(detail, code="invalid_offer", faults=[Fault(str(error), "/sdp")]) from error
        sdp, task_id = offer.sdp, task_id or offer.task_id
    if not sdp.lstrip().startswith("v=0"):
        raise BadInput("this is no SDP offer: it must begin with v=0", faults=[Fault("must begin with v=0", "/sdp")])
    if not task_id:
        what = "is required: the call to join, as enqueue named it"
        raise BadInput(f"taskId {what}", faults=[Fault(what, "/query/taskId")])
    answer = await services(request).signals.offer(flow.id, task_id, sdp)
    headers: dict[str, str] = {hdrs.LOCATION: f"/api/v1/openai-realtime/{flow.id}/calls/{answer.call_id}"}
    if as_sdp:
        return web.Response(text=answer.sdp, status=201, content_type=SDP, headers=headers)
    reply = AnswerReply(sdp=answer.sdp, type="answer", call_id=answer.call_id)
    return json_reply(reply, status=201, headers=headers)


@operation(Scope.CALLS, "Hang up a leg", tag="calls", replies={204: None}, errors=(404, 503, 504))
async def hang_up(request: web.Request) -> web.Response:
    await known_flow(request, request.match_info["flow_id"])
    await services(request).signals.hang_up(request.match_info["call_id"])
    return web.Response(status=204)
