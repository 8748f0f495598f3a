"""Dialect: a caller joins a call over WebRTC at `/api/v1/openai-realtime/{flowId}/calls` (WHIP-like, RFC 9725).

`POST` takes the SDP offer and answers 201 with `Location`, `ETag` (the ICE session) and `Link` (ICE servers); `PATCH`
on the location trickles candidates; `DELETE` hangs up. Joining again for the same task replaces the leg.
"""

from __future__ import annotations

import time
from typing import Annotated

import msgspec
from aiohttp import hdrs, web
from msgspec import Meta
from multidict import CIMultiDict

from switchroom.access import Scope
from switchroom.errors import BadInput, Conflict, Fault, NotFound, PreconditionFailed, SwitchroomError
from switchroom.gateway.call_access import MAX_TOKEN_S, admit, bind, issue
from switchroom.gateway.operation import operation
from switchroom.gateway.reply import json_reply, rfc3339
from switchroom.gateway.services import known_flow, services
from switchroom.http_problems import decoded_json, read_body
from switchroom.queue import State
from switchroom.realtime.settings import IceServer
from switchroom.realtime.trickle import ice_tag
from switchroom.realtime.turn import usable

SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"
MAX_OFFER_BYTES = 64 << 10
MAX_TOKEN_BODY = 4 << 10
ACCEPT_PATCH = "Accept-Patch"


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


class TokenBody(msgspec.Struct, rename="camel", omit_defaults=True):
    """`expiresInSeconds`: how long the call can be joined and joined again with the token."""

    task_id: str
    expires_in_seconds: Annotated[int, Meta(ge=10, le=MAX_TOKEN_S)] = 3600


class IceServerReply(msgspec.Struct, omit_defaults=True):
    """As a browser's `RTCIceServer`."""

    urls: list[str]
    username: str | None = None
    credential: str | None = None


class TokenReply(msgspec.Struct, rename="camel"):
    """What a browser needs to join: offer at `url` with `Authorization: Bearer TOKEN`."""

    token: str
    task_id: str
    url: str
    expires_at: str | None
    ice_servers: list[IceServerReply]


class _WrongType(SwitchroomError):
    code, status, title = "wrong_media_type", 415, "Unsupported media type"


class _MatchMissing(SwitchroomError):
    code, status, title = "match_required", 428, "Precondition required"


_offer = msgspec.json.Decoder(OfferBody)


def routes() -> list[web.RouteDef]:
    base = "/api/v1/openai-realtime/{flow_id}/calls"
    leg = base + "/{call_id}"
    return [
        web.post(base, join),
        web.post(base + "/token", token),
        web.patch(leg, trickle),
        web.delete(leg, hang_up),
    ]


@operation(
    Scope.CALLS,
    "Join a queued call: SDP offer in, 201 with the answer and the leg's Location out",
    tag="calls",
    body=OfferBody,
    replies={201: AnswerReply},
    query={"taskId": (str, "the call, as enqueue named it")},
    errors=(400, 401, 403, 404, 409, 413, 503, 504),
    own_check=True,
)
async def join(request: web.Request) -> web.Response:
    flow_id = request.match_info["flow_id"]
    await admit(request, flow_id)
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
    await admit(request, flow_id, task_id=task_id)
    answer = await services(request).signals.offer(flow_id, task_id, sdp)
    await bind(request, answer.call_id)
    headers = CIMultiDict(
        {
            hdrs.LOCATION: f"/api/v1/openai-realtime/{flow_id}/calls/{answer.call_id}",
            hdrs.ETAG: f'"{ice_tag(answer.sdp)}"',
            ACCEPT_PATCH: FRAGMENT,
        }
    )
    for server in _ice_servers(request, task_id):
        for url in server.urls:
            headers.add(hdrs.LINK, _link(url, server))
    if as_sdp:
        return web.Response(text=answer.sdp, status=201, content_type=SDP, headers=headers)
    reply = AnswerReply(sdp=answer.sdp, type="answer", call_id=answer.call_id)
    return json_reply(reply, status=201, headers=headers)


@operation(
    Scope.CALLS,
    "A token with which one call can be joined, for a browser that must not hold an API key",
    tag="calls",
    body=TokenBody,
    replies={201: TokenReply},
    errors=(400, 404, 409, 413),
)
async def token(request: web.Request) -> web.Response:
    flow = await known_flow(request, request.match_info["flow_id"])
    parts = services(request)
    try:
        asked = msgspec.convert(decoded_json(await read_body(request, MAX_TOKEN_BODY)), TokenBody)
    except msgspec.ValidationError as error:
        where = str(error).partition("`$.")[2].rstrip("`") or "taskId"
        raise BadInput(str(error), faults=[Fault(str(error), "/" + where)]) from error
    call = await parts.queue.get(flow.id, asked.task_id)
    if call is None:
        raise NotFound(f"There is no call {asked.task_id!r} in this flow.", code="unknown_task")
    if call.state in (State.WRAPUP, State.ENDED):
        raise Conflict("The call has ended.", code="call_ended")
    made = await issue(parts.store, flow.id, call.task_id, asked.expires_in_seconds)
    reply = TokenReply(
        token=made,
        task_id=call.task_id,
        url=f"/api/v1/openai-realtime/{flow.id}/calls?taskId={call.task_id}",
        expires_at=rfc3339(int((time.time() + asked.expires_in_seconds) * 1000)),
        ice_servers=[
            IceServerReply(server.urls, server.username, server.credential)
            for server in _ice_servers(request, call.task_id)
        ],
    )
    return json_reply(reply, status=201, headers={hdrs.CACHE_CONTROL: "no-store"})


@operation(
    Scope.CALLS,
    "Trickle ICE candidates to a leg",
    tag="calls",
    body=FRAGMENT,
    replies={204: None},
    errors=(400, 401, 403, 404, 412, 413, 415, 422, 428, 503, 504),
    own_check=True,
)
async def trickle(request: web.Request) -> web.Response:
    flow_id, call_id = request.match_info["flow_id"], request.match_info["call_id"]
    await admit(request, flow_id, call_id=call_id)
    if request.content_type != FRAGMENT:
        raise _WrongType(f"send candidates as {FRAGMENT}")
    match = request.headers.get(hdrs.IF_MATCH)
    if match is None:
        raise _MatchMissing("If-Match is required: the ETag of the answer, or * for whichever session it is")
    tag = match.strip().removeprefix("W/").strip('"')
    if not tag:
        raise PreconditionFailed("If-Match names no ICE session", code="wrong_ice_session")
    fragment = (await read_body(request, MAX_OFFER_BYTES)).decode("utf-8", "replace")
    await services(request).signals.trickle(call_id, fragment, "" if tag == "*" else tag)
    return web.Response(status=204)


@operation(
    Scope.CALLS,
    "Hang up a leg",
    tag="calls",
    replies={204: None},
    errors=(401, 403, 404, 503, 504),
    own_check=True,
)
async def hang_up(request: web.Request) -> web.Response:
    flow_id, call_id = request.match_info["flow_id"], request.match_info["call_id"]
    await admit(request, flow_id, call_id=call_id)
    await services(request).signals.hang_up(call_id)
    return web.Response(status=204)


def _ice_servers(request: web.Request, task_id: str) -> list[IceServer]:
    return usable(services(request).ice_servers, task_id.rpartition("-")[2] or "caller")


def _link(url: str, server: IceServer) -> str:
    """RFC 9725 §4.6."""
    link = f'<{url}>; rel="ice-server"'
    if server.username is not None and server.credential is not None:
        link += f'; username="{server.username}"; credential="{server.credential}"; credential-type="password"'
    return link
