"""Dialect: what a Unity client says over HTTP of a call it was offered: `…/queue/accept`, `refuse`, `ping`, and how it
completes one. Each names the call and the token of the offer; a late word of a lost hold is a conflict that says what
became of the call."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from aiohttp import web

from switchroom.access import Scope
from switchroom.errors import BadInput
from switchroom.gateway.completing import outside_hold
from switchroom.gateway.operation import operation
from switchroom.gateway.queue import BASE
from switchroom.gateway.reply import as_shape, json_reply
from switchroom.gateway.services import known_flow, services
from switchroom.http_problems import read_json
from switchroom.queue import Held, State, Token


class HoldBody(msgspec.Struct, rename="camel"):
    """A call, and the token of the offer that is meant."""

    task_id: str
    token: Token


class RefuseBody(HoldBody, rename="camel", omit_defaults=True):
    """`reason` is a few words of yours."""

    reason: str = ""


class HoldReply(msgspec.Struct, rename="camel"):
    """`leaseSeconds`: without another ping by then the call is taken back."""

    task_id: str
    state: str
    lease_seconds: int


_B = TypeVar("_B", bound=HoldBody)


def routes() -> list[web.RouteDef]:
    return [
        web.post(f"{BASE}/accept", accept),
        web.post(f"{BASE}/refuse", refuse),
        web.post(f"{BASE}/ping", ping),
    ]


@operation(
    Scope.CALLS,
    "Take an offered call: it is live from now on",
    tag="queue",
    body=HoldBody,
    replies={200: HoldReply},
    errors=(400, 404, 409),
)
async def accept(request: web.Request) -> web.Response:
    parts = services(request)
    held = await _hold(request, await _body(request, HoldBody))
    await parts.queue.answer(held)
    return _reply(held, State.LIVE)


@operation(
    Scope.CALLS,
    "Do not take an offered call: it keeps its place and is offered again after a while",
    tag="queue",
    body=RefuseBody,
    replies={200: HoldReply},
    errors=(400, 404, 409),
)
async def refuse(request: web.Request) -> web.Response:
    body = await _body(request, RefuseBody)
    held = await _hold(request, body)
    await services(request).queue.refuse(held, body.reason[:200])
    return _reply(held, State.PENDING)


@operation(
    Scope.CALLS,
    "The caller is still there: every 5 s while a call is live",
    tag="queue",
    body=HoldBody,
    replies={200: HoldReply},
    errors=(400, 404, 409),
)
async def ping(request: web.Request) -> web.Response:
    """The first ping of an offered call takes it, in case the answer to the offer was lost on its way to us."""
    parts = services(request)
    held = await _hold(request, await _body(request, HoldBody))
    if held.call.state is State.OFFERED:
        await parts.queue.answer(held)
    else:
        await parts.queue.heartbeat(held)
    return _reply(held, State.LIVE)


async def _hold(request: web.Request, body: HoldBody) -> Held:
    flow = await known_flow(request, request.match_info["flow_id"])
    return await outside_hold(services(request), flow.id, body.task_id, body.token)


async def _body(request: web.Request, kind: type[_B]) -> _B:
    body = await read_json(request, services(request).max_body_bytes)
    if not isinstance(body, dict):
        raise BadInput("the body must be a JSON object")
    return as_shape(body, kind)


def _reply(held: Held, state: State) -> web.Response:
    return json_reply(HoldReply(task_id=held.task_id, state=state, lease_seconds=held.lease_ms // 1000))
