"""Dialect: live changes of a flow's calls as server-sent events at `/api/v1/openai-realtime/{flowId}/queue/events`."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from functools import lru_cache

import msgspec
from aiohttp import web

from switchroom.access import Scope
from switchroom.gateway.lingering import lingering
from switchroom.gateway.operation import operation
from switchroom.gateway.queue import BASE
from switchroom.gateway.reply import bad_parameter, begin_events, rfc3339
from switchroom.gateway.services import known_flow, services
from switchroom.queue import QueueEvent

log = logging.getLogger(__name__)

HEARTBEAT_S = 15.0
RETRY_MS = 2_000
WRITE_TIMEOUT_S = 30.0
"""A client that takes nothing for so long is left; it comes back with its last event ID."""
PAGE = 200
_LAST_EVENT_ID = "Last-Event-ID"
_EVENT_ID = re.compile(r"[0-9]{1,19}(-[0-9]{1,19})?", re.ASCII)


class CallChange(msgspec.Struct, rename="camel", omit_defaults=True):
    """The data of an event `call.<state>`: a call came to `state` because of `cause`."""

    task_id: str
    flow_id: str
    caller_id: str = msgspec.field(name="ID")
    state: str
    status: str
    previous: str | None
    attempt: int
    cause: str
    at: str | None
    holder: str | None = None
    end_reason: str | None = None
    detail: str | None = None


class Reset(msgspec.Struct):
    """The data of an event `reset`: changes after `after` are not kept any more. Read the status; what follows is
    complete again."""

    after: str
    reason: str = "behind_retention"


def routes() -> list[web.RouteDef]:
    return [web.get(f"{BASE}/events", events)]


@operation(
    Scope.QUEUE_READ,
    "Live changes of a flow's calls as server-sent events",
    tag="queue",
    replies={200: "text/event-stream"},
    query={
        "taskId": (str, "only this call"),
        "lastEventId": (str, "go on after this event, like the header Last-Event-ID; `0` begins with what is kept"),
    },
    errors=(400, 404),
)
async def events(request: web.Request) -> web.StreamResponse:
    """`event: call.<state>` with a `CallChange`; `event: reset` where a client was away for longer than changes are
    kept. Without an event ID to go on after, the stream begins with what changes next."""
    flow = await known_flow(request, request.match_info["flow_id"])
    feed = services(request).feed
    task_id = request.query.get("taskId")
    after = request.headers.get(_LAST_EVENT_ID) or request.query.get("lastEventId")
    if after is not None and not _EVENT_ID.fullmatch(after):
        raise bad_parameter("lastEventId", "is not an event ID of this stream")
    newest, lost = await feed.position(flow.id, after or "0-0")
    reply = await begin_events(request)
    begin = b"retry: %d\n\n" % RETRY_MS
    if after is None:
        # An ID alone is no event, but a client that reconnects before the first one names it.
        after = newest
        begin += b"id: %s\n\n" % newest.encode()
    with lingering(request):
        try:
            await _write(reply, begin)
            written = time.monotonic()
            while True:
                if lost and after.strip("0-"):
                    await _write(reply, _frame(newest, "reset", Reset(after=after)))
                    after = newest
                changes = await feed.changes(flow.id, after, timeout_s=HEARTBEAT_S, limit=PAGE)
                if changes:
                    after = changes[-1].id
                out = b"".join(_change(change) for change in changes if task_id in (None, change.task_id))
                if out or time.monotonic() - written >= HEARTBEAT_S:
                    await _write(reply, out or b":heartbeat\n\n")
                    written = time.monotonic()
                # Only a client that takes less than happens can fall out of what is kept.
                newest, lost = await feed.position(flow.id, after) if len(changes) == PAGE else (after, False)
        except (ConnectionError, TimeoutError) as error:
            log.info("a reader of queue events left", extra={"flow_id": flow.id, "cause": type(error).__name__})
            raise ConnectionResetError from error


@lru_cache(maxsize=2_048)
def _change(event: QueueEvent) -> bytes:
    """An event's frame, made once however many clients read it."""
    data = CallChange(
        task_id=event.task_id,
        flow_id=event.flow_id,
        caller_id=event.caller_id,
        state=event.state,
        status=event.end_reason or event.state,
        previous=event.previous,
        attempt=event.attempt,
        cause=event.cause,
        at=rfc3339(event.at_ms),
        holder=event.owner or None,
        end_reason=event.end_reason,
        detail=event.detail or None,
    )
    return _frame(event.id, f"call.{event.state}", data)


def _frame(event_id: str, name: str, data: msgspec.Struct) -> bytes:
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (event_id.encode(), name.encode(), msgspec.json.encode(data))


async def _write(reply: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(WRITE_TIMEOUT_S):
        await reply.write(data)
