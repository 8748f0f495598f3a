"""Dialect: OpenAI's Realtime API at `/v1/realtime`, for every client that speaks it. `model` names a flow.

A session is a call of that flow's queue: it takes a line, leaves a record, and operators and webhooks see it.
"""

from __future__ import annotations

import contextlib
import functools
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import hdrs, web

from switchroom.access import Scope
from switchroom.engine import Flow
from switchroom.errors import BadInput, NotFound, SwitchroomError
from switchroom.gateway.enqueue import require_realtime
from switchroom.gateway.operation import operation
from switchroom.gateway.passage import living_process, pass_on
from switchroom.gateway.public import check_page
from switchroom.gateway.realtime_v1_access import Caller, caller_of, make_secret
from switchroom.gateway.reply import json_reply
from switchroom.gateway.services import Services, services, usable_flow
from switchroom.http_problems import problem_of, read_json, request_correlation_id
from switchroom.ids import new_uuid
from switchroom.queue import NewCall
from switchroom.realtime.door import Ticket
from switchroom.realtime.served.opening import SESSION, SIDEBAND, Opening, configured, packed
from switchroom.store import keys

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PROTOCOL = "realtime"
SKILL = "switchroom-realtime"
"""Asked for by a session's call, so that no kiosk takes it between its enqueue and its claim."""
_UNTAKEN_MS = 60_000
"""A session's call that nobody claimed by then is forgotten."""
_CALL_LIFE_S = 2 * 3600
MAX_BODY = 1 << 20
_FLOWS_LOOKED_AT = 1_000


def routes() -> list[web.RouteDef]:
    return [web.get("/v1/realtime", connect), web.post("/v1/realtime/client_secrets", create_secret)]


def as_openai(handler: Handler) -> Handler:
    """Errors as the API's clients read them: problem details with an `error` member beside them."""

    @functools.wraps(handler)
    async def answered(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except SwitchroomError as error:
            return error_reply(request, error)

    return answered


def error_reply(request: web.Request, error: SwitchroomError) -> web.Response:
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    code = {"unauthorized": "invalid_api_key", "flow_not_found": "model_not_found"}.get(error.code, error.code)
    told = {"message": error.detail, "type": kind, "code": code, "param": error.extra.get("param")}
    body = {**problem_of(error, request.path, request_correlation_id(request)), "error": told}
    headers = {} if error.retry_after_s is None else {hdrs.RETRY_AFTER: str(error.retry_after_s)}
    return json_reply(body, status=error.status, headers=headers)


@operation(
    Scope.CALLS,
    "OpenAI's Realtime API over a WebSocket. The key comes in a header, or from a browser as the subprotocol "
    "`openai-insecure-api-key.KEY` beside `realtime`",
    tag="realtime",
    replies={101: None},
    query={
        "model": (str, "The flow, by its ID or its name"),
        "call_id": (str, "A call that runs: a second client of its session, to watch and steer it"),
        "task_id": (str, "A call that waits in the queue, to talk with its caller's form"),
        "intent": (str, "`transcription`: what is said is written down, nothing is answered"),
    },
    errors=(400, 401, 403, 404, 409, 429, 503, 504),
    public_flows=True,
)
@as_openai
async def connect(request: web.Request) -> web.StreamResponse:
    caller = await caller_of(request)
    protocols = (PROTOCOL,) if PROTOCOL in caller.protocols else ()
    if request.headers.get(hdrs.UPGRADE, "").lower() != "websocket":
        raise BadInput("This is a WebSocket: connect with an upgrade, or POST an SDP offer to /v1/realtime/calls.")
    if call_id := request.query.get("call_id"):
        caller.needs_key()
        process = await living_process(request, await carrier(services(request), call_id))
        return await pass_on(request, Ticket(kind=SIDEBAND, call_id=call_id), process=process, protocols=protocols)
    opening = opening_of(request, caller, {})
    flow = await flow_named(request, caller, opening.model)
    data = packed(opening)
    call_id = new_call_id()
    async with queued(request, flow, opening) as task_id:
        process = await services(request).signals.emptiest()
        await remember(services(request), call_id, process.id)
        ticket = Ticket(kind=SESSION, flow_id=flow.id, task_id=task_id, call_id=call_id, data=data)
        return await pass_on(request, ticket, process=process, protocols=protocols)


class ExpiresAfter(msgspec.Struct, frozen=True):
    anchor: str = "created_at"
    seconds: int = 600


class SecretBody(msgspec.Struct, frozen=True):
    """`session` is a session's configuration; its `model` names the flow."""

    expires_after: ExpiresAfter = ExpiresAfter()
    session: dict[str, Any] = {}


class SecretReply(msgspec.Struct, frozen=True):
    """`value` is shown once; `expires_at` is in Unix seconds."""

    value: str
    expires_at: int
    session: dict[str, Any]


@operation(
    Scope.CALLS,
    "A secret for a browser: it opens sessions of one flow, configured beforehand, for ten minutes unless told",
    tag="realtime",
    body=SecretBody,
    replies={200: SecretReply},
    errors=(400, 401, 403, 404, 409, 413),
    public_flows=True,
)
@as_openai
async def create_secret(request: web.Request) -> web.StreamResponse:
    caller = await caller_of(request)
    caller.needs_key()
    try:
        body = msgspec.convert(await read_json(request, MAX_BODY), SecretBody)
    except msgspec.ValidationError as error:
        raise BadInput(f"The body is not understood: {error}.", code="invalid_value") from error
    seconds = body.expires_after.seconds
    if not 10 <= seconds <= 7200:
        param = "expires_after.seconds"
        raise BadInput(f"'{param}' must be 10 to 7200.", code="invalid_value", extra={"param": param})
    opening = opening_of(request, caller, body.session)
    flow = await flow_named(request, caller, opening.model)
    session = configured(opening)
    parts = services(request)
    value, expires_at = await make_secret(parts.store, caller.principal, flow.id, opening.session, seconds)
    return json_reply(SecretReply(value=value, expires_at=expires_at, session=session))


# --- what the other routes share -----------------------------------------------------------------------------------


def opening_of(request: web.Request, caller: Caller, session: dict[str, Any]) -> Opening:
    """How a session is to begin, by what came: the secret's configuration under the request's own. Raises `BadInput`
    where nothing names a flow."""
    secret = caller.secret
    merged = {**(secret.session if secret else {}), **session}
    if request.query.get("intent") == "transcription":
        merged["type"] = "transcription"
    model = secret.model if secret else str(merged.get("model") or request.query.get("model") or "")
    if not model:
        raise BadInput(
            "'model' is required: the flow, by its ID or its name.",
            code="missing_required_parameter",
            extra={"param": "model"},
        )
    return Opening(model=model, session={key: value for key, value in merged.items() if key != "model"})


async def flow_named(request: web.Request, caller: Caller, model: str) -> Flow:
    """The flow that `model` names, by its ID, else by its name. Raises `NotFound`, `Unauthorized`, `Conflict`, and
    `Forbidden` for a page that may not use it."""
    parts = services(request)
    flow_id = model
    if await parts.flows.get(model) is None:
        flows, _ = await parts.flows.list(0, _FLOWS_LOOKED_AT)
        flow_id = next((flow.id for flow in flows if flow.name == model), model)
    flow = await usable_flow(parts, caller.principal, flow_id)
    require_realtime(flow)
    check_page(request, caller.principal, flow)
    return flow


def new_call_id() -> str:
    return f"rtc_{uuid.uuid4().hex}"


@contextlib.asynccontextmanager
async def queued(request: web.Request, flow: Flow, opening: Opening) -> AsyncIterator[str]:
    """The session's place in the queue: its task's ID. One that was made for it is removed when the session does not
    begin. `prompt.variables` of the configuration are the call's form; `?task_id=` names a call that waits already."""
    parts = services(request)
    if task_id := request.query.get("task_id"):
        yield task_id
        return
    prompt = opening.session.get("prompt")
    given = prompt.get("variables") if isinstance(prompt, dict) else None
    form = {str(key): _plain(value) for key, value in given.items()} if isinstance(given, dict) else {}
    call = NewCall(
        form={**form, "ID": str(form.get("ID") or f"realtime-{new_uuid()}")},
        skills=(SKILL,),
        expires_at_ms=int(time.time() * 1000) + _UNTAKEN_MS,
    )
    accepted = await parts.queue.enqueue(flow.id, call, flow.settings)
    try:
        yield accepted.task_id
    except SwitchroomError:
        await parts.queue.remove(flow.id, accepted.task_id)
        raise


async def remember(parts: Services, call_id: str, process_id: str) -> None:
    """Which media process carries a call."""
    await parts.store.call("SET", keys.media_call(call_id), process_id, "EX", _CALL_LIFE_S)


async def carrier(parts: Services, call_id: str) -> str:
    """The media process of a call. Raises `NotFound`."""
    process_id = await parts.store.call("GET", keys.media_call(call_id))
    if process_id is None:
        raise NotFound(f"There is no call {call_id!r}.", code="unknown_call", extra={"param": "call_id"})
    return str(process_id.decode())


def _plain(value: Any) -> Any:
    """A prompt's variable: a string, or an input of the Responses API with one."""
    return value.get("text", "") if isinstance(value, dict) else value
