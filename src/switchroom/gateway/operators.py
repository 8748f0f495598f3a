"""Dialect: operators at live calls, at `/api/v1/openai-realtime/{flowId}/live/{taskId}`.

Listening is WHEP-like (draft-ietf-wish-whep): an SDP offer by POST, 201 with the answer and a Location, DELETE ends it.
The offer may carry a microphone: where it goes is the leg's mode (nobody, the agent, the caller), which only a key with
the scope `calls:operate` changes.
"""

from __future__ import annotations

import re

import msgspec
from aiohttp import hdrs, web

from switchroom.access import Scope
from switchroom.errors import BadInput, Fault
from switchroom.gateway.calls import MAX_OFFER_BYTES, SDP
from switchroom.gateway.operation import operation
from switchroom.gateway.reply import bad_parameter, json_reply, read_as
from switchroom.gateway.services import PRINCIPAL, known_flow, services
from switchroom.http_problems import read_body
from switchroom.realtime import operators as host
from switchroom.realtime.desk import Mode
from switchroom.realtime.operators import Asked, LiveCall

MAX_BODY = 16 << 10
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,80}")
_NUMBER = re.compile(r"\+?[0-9*#]{2,32}|(sips?|tel):[^\s<>\"]{1,200}")


class ModeBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """`listen`: the operator's voice goes to nobody. `whisper`: to the agent. `talk`: to the caller, in the agent's
    place. `say`: what the agent says first when it gets the call back."""

    mode: Mode
    say: str = ""


class WhisperBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Guidance for the agent's next turns; the caller does not hear it. `operator`: who says so."""

    text: str
    operator: str = ""


class TransferBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Either `number` (a phone number or a `sip:` or `tel:` URI: the caller goes on there and the call ends
    `transferred`) or `toOperator` (who is asked to take the call)."""

    number: str = ""
    to_operator: str = ""
    operator: str = ""


class AtCall(msgspec.Struct, rename="camel"):
    """An operator's leg at a call."""

    id: str
    operator: str
    mode: str


class LiveReply(msgspec.Struct, rename="camel"):
    """A live call: who talks with the caller (`agent` or an operator's name), and which operators are there."""

    task_id: str
    phase: str
    talks: str
    operators: list[AtCall]


def routes() -> list[web.RouteDef]:
    base = "/api/v1/openai-realtime/{flow_id}/live/{task_id}"
    return [
        web.get(base, show),
        web.post(base + "/listeners", listen),
        web.delete(base + "/listeners/{listener_id}", leave),
        web.put(base + "/listeners/{listener_id}/mode", set_mode),
        web.post(base + "/whisper", whisper),
        web.post(base + "/transfer", transfer),
    ]


@operation(
    Scope.LISTEN, "Who is at a live call", tag="operators", replies={200: LiveReply}, errors=(404, 409, 503, 504)
)
async def show(request: web.Request) -> web.Response:
    return await _ask(request, host.SHOW, Asked())


@operation(
    Scope.LISTEN,
    "Listen to a live call: SDP offer in, 201 with the answer and the leg's Location out",
    tag="operators",
    body=SDP,
    replies={201: SDP},
    query={"operator": (str, "who listens, for the record; unless told, the name of the key")},
    errors=(400, 404, 409, 413, 429, 503, 504),
)
async def listen(request: web.Request) -> web.Response:
    flow = await known_flow(request, request.match_info["flow_id"])
    task_id = request.match_info["task_id"]
    if request.content_type != SDP:
        raise BadInput(f"send the SDP offer as {SDP}", code="invalid_offer")
    sdp = (await read_body(request, MAX_OFFER_BYTES)).decode("utf-8", "replace")
    if not sdp.lstrip().startswith("v=0"):
        raise BadInput("this is no SDP offer: it must begin with v=0", code="bad_sdp")
    asked = Asked(operator=_operator(request, request.query.get("operator", "")))
    reply = await services(request).signals.at_call(host.LISTEN, flow.id, task_id, sdp=sdp, data=host.encode(asked))
    headers = {hdrs.LOCATION: f"/api/v1/openai-realtime/{flow.id}/live/{task_id}/listeners/{reply.call_id}"}
    return web.Response(text=reply.sdp, status=201, content_type=SDP, headers=headers)


@operation(
    Scope.LISTEN,
    "Stop listening; an operator who talks gives the call back",
    tag="operators",
    replies={204: None},
    errors=(404, 409, 503, 504),
)
async def leave(request: web.Request) -> web.Response:
    await _ask(request, host.LEAVE, Asked())
    return web.Response(status=204)


@operation(
    Scope.OPERATE,
    "Where an operator's voice goes: to nobody, to the agent, or to the caller in the agent's place",
    tag="operators",
    body=ModeBody,
    replies={200: LiveReply},
    errors=(400, 404, 409, 413, 503, 504),
)
async def set_mode(request: web.Request) -> web.Response:
    body = await read_as(request, ModeBody, MAX_BODY)
    return await _ask(request, host.SET_MODE, Asked(mode=body.mode, say=body.say.strip()))


@operation(
    Scope.OPERATE,
    "Tell the agent of a live call something that its caller does not hear",
    tag="operators",
    body=WhisperBody,
    replies={200: LiveReply},
    errors=(400, 404, 409, 413, 503, 504),
)
async def whisper(request: web.Request) -> web.Response:
    body = await read_as(request, WhisperBody, MAX_BODY)
    if not body.text.strip():
        raise BadInput("`text` must not be empty.", faults=[Fault("must not be empty", "/text")])
    asked = Asked(operator=_operator(request, body.operator), text=body.text.strip())
    return await _ask(request, host.WHISPER, asked)


@operation(
    Scope.OPERATE,
    "Transfer a live call to a number, or offer it to another operator",
    tag="operators",
    body=TransferBody,
    replies={200: LiveReply},
    errors=(400, 404, 409, 413, 503, 504),
)
async def transfer(request: web.Request) -> web.Response:
    body = await read_as(request, TransferBody, MAX_BODY)
    if bool(body.number) == bool(body.to_operator):
        what = "name either a number or another operator"
        raise BadInput(f"A transfer must {what}.", faults=[Fault(what, "/number"), Fault(what, "/toOperator")])
    if body.number and not _NUMBER.fullmatch(body.number):
        what = "must be a phone number or a sip: or tel: URI"
        raise BadInput(f"`number` {what}.", faults=[Fault(what, "/number")])
    if body.to_operator and not _NAME.fullmatch(body.to_operator):
        raise BadInput("`toOperator` must be a name.", faults=[Fault("must be a name", "/toOperator")])
    asked = Asked(operator=_operator(request, body.operator), to_number=body.number, to_operator=body.to_operator)
    return await _ask(request, host.TRANSFER, asked)


async def _ask(request: web.Request, kind: str, asked: Asked) -> web.Response:
    flow = await known_flow(request, request.match_info["flow_id"])
    task_id = request.match_info["task_id"]
    reply = await services(request).signals.at_call(
        kind, flow.id, task_id, call_id=request.match_info.get("listener_id", ""), data=host.encode(asked)
    )
    live: LiveCall = host.decode_live(reply.data)
    there = [AtCall(one.id, one.operator, one.mode) for one in live.operators]
    return json_reply(LiveReply(task_id, live.phase, live.talks, there))


def _operator(request: web.Request, named: str) -> str:
    name = named.strip() or request[PRINCIPAL].key_id
    if not _NAME.fullmatch(name):
        raise bad_parameter("operator", "must be a name of at most 80 characters")
    return name
