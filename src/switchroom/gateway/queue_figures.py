"""The queue's past over HTTP: statistics by window and by day, dead letters and their return."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
from aiohttp import web

from switchroom.access import Scope
from switchroom.errors import BadInput, Fault
from switchroom.gateway.enqueue import require_realtime
from switchroom.gateway.operation import operation
from switchroom.gateway.reply import bad_parameter, json_reply, query_int, rfc3339
from switchroom.gateway.services import known_flow, services
from switchroom.http_problems import read_json
from switchroom.queue import Call, Figures

BASE = "/api/v1/openai-realtime/{flow_id}/queue"
MAX_DAYS = 400
MAX_WINDOW_MINUTES = 120


class RequeueBody(msgspec.Struct, rename="camel"):
    """Names a dead letter."""

    task_id: str


class RequeueReply(msgspec.Struct, rename="camel"):
    """`taskId` is the new call, `requeuedFrom` the dead letter that it is the return of."""

    accepted: bool
    task_id: str
    requeued_from: str
    state: str


def routes() -> list[web.RouteDef]:
    return [
        web.get(f"{BASE}/stats", stats),
        web.get(f"{BASE}/dead", dead),
        web.post(f"{BASE}/dead/requeue", requeue),
    ]


def figures_body(figures: Figures, service_level_ms: int) -> dict[str, Any]:
    """Statistics as the queue's answers show them."""
    return {
        "answered": figures.answered,
        "abandoned": figures.abandoned,
        "shortAbandoned": figures.short_abandoned,
        "failed": figures.failed,
        "ended": figures.ended,
        "serviceLevel": {"thresholdSeconds": service_level_ms // 1000, "ratio": round(figures.service_level, 4)},
        "averageHandleSeconds": round((figures.average_handle_ms or 0) / 1000, 1),
        "averageWaitSeconds": round((figures.average_wait_ms or 0) / 1000, 1),
        "longestWaitSeconds": round(figures.longest_ms / 1000),
    }


@operation(
    Scope.QUEUE_READ,
    "Statistics of a flow's queue: of the last minutes, by day, and ever",
    tag="queue",
    replies={200: dict[str, Any]},
    query={
        "from": (str, "first day, such as 2026-11-01, in the flow's own time zone (today)"),
        "to": (str, "last day (today)"),
        "window": (int, "minutes of the window (15)"),
    },
    errors=(400, 404, 409),
)
async def stats(request: web.Request) -> web.Response:
    flow = await known_flow(request, request.match_info["flow_id"])
    require_realtime(flow)
    minutes = query_int(request, "window", 15, lowest=1, highest=MAX_WINDOW_MINUTES)
    # A day of the flow's own time may have begun already, or not ended yet, where it is today in UTC.
    today = datetime.now(UTC).date()
    given = _day(request, "from"), _day(request, "to")
    first = given[0] or min(today, given[1] or today) - timedelta(days=0 if given[1] else 1)
    last = given[1] or max(today, first) + timedelta(days=1)
    if first > last:
        raise bad_parameter("from", "must not be later than `to`")
    if (last - first).days > MAX_DAYS:
        raise bad_parameter("from", f"must be within {MAX_DAYS} days of `to`")
    found = await services(request).queue.statistics(flow.id, first=first, last=last, window_minutes=minutes)
    level = found.service_level_ms
    return json_reply(
        {
            "now": rfc3339(found.now_ms),
            "longestWaitingSeconds": round(found.longest_waiting_ms / 1000),
            "window": {"minutes": minutes, **figures_body(found.window, level)},
            "days": [{"day": day, **figures_body(figures, level)} for day, figures in found.days.items()],
            "ever": figures_body(found.ever, level),
        }
    )


@operation(
    Scope.QUEUE_READ,
    "Calls whose last attempt failed, newest first",
    tag="queue",
    replies={200: dict[str, Any]},
    query={"page": (int, "page, from 1"), "limit": (int, "calls a page (50)")},
    errors=(400, 404, 409),
)
async def dead(request: web.Request) -> web.Response:
    flow = await known_flow(request, request.match_info["flow_id"])
    require_realtime(flow)
    page = query_int(request, "page", 1, lowest=1, highest=1_000_000)
    limit = query_int(request, "limit", 50, lowest=1, highest=1_000)
    calls, total = await services(request).queue.dead_letters(flow.id, first=(page - 1) * limit, limit=limit)
    return json_reply({"data": [_dead_letter(call) for call in calls], "total": total})


@operation(
    Scope.QUEUE_WRITE,
    "Bring a dead letter back, as a new call in its old place",
    tag="queue",
    body=RequeueBody,
    replies={202: RequeueReply},
    errors=(400, 404, 409, 413),
)
async def requeue(request: web.Request) -> web.Response:
    parts = services(request)
    flow = await known_flow(request, request.match_info["flow_id"])
    require_realtime(flow)
    body = await read_json(request, parts.max_body_bytes)
    task_id = body.get("taskId") if isinstance(body, dict) else None
    if not isinstance(task_id, str) or not task_id.strip():
        raise BadInput("taskId is required: a string", faults=[Fault("is required: a string", "/taskId")])
    new, state = await parts.queue.requeue(flow.id, task_id, duplicates=flow.settings.duplicates)
    return json_reply(RequeueReply(accepted=True, task_id=new, requeued_from=task_id, state=state), status=202)


def _dead_letter(call: Call) -> dict[str, Any]:
    return {
        "taskId": call.task_id,
        "ID": call.caller_id,
        "endReason": call.end_reason,
        "detail": call.detail or None,
        "attempts": call.attempt,
        "maxAttempts": call.max_attempts,
        "enqueuedAt": rfc3339(call.enqueued_at_ms),
        "endedAt": rfc3339(call.ended_at_ms),
        "form": call.form,
    }


def _day(request: web.Request, name: str) -> date | None:
    text = request.query.get(name)
    if not text:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = date.min
    if len(text) != 10 or not 2000 <= day.year <= 9000:
        raise bad_parameter(name, "must be a day, such as 2026-11-21")
    return day
