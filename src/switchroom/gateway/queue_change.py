"""The queue's dialect: a call that waits gets another priority, another time, another end of its patience."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from switchroom.access import Scope
from switchroom.errors import BadInput, Fault
from switchroom.gateway.enqueue import require_realtime, seconds
from switchroom.gateway.enqueue_body import MAX_PRIORITY, moment, refuse_faults
from switchroom.gateway.operation import operation
from switchroom.gateway.queue import BASE
from switchroom.gateway.reply import json_reply, read_as
from switchroom.gateway.services import known_flow, services

_Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})] | UnsetType | None


class ChangeBody(msgspec.Struct, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """What is left out stays. `notBefore` null: it may be offered now; `expiresAt` null: it waits for ever. Times are
    RFC 3339 with an offset."""

    task_id: str
    priority: Annotated[int, Meta(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] | UnsetType = UNSET
    not_before: _Time = UNSET
    expires_at: _Time = UNSET


class ChangeReply(msgspec.Struct, rename="camel", omit_defaults=True):
    """`position` and `estimatedWaitSeconds` where it waits in line now."""

    task_id: str
    state: str
    position: int | None = None
    estimated_wait_seconds: int | None = None
    overtaken: bool = False


def routes() -> list[web.RouteDef]:
    return [web.post(f"{BASE}/change", change)]


@operation(
    Scope.QUEUE_WRITE,
    "Give a waiting call another priority, another time, or another expiry; it keeps its order of arrival",
    tag="queue",
    body=ChangeBody,
    replies={200: ChangeReply},
    errors=(400, 404, 409, 413),
)
async def change(request: web.Request) -> web.Response:
    parts = services(request)
    flow = await known_flow(request, request.match_info["flow_id"])
    require_realtime(flow)
    body = await read_as(request, ChangeBody, parts.max_body_bytes)
    faults: list[Fault] = []
    not_before = _moment(body.not_before, "/notBefore", faults)
    expires_at = _moment(body.expires_at, "/expiresAt", faults)
    if not_before and expires_at and expires_at <= not_before:
        faults.append(Fault("must be later than notBefore", "/expiresAt"))
    refuse_faults(faults)
    told = {
        "priority": None if body.priority is UNSET else str(body.priority),
        "notBefore": None if body.not_before is UNSET else body.not_before or "now",
        "expiresAt": None if body.expires_at is UNSET else body.expires_at or "never",
    }
    words = [f"{name} {value}" for name, value in told.items() if value is not None]
    if not words:
        raise BadInput(
            "nothing to change: give priority, notBefore or expiresAt", faults=[Fault("changes nothing", "")]
        )
    done = await parts.queue.change(
        flow.id,
        body.task_id,
        priority=None if body.priority is UNSET else body.priority,
        not_before_ms=not_before,
        expires_at_ms=expires_at,
        detail=", ".join(words),
    )
    waits = done.position > 0
    return json_reply(
        ChangeReply(
            task_id=body.task_id,
            state=done.state,
            position=done.position if waits else None,
            estimated_wait_seconds=seconds(done.estimate_ms) if waits else None,
            overtaken=done.overtaken,
        )
    )


def _moment(given: str | UnsetType | None, pointer: str, faults: list[Fault]) -> int | None:
    """None where nothing is given, 0 for null."""
    if given is UNSET:
        return None
    return 0 if given is None else moment(given, pointer, faults)
