"""The queue's dialect: who is there to take a flow's calls."""

from __future__ import annotations

import msgspec
from aiohttp import web

from switchroom.access import Scope
from switchroom.gateway.enqueue import require_realtime
from switchroom.gateway.operation import operation
from switchroom.gateway.queue import BASE
from switchroom.gateway.reply import json_reply, rfc3339
from switchroom.gateway.services import known_flow, services
from switchroom.queue import Row


class WaitingHolder(msgspec.Struct, rename="camel"):
    """Waits for a call. `skills` `@cc`: calls with a `ccBaseUrl`, which our own dispatcher offers there."""

    holder: str
    skills: tuple[str, ...]
    idle_since: str | None


class RestingHolder(msgspec.Struct):
    """Wraps up after a call, until then."""

    holder: str
    until: str | None


class HeldCall(msgspec.Struct, rename="camel"):
    task_id: str
    caller_id: str = msgspec.field(name="ID")
    state: str
    attempt: int
    started_at: str | None


class BusyHolder(msgspec.Struct):
    holder: str
    calls: list[HeldCall]


class HoldersReply(msgspec.Struct):
    """Longest idle first: the order in which they are asked. A kiosk on a break is in none of the lists."""

    waiting: list[WaitingHolder]
    resting: list[RestingHolder]
    holding: list[BusyHolder]


def routes() -> list[web.RouteDef]:
    return [web.get(f"{BASE}/holders", holders)]


@operation(
    Scope.QUEUE_READ,
    "Who waits for a call of the flow, who rests after one, and who holds which",
    tag="queue",
    replies={200: HoldersReply},
    errors=(404, 409),
)
async def holders(request: web.Request) -> web.Response:
    flow = await known_flow(request, request.match_info["flow_id"])
    require_realtime(flow)
    found = await services(request).queue.holders(flow.id)
    busy: dict[str, list[HeldCall]] = {}
    for row in found.held:
        busy.setdefault(row.owner, []).append(_held(row))
    return json_reply(
        HoldersReply(
            waiting=[WaitingHolder(one.owner, one.skills, rfc3339(one.since_ms)) for one in found.waiting],
            resting=[RestingHolder(owner, rfc3339(until)) for owner, until in sorted(found.resting.items())],
            holding=[BusyHolder(owner, calls) for owner, calls in sorted(busy.items())],
        )
    )


def _held(row: Row) -> HeldCall:
    return HeldCall(row.task_id, row.caller_id, row.state, row.attempt, rfc3339(row.started_at_ms))
