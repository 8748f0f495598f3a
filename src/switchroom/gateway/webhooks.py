"""Dialect: a flow's webhook endpoints, their secrets, and what became of each message."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from aiohttp import hdrs, web

from switchroom.access import Scope
from switchroom.errors import BadInput, Conflict, Fault
from switchroom.gateway.enqueue_body import url_fault
from switchroom.gateway.operation import operation
from switchroom.gateway.reply import bad_parameter, json_reply, query_int, read_as, rfc3339
from switchroom.gateway.services import known_flow, services
from switchroom.queue import EndReason, State
from switchroom.webhooks import CALLBACK, Attempt, Delivery, Endpoint, MessageType, Outcome

BASE = "/api/v1/openai-realtime/{flow_id}/webhooks"
MAX_PAGE = 200
Url = Annotated[str, msgspec.Meta(pattern="^https?://[^/]", max_length=2_048)]
Description = Annotated[str, msgspec.Meta(max_length=200)]
_T = TypeVar("_T")


class NewEndpoint(msgspec.Struct, forbid_unknown_fields=True):
    """`types` filters (`call.ended`, …); empty or left out means all."""

    url: Url
    types: list[MessageType] = []
    description: Description = ""
    enabled: bool = True


class EndpointChange(msgspec.Struct, forbid_unknown_fields=True):
    """What is left out stays."""

    url: Url | None = None
    types: list[MessageType] | None = None
    description: Description | None = None
    enabled: bool | None = None


class EndpointView(msgspec.Struct, rename="camel", omit_defaults=True):
    """An endpoint. `secret` is in the answer to its making or rotation only. `disabledReason` is `gone` after it
    answered 410. `id` `callback` stands for the flow's callback URLs and has no `url`."""

    id: str
    url: str
    types: list[str]
    description: str
    enabled: bool
    created_at: str | None
    updated_at: str | None
    open_messages: int
    dropped_messages: int
    disabled_reason: str | None = None
    previous_secret_until: str | None = None
    secret: str | None = None


class AttemptView(msgspec.Struct, rename="camel", omit_defaults=True):
    """One try: `status` 0 where no answer came, `error` one word, `answer` the first kilobyte of a refusal."""

    at: str | None
    took_ms: int
    status: int
    error: str | None = None
    answer: str | None = None


class DeliveryView(msgspec.Struct, rename="camel", omit_defaults=True):
    """A message: `state` is `waiting`, `delivered`, `failed` or `cancelled`. `body` is in the answer for one only."""

    id: str
    type: str
    task_id: str
    url: str
    state: Outcome
    created_at: str | None
    attempts: list[AttemptView]
    next_attempt_at: str | None = None
    ended_at: str | None = None
    body: Any = None


class Redelivered(msgspec.Struct):
    """How many messages are sent again."""

    count: int


class CallChange(msgspec.Struct, rename="camel"):
    """A change of a call. `status` is its end reason once it has ended, else the state. `eventId` orders the changes of
    a flow; it is also the ID in its event stream. `outcome` and `result` come with `call.ended`."""

    task_id: str
    flow_id: str
    id: str = msgspec.field(name="ID")
    state: State
    previous_state: State | None
    status: str
    cause: str
    end_reason: EndReason | None
    detail: str | None
    attempt: int
    event_id: str
    enqueued_at: str | None
    outcome: str | None
    result: Any


class WebhookMessage(msgspec.Struct):
    """What an endpoint gets (Standard Webhooks): signed in `webhook-signature`, its ID in `webhook-id`."""

    type: str
    timestamp: str
    data: CallChange


class DeliveryPage(msgspec.Struct, rename="camel"):
    """Newest first."""

    deliveries: list[DeliveryView]
    next_cursor: str | None


def routes() -> list[web.RouteDef]:
    one = BASE + "/{endpoint_id}"
    return [
        web.get(BASE, list_endpoints),
        web.post(BASE, create),
        web.get(one, get),
        web.patch(one, update),
        web.delete(one, delete),
        web.post(f"{one}/rotate", rotate),
        web.get(f"{one}/deliveries", list_deliveries),
        web.post(f"{one}/redeliver-failed", redeliver_failed),
        web.get(f"{one}/deliveries/{{delivery_id}}", get_delivery),
        web.post(f"{one}/deliveries/{{delivery_id}}/redeliver", redeliver),
    ]


@operation(
    Scope.FLOWS_READ,
    "The webhook endpoints of a flow",
    tag="webhooks",
    replies={200: list[EndpointView]},
    errors=(404,),
)
async def list_endpoints(request: web.Request) -> web.Response:
    flow_id = await _flow_id(request)
    found = await services(request).webhooks.endpoints.all(flow_id)
    return json_reply([await _view(request, flow_id, endpoint) for endpoint in found])


@operation(
    Scope.FLOWS_WRITE,
    "Add a webhook endpoint; the answer holds its secret, once",
    tag="webhooks",
    body=NewEndpoint,
    replies={201: EndpointView},
    errors=(400, 404, 409, 413),
)
async def create(request: web.Request) -> web.Response:
    flow_id = await _flow_id(request)
    body = await _body(request, NewEndpoint)
    _check(request, body.url, body.description)
    parts = services(request)
    # The senders look after the flow before its first message can be written.
    await parts.queue.hooked(flow_id)
    endpoint, secret = await parts.webhooks.endpoints.create(
        flow_id, body.url, types=body.types, description=body.description, enabled=body.enabled
    )
    return await _with_secret(request, flow_id, endpoint, secret, status=201)


@operation(Scope.FLOWS_READ, "One webhook endpoint", tag="webhooks", replies={200: EndpointView}, errors=(404,))
async def get(request: web.Request) -> web.Response:
    flow_id = await _flow_id(request)
    endpoint = await services(request).webhooks.endpoints.get(flow_id, request.match_info["endpoint_id"])
    return json_reply(await _view(request, flow_id, endpoint))


@operation(
    Scope.FLOWS_WRITE,
    "Change a webhook endpoint, or switch it off and on; off, its messages on the way are given up",
    tag="webhooks",
    body=EndpointChange,
    replies={200: EndpointView},
    errors=(400, 404, 409, 413),
)
async def update(request: web.Request) -> web.Response:
    flow_id, endpoint_id = await _flow_id(request), request.match_info["endpoint_id"]
    body = await _body(request, EndpointChange)
    if body.url is not None and endpoint_id == CALLBACK:
        what = "each call names its own callbackUrl"
        raise BadInput(f"url: {what}", faults=[Fault(what, "/url")])
    _check(request, body.url, body.description)
    endpoint = await services(request).webhooks.endpoints.update(
        flow_id,
        endpoint_id,
        url=body.url,
        types=body.types,
        description=body.description,
        enabled=body.enabled,
    )
    return json_reply(await _view(request, flow_id, endpoint))


@operation(
    Scope.FLOWS_WRITE,
    "Remove a webhook endpoint; its messages on the way are given up",
    tag="webhooks",
    replies={204: None},
    errors=(404, 409),
)
async def delete(request: web.Request) -> web.Response:
    flow_id = await _flow_id(request)
    await services(request).webhooks.endpoints.delete(flow_id, request.match_info["endpoint_id"])
    return web.Response(status=204)


@operation(
    Scope.FLOWS_WRITE,
    "Make a new secret, shown once; the old one signs along for 24 hours",
    tag="webhooks",
    replies={200: EndpointView},
    errors=(404, 409),
)
async def rotate(request: web.Request) -> web.Response:
    flow_id = await _flow_id(request)
    endpoint, secret = await services(request).webhooks.endpoints.rotate(flow_id, request.match_info["endpoint_id"])
    return await _with_secret(request, flow_id, endpoint, secret, status=200)


@operation(
    Scope.FLOWS_READ,
    "The messages of an endpoint and their tries, newest first",
    tag="webhooks",
    replies={200: DeliveryPage},
    query={
        "limit": (int, "most messages in the answer (50)"),
        "cursor": (str, "`nextCursor` of the page before"),
        "only": (Literal["failed"], "`failed`: those that were given up"),
    },
    errors=(400, 404),
)
async def list_deliveries(request: web.Request) -> web.Response:
    flow_id, endpoint_id = await _flow_id(request), request.match_info["endpoint_id"]
    limit = query_int(request, "limit", 50, lowest=1, highest=MAX_PAGE)
    first = _cursor(request)
    if (only := request.query.get("only")) not in (None, "failed"):
        raise bad_parameter("only", "can be `failed`")
    webhooks = services(request).webhooks
    await webhooks.endpoints.get(flow_id, endpoint_id)
    found = await webhooks.deliveries.newest(
        flow_id, endpoint_id, failed=only is not None, first=first, limit=limit + 1
    )
    page = DeliveryPage(
        deliveries=[_delivery(one) for one in found[:limit]],
        next_cursor=f"d{first + limit}" if len(found) > limit else None,
    )
    return json_reply(page)


@operation(Scope.FLOWS_READ, "One message, with its body", tag="webhooks", replies={200: DeliveryView}, errors=(404,))
async def get_delivery(request: web.Request) -> web.Response:
    flow_id = await _flow_id(request)
    deliveries = services(request).webhooks.deliveries
    found = await deliveries.get(flow_id, request.match_info["endpoint_id"], request.match_info["delivery_id"])
    view = _delivery(found)
    view.body = msgspec.Raw(found.body)
    return json_reply(view)


@operation(
    Scope.FLOWS_WRITE,
    "Send a message again now, under its old ID",
    tag="webhooks",
    replies={202: DeliveryView},
    errors=(404, 409),
)
async def redeliver(request: web.Request) -> web.Response:
    flow_id, endpoint_id = await _flow_id(request), request.match_info["endpoint_id"]
    webhooks = services(request).webhooks
    _switched_on(await webhooks.endpoints.get(flow_id, endpoint_id))
    found = await webhooks.deliveries.redeliver(flow_id, endpoint_id, request.match_info["delivery_id"])
    webhooks.sender.send(flow_id)
    return json_reply(_delivery(found), status=202)


@operation(
    Scope.FLOWS_WRITE,
    "Send all messages again that were given up, as after an outage longer than the retries",
    tag="webhooks",
    replies={202: Redelivered},
    errors=(404, 409),
)
async def redeliver_failed(request: web.Request) -> web.Response:
    flow_id, endpoint_id = await _flow_id(request), request.match_info["endpoint_id"]
    webhooks = services(request).webhooks
    _switched_on(await webhooks.endpoints.get(flow_id, endpoint_id))
    count = await webhooks.deliveries.redeliver_failed(flow_id, endpoint_id)
    webhooks.sender.send(flow_id)
    return json_reply(Redelivered(count), status=202)


def _switched_on(endpoint: Endpoint) -> None:
    if not endpoint.enabled:
        raise Conflict("This endpoint is switched off: switch it on first.", code="endpoint_disabled")


async def _flow_id(request: web.Request) -> str:
    flow = await known_flow(request, request.match_info["flow_id"])
    if flow.kind != "realtime":
        raise Conflict(f"The flow {flow.id!r} is not a realtime flow: it has no queue.", code="not_realtime")
    return flow.id


async def _body(request: web.Request, kind: type[_T]) -> _T:
    return await read_as(request, kind, services(request).max_body_bytes)


def _check(request: web.Request, url: str | None, description: str | None) -> None:
    faults: list[Fault] = []
    if url is not None and (fault := url_fault(url, services(request).guard)):
        faults.append(Fault(fault, "/url"))
    if description is not None and not description.isprintable():
        faults.append(Fault("must be printable characters", "/description"))
    if faults:
        raise BadInput("; ".join(f"{fault.pointer} {fault.detail}" for fault in faults), faults=faults)


def _cursor(request: web.Request) -> int:
    text = request.query.get("cursor")
    if not text:
        return 0
    if not (text.startswith("d") and text[1:].isascii() and text[1:].isdigit() and len(text) < 12):
        raise bad_parameter("cursor", "is not one that this log gave out")
    return int(text[1:])


async def _view(request: web.Request, flow_id: str, endpoint: Endpoint) -> EndpointView:
    counts = await services(request).webhooks.deliveries.counts(flow_id, endpoint.id)
    return EndpointView(
        id=endpoint.id,
        url=endpoint.url,
        types=list(endpoint.types),
        description=endpoint.description,
        enabled=endpoint.enabled,
        created_at=rfc3339(endpoint.created_ms),
        updated_at=rfc3339(endpoint.updated_ms),
        open_messages=counts.open,
        dropped_messages=counts.dropped,
        disabled_reason=endpoint.disabled_reason or None,
        previous_secret_until=rfc3339(max(secret.until_ms for secret in endpoint.secrets)),
    )


async def _with_secret(
    request: web.Request, flow_id: str, endpoint: Endpoint, secret: str, *, status: int
) -> web.Response:
    view = await _view(request, flow_id, endpoint)
    view.secret = secret
    return json_reply(view, status=status, headers={hdrs.CACHE_CONTROL: "no-store"})


def _delivery(delivery: Delivery) -> DeliveryView:
    return DeliveryView(
        id=delivery.id,
        type=delivery.type,
        task_id=delivery.task_id,
        url=delivery.url,
        state=delivery.outcome,
        created_at=rfc3339(delivery.created_ms),
        attempts=[_attempt(one) for one in delivery.attempts],
        next_attempt_at=rfc3339(delivery.next_at_ms),
        ended_at=rfc3339(delivery.ended_ms),
    )


def _attempt(attempt: Attempt) -> AttemptView:
    return AttemptView(
        at=rfc3339(attempt.at_ms),
        took_ms=attempt.took_ms,
        status=attempt.status,
        error=attempt.error or None,
        answer=attempt.answer or None,
    )
