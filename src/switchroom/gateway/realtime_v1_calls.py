"""Dialect: OpenAI's Realtime calls at `/v1/realtime/calls`: WebRTC by an SDP offer, and what is done to a call.

`{call_id}` is what `Location` named. For `accept` and `reject` it is the task of a call that waits in a queue.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from aiohttp import BodyPartReader, hdrs, web

from switchroom.access import Scope
from switchroom.engine import Flow
from switchroom.errors import BadInput, Conflict, NotFound, TooLarge
from switchroom.gateway.operation import operation
from switchroom.gateway.realtime_v1 import (
    MAX_BODY,
    as_openai,
    flow_named,
    new_call_id,
    opening_of,
    queued,
)
from switchroom.gateway.realtime_v1_access import caller_of
from switchroom.gateway.services import Services, services
from switchroom.http_problems import decoded_json, read_body
from switchroom.queue import EndReason, Held
from switchroom.queue.model import State
from switchroom.realtime.served.opening import Opening, packed
from switchroom.store import keys

SDP = "application/sdp"
_ACCEPTED_S = 24 * 3600
_REJECTER = "realtime-api"
B = TypeVar("B", bound=msgspec.Struct)


def routes() -> list[web.RouteDef]:
    calls = "/v1/realtime/calls"
    return [
        web.post(calls, create),
        web.post(calls + "/{call_id}/hangup", hang_up),
        web.post(calls + "/{call_id}/refer", refer),
        web.post(calls + "/{call_id}/accept", accept),
        web.post(calls + "/{call_id}/reject", reject),
    ]


@operation(
    Scope.CALLS,
    "A Realtime session over WebRTC: SDP offer in (alone, or as the part `sdp` beside `session`), 201 with the answer "
    "and the call's Location out",
    tag="realtime",
    body="multipart/form-data",
    replies={201: SDP},
    query={
        "model": (str, "The flow, where the session does not name it"),
        "task_id": (str, "A call that waits in the queue, to talk with its caller's form"),
    },
    errors=(400, 401, 403, 404, 409, 413, 429, 503, 504),
    public_flows=True,
)
@as_openai
async def create(request: web.Request) -> web.StreamResponse:
    caller = await caller_of(request)
    sdp, session = await _offered(request)
    if not sdp.lstrip().startswith("v=0"):
        raise _wrong("sdp", "expected an SDP offer, which begins with v=0")
    opening = opening_of(request, caller, session)
    flow = await flow_named(request, caller, opening.model)
    data = packed(opening)
    call_id = new_call_id()
    async with queued(request, flow, opening) as task_id:
        answer = await services(request).signals.serve(flow.id, task_id, call_id, sdp, data)
    location: dict[str, str] = {hdrs.LOCATION: f"/v1/realtime/calls/{call_id}"}
    return web.Response(text=answer, status=201, content_type=SDP, headers=location)


@operation(
    Scope.CALLS,
    "Hang up a Realtime call",
    tag="realtime",
    replies={200: None},
    errors=(401, 403, 404),
    public_flows=True,
)
@as_openai
async def hang_up(request: web.Request) -> web.StreamResponse:
    (await caller_of(request)).needs_key()
    await services(request).signals.hang_up(request.match_info["call_id"])
    return web.Response()


class ReferBody(msgspec.Struct, frozen=True):
    """`target_uri` is a `tel:` or `sip:` URI."""

    target_uri: str


@operation(
    Scope.CALLS,
    "The call goes on at another number: it ends here as transferred",
    tag="realtime",
    body=ReferBody,
    replies={200: None},
    errors=(400, 401, 403, 404),
    public_flows=True,
)
@as_openai
async def refer(request: web.Request) -> web.StreamResponse:
    (await caller_of(request)).needs_key()
    body = await _body(request, ReferBody)
    if not body.target_uri.startswith(("tel:", "sip:", "sips:")):
        raise _wrong("target_uri", "expected a tel: or sip: URI")
    await services(request).signals.refer(request.match_info["call_id"], body.target_uri)
    return web.Response()


@operation(
    Scope.CALLS,
    "Take a waiting call as a Realtime session: who joins it talks with this configuration, steered by `?call_id=`",
    tag="realtime",
    body=dict[str, Any],
    replies={200: None},
    errors=(400, 401, 403, 404, 409),
    public_flows=True,
)
@as_openai
async def accept(request: web.Request) -> web.StreamResponse:
    (await caller_of(request)).needs_key()
    body = decoded_json(await read_body(request, MAX_BODY))
    if not isinstance(body, dict):
        raise BadInput("The body must be a session's configuration.", code="invalid_type")
    parts = services(request)
    task_id = request.match_info["call_id"]
    flow = await _waiting(parts, task_id)
    session = {key: value for key, value in body.items() if key != "model"}
    data = packed(Opening(model=flow.id, session=session))
    await parts.store.call("SET", keys.realtime_accepted(flow.id, task_id), data, "EX", _ACCEPTED_S)
    return web.Response()


class RejectBody(msgspec.Struct, frozen=True):
    """`status_code` is a SIP status."""

    status_code: int = 603


@operation(
    Scope.CALLS,
    "Turn a waiting call away",
    tag="realtime",
    body=RejectBody,
    replies={200: None},
    errors=(400, 401, 403, 404, 409),
    public_flows=True,
)
@as_openai
async def reject(request: web.Request) -> web.StreamResponse:
    (await caller_of(request)).needs_key()
    body = await _body(request, RejectBody)
    if not 300 <= body.status_code <= 699:
        raise _wrong("status_code", "expected a SIP status from 300 to 699")
    parts = services(request)
    task_id = request.match_info["call_id"]
    flow = await _waiting(parts, task_id)
    why = f"rejected with the status {body.status_code}"
    held = await parts.queue.claim_call(flow.id, task_id, _REJECTER)
    if isinstance(held, Held):
        await parts.queue.hang_up(held, EndReason.REJECTED, why)
    else:  # no line is free to take it by: it ends in its place
        await parts.queue.cancel(flow.id, task_id, why)
    return web.Response()


async def _offered(request: web.Request) -> tuple[str, dict[str, Any]]:
    """The SDP offer, and the session's configuration where one came with it."""
    if request.content_type == SDP:
        return (await read_body(request, MAX_BODY)).decode("utf-8", "replace"), {}
    if not request.content_type.startswith("multipart/"):
        raise BadInput(f"Send the SDP offer as {SDP}, or as the part `sdp` of a multipart/form-data body.")
    found: dict[str, bytes] = {}
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader) or part.name not in ("sdp", "session"):
            continue
        found[part.name] = await part.read(decode=True)
        if len(found[part.name]) > MAX_BODY:
            raise TooLarge(f"The part {part.name} is larger than {MAX_BODY} bytes.")
    session = decoded_json(found["session"]) if found.get("session") else {}
    if not isinstance(session, dict):
        raise _wrong("session", "expected an object")
    return found.get("sdp", b"").decode("utf-8", "replace"), session


async def _body(request: web.Request, kind: type[B]) -> B:
    raw = await read_body(request, MAX_BODY)
    try:
        return msgspec.convert(decoded_json(raw) if raw.strip() else {}, kind)
    except msgspec.ValidationError as error:
        raise BadInput(f"The body is not understood: {error}.", code="invalid_value") from error


async def _waiting(parts: Services, task_id: str) -> Flow:
    """The flow in whose queue a call waits. Raises `NotFound`, or `Conflict` for one that waits no more."""
    for flow_id in await parts.queue.flows():
        call = await parts.queue.get(flow_id, task_id)
        if call is None:
            continue
        if call.state not in (State.PENDING, State.SCHEDULED):
            raise Conflict(
                f"The call is {call.state.value}.", code="call_not_waiting", extra={"state": call.state.value}
            )
        flow = await parts.flows.get(flow_id)
        if flow is not None:
            return flow
    raise NotFound(f"No call {task_id!r} waits.", code="unknown_call", extra={"param": "call_id"})


def _wrong(param: str, what: str) -> BadInput:
    return BadInput(f"Invalid value for '{param}': {what}.", code="invalid_value", extra={"param": param})
