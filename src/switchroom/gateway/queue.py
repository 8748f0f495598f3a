"""Dialect: the realtime queue at `/api/v1/openai-realtime/{flowId}/queue/…`."""

from __future__ import annotations

import asyncio
import hashlib
import re
from typing import Any

import msgspec
from aiohttp import hdrs, web

from switchroom.access import Scope
from switchroom.engine import Flow
from switchroom.errors import BadInput, Fault
from switchroom.gateway import enqueue_body
from switchroom.gateway.completing import close_unity, complete_held
from switchroom.gateway.enqueue import EnqueueReply, accept, require_realtime, seconds
from switchroom.gateway.operation import IF_NONE_MATCH, operation
from switchroom.gateway.queue_figures import figures_body
from switchroom.gateway.reply import bad_parameter, json_reply, not_modified, query_int, rfc3339
from switchroom.gateway.services import PRINCIPAL, known_flow, services
from switchroom.http_problems import read_body, read_json
from switchroom.queue import MAX_TOKEN, Detail, State, Status, Token

BASE = "/api/v1/openai-realtime/{flow_id}/queue"
MAX_WAIT_S = 60
MAX_PAGE = 1_000
_SHARED = ("enabled", "open", "opensAt", "pendingCount", "activeCount", "scheduledCount", "concurrency")


class TaskBody(msgspec.Struct, rename="camel"):
    """Names a call."""

    task_id: str


class CompleteBody(msgspec.Struct, rename="camel", omit_defaults=True):
    """Without `taskId` it is the only live call. `outcome` is a word of yours, `result` any JSON. A holder that was
    offered the call gives its `token`: a late word of one that lost it is refused."""

    task_id: str | None = None
    token: Token | None = None
    outcome: str = ""
    result: Any = None


class CancelBody(msgspec.Struct, rename="camel", omit_defaults=True):
    """The reason `caller_hung_up` says that the caller left: a call that was not answered is then abandoned."""

    task_id: str
    reason: str = ""


class ToggleBody(msgspec.Struct, omit_defaults=True):
    """Without `enabled` the switch flips."""

    enabled: bool | None = None


class VerbReply(msgspec.Struct, rename="camel", omit_defaults=True):
    """`state` is where the call is; `status` is its end reason once it has ended, else the state."""

    task_id: str
    state: str
    status: str
    end_reason: str | None = None


def routes() -> list[web.RouteDef]:
    return [
        web.post(f"{BASE}/enqueue", enqueue),
        web.get(f"{BASE}/status", status),
        web.post(f"{BASE}/toggle", toggle),
        web.post(f"{BASE}/complete", complete),
        web.post(f"{BASE}/cancel", cancel),
        web.post(f"{BASE}/clear", clear),
        web.post(f"{BASE}/remove", remove),
    ]


@operation(
    Scope.QUEUE_WRITE,
    "Put a call in a flow's queue",
    tag="queue",
    body=enqueue_body.EnqueueBody,
    headers=enqueue_body.IDEMPOTENCY_KEY,
    replies={202: EnqueueReply},
    errors=(400, 404, 409, 413, 422, 429),
)
async def enqueue(request: web.Request) -> web.Response:
    parts = services(request)
    body = await read_json(request, parts.max_body_bytes)
    key = request.headers.get("Idempotency-Key")
    return json_reply(await accept(parts, request[PRINCIPAL], request.match_info["flow_id"], body, key), status=202)


@operation(
    Scope.QUEUE_READ,
    "The queue of a flow, or one of its calls with its history",
    tag="queue",
    replies={200: dict[str, Any], 304: None},
    query={
        "taskId": (str, "only this call, ended ones included"),
        "limit": (int, "most waiting calls in the answer (100)"),
        "cursor": (str, "`nextCursor` of the page before"),
        "wait": (int, "hold the answer up to so many seconds until something changes (of one call: at that call)"),
    },
    headers=IF_NONE_MATCH,
    errors=(400, 404),
)
async def status(request: web.Request) -> web.Response:
    flow = await known_flow(request, request.match_info["flow_id"])
    wait_s = query_int(request, "wait", 0, lowest=0, highest=MAX_WAIT_S)
    limit = query_int(request, "limit", 100, lowest=1, highest=MAX_PAGE)
    after = _cursor(request)
    task_id = request.query.get("taskId")
    parts = services(request)
    deadline = asyncio.get_running_loop().time() + wait_s
    seen: str | None = None
    while True:
        queue = await parts.queue.status(flow.id, after=after, limit=limit)
        body = _status(queue)
        if task_id is not None:
            detail = await parts.queue.detail(flow.id, task_id)
            body = _one_task(body, detail, await parts.executions.attempt_ids(flow.id, task_id))
        packed = msgspec.json.encode(body)
        etag = _entity_tag(packed)
        if task_id is not None:
            # Who waits for one call is not woken by what the others do: a weak tag, of the call alone.
            own = {name: value for name, value in body.items() if name not in _SHARED}
            etag = f"W/{_entity_tag(msgspec.json.encode(own))}"
        left_s = deadline - asyncio.get_running_loop().time()
        known = not_modified(request, etag)
        # Whoever sent an entity tag waits for another state than that one; else for another than the one now.
        unchanged = known if hdrs.IF_NONE_MATCH in request.headers else seen in (None, etag)
        if not unchanged or left_s <= 0 or wait_s == 0:
            break
        seen = etag
        await parts.feed.wait(flow.id, queue.last_event, left_s)
    headers = {hdrs.ETAG: etag, hdrs.CACHE_CONTROL: "no-cache"}
    if known:
        return web.Response(status=304, headers=headers)
    return web.Response(body=packed, content_type="application/json", headers=headers)


@operation(
    Scope.QUEUE_WRITE,
    "Pause or open the queue; a paused one still accepts calls",
    tag="queue",
    body=ToggleBody,
    replies={200: dict[str, bool]},
    errors=(400, 404, 409),
)
async def toggle(request: web.Request) -> web.Response:
    flow = await _realtime_flow(request)
    body = await _verb_body(request)
    enabled = body.get("enabled")
    if enabled is not None and not isinstance(enabled, bool):
        raise BadInput("enabled must be true or false", faults=[Fault("must be true or false", "/enabled")])
    return json_reply({"enabled": await services(request).queue.toggle(flow.id, enabled)})


@operation(
    Scope.QUEUE_WRITE,
    "End a live call as completed",
    tag="queue",
    body=CompleteBody,
    replies={200: VerbReply},
    errors=(400, 404, 409),
)
async def complete(request: web.Request) -> web.Response:
    flow = await _realtime_flow(request)
    body = await _verb_body(request)
    task_id = _task_id(body) if body.get("taskId") is not None else None
    outcome = _word(body, "outcome", 64)
    token, result, parts = body.get("token"), body.get("result"), services(request)
    if token is not None:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 < token <= MAX_TOKEN or task_id is None:
            what = "must be the whole number of the offer, beside a taskId"
            raise BadInput(f"token {what}", faults=[Fault(what, "/token")])
        return _verb_reply(await complete_held(parts, flow.id, task_id, token, outcome, result))
    ended = await parts.queue.complete(flow.id, task_id, outcome=outcome, result=result)
    return _verb_reply(await close_unity(parts, flow.id, ended))


@operation(
    Scope.QUEUE_WRITE,
    "End a waiting or live call as cancelled",
    tag="queue",
    body=CancelBody,
    replies={200: VerbReply},
    errors=(400, 404, 409),
)
async def cancel(request: web.Request) -> web.Response:
    flow = await _realtime_flow(request)
    body = await _verb_body(request)
    parts = services(request)
    ended = await parts.queue.cancel(flow.id, _task_id(body), _word(body, "reason", 500))
    return _verb_reply(await close_unity(parts, flow.id, ended))


@operation(
    Scope.QUEUE_WRITE,
    "Drop a call that waits",
    tag="queue",
    body=TaskBody,
    replies={200: VerbReply},
    errors=(400, 404, 409),
)
async def remove(request: web.Request) -> web.Response:
    flow = await _realtime_flow(request)
    body = await _verb_body(request)
    return _verb_reply(await services(request).queue.remove(flow.id, _task_id(body)))


@operation(
    Scope.QUEUE_WRITE, "Drop every pending call", tag="queue", replies={200: dict[str, int]}, errors=(400, 404, 409)
)
async def clear(request: web.Request) -> web.Response:
    flow = await _realtime_flow(request)
    await _verb_body(request)
    return json_reply({"removed": await services(request).queue.clear(flow.id)})


def _entity_tag(packed: bytes) -> str:
    return f'"{hashlib.sha256(packed).hexdigest()[:32]}"'


async def _realtime_flow(request: web.Request) -> Flow:
    flow = await known_flow(request, request.match_info["flow_id"])
    require_realtime(flow)
    return flow


async def _verb_body(request: web.Request) -> dict[str, Any]:
    """The body of a verb: a JSON object, or nothing at all."""
    raw = await read_body(request, services(request).max_body_bytes)
    if not raw.strip():
        return {}
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(
            f"The body is not JSON: {error}.", code="invalid_json", faults=[Fault(str(error), "")]
        ) from error
    if not isinstance(body, dict):
        raise BadInput("the body must be a JSON object", faults=[Fault("must be an object", "")])
    return body


def _task_id(body: dict[str, Any]) -> str:
    task_id = body.get("taskId")
    if not isinstance(task_id, str) or not task_id.strip():
        raise BadInput("taskId is required: a string", faults=[Fault("is required: a string", "/taskId")])
    return task_id


def _word(body: dict[str, Any], name: str, longest: int) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > longest:
        what = f"must be a string of at most {longest} characters"
        raise BadInput(f"{name} {what}", faults=[Fault(what, f"/{name}")])
    return value


def _verb_reply(ended: tuple[str, State, str]) -> web.Response:
    task_id, state, reason = ended
    status = reason if state is State.ENDED else state.value
    return json_reply(VerbReply(task_id=task_id, state=state, status=status, end_reason=reason or None))


def _cursor(request: web.Request) -> str:
    """After which waiting call a page begins; the cursor is opaque to clients."""
    text = request.query.get("cursor")
    if not text:
        return ""
    if not re.fullmatch(r"p-?[0-9]{1,17}", text, re.ASCII):
        raise bad_parameter("cursor", "is not one that this queue gave out")
    return text[1:]


def _status(queue: Status) -> dict[str, Any]:
    return {
        "enabled": queue.enabled,
        "open": queue.open,
        "opensAt": rfc3339(queue.opens_at_ms),
        "pendingCount": queue.pending_count,
        "activeCount": sum(row.state is not State.WRAPUP for row in queue.active),
        "scheduledCount": queue.scheduled_count,
        "deadCount": queue.dead_count,
        "concurrency": queue.lines,
        "active": [
            {
                "taskId": row.task_id,
                "ID": row.caller_id,
                "state": row.state,
                "startedAt": rfc3339(row.started_at_ms),
                "attempt": row.attempt,
            }
            for row in queue.active
        ],
        "pending": [
            {
                "taskId": row.task_id,
                "ID": row.caller_id,
                "position": row.position,
                "overtaken": row.overtaken,
                "enqueuedAt": rfc3339(row.enqueued_at_ms),
                "estimatedWaitSeconds": seconds(row.estimate_ms),
            }
            for row in queue.pending
        ],
        "nextCursor": f"p{queue.next_after}" if queue.next_after else None,
        "stats": figures_body(queue.stats, queue.service_level_ms),
    }


def _one_task(queue: dict[str, Any], detail: Detail, executions: list[str]) -> dict[str, Any]:
    call = detail.call
    waits = detail.position > 0
    return {
        "taskId": call.task_id,
        "flowId": call.flow_id,
        "ID": call.caller_id,
        "state": call.state,
        "status": call.end_reason or call.state if call.state is State.ENDED else call.state,
        "endReason": call.end_reason,
        "detail": call.detail or None,
        "outcome": call.outcome or None,
        "result": call.result,
        "form": call.form,
        "sessionState": call.memory,
        "priority": call.priority,
        "attempt": call.attempt,
        "maxAttempts": call.max_attempts,
        "skills": call.skills,
        "requeuedFrom": call.requeued_from or None,
        "requeuedAs": call.requeued_as or None,
        "position": detail.position if waits else None,
        "overtaken": detail.overtaken,
        "estimatedWaitSeconds": seconds(detail.estimate_ms) if waits else None,
        "enqueuedAt": rfc3339(call.enqueued_at_ms),
        "notBefore": rfc3339(call.not_before_ms),
        "expiresAt": rfc3339(call.expires_at_ms),
        "waitingSince": rfc3339(call.waiting_since_ms),
        "offeredAt": rfc3339(call.offered_at_ms),
        "startedAt": rfc3339(call.live_at_ms),
        "wrapupAt": rfc3339(call.wrapup_at_ms),
        "endedAt": rfc3339(call.ended_at_ms),
        "executionIds": executions,
        "history": [
            {
                "at": rfc3339(change.at_ms),
                "state": change.state,
                "cause": change.cause,
                "attempt": change.attempt,
                "holder": change.owner or None,
                "endReason": change.reason or None,
                "detail": change.detail or None,
            }
            for change in detail.history
        ],
        **{name: queue[name] for name in _SHARED},
        "active": [row for row in queue["active"] if row["taskId"] == call.task_id],
        "pending": [
            {
                "taskId": call.task_id,
                "ID": call.caller_id,
                "position": detail.position,
                "overtaken": detail.overtaken,
                "enqueuedAt": rfc3339(call.enqueued_at_ms),
                "estimatedWaitSeconds": seconds(detail.estimate_ms),
            }
        ]
        if waits
        else [],
    }
