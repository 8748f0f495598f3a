"""Status webhooks: turns the outboxes of the queues into messages and has them sent, in every API process, no leader.

The queue's scripts write an outbox entry together with the change itself. Here each entry is exchanged, in one script,
for one message an endpoint: a process that dies before leaves the entry to the others, one that comes second finds it
gone. A message's ID is made from the entry's and the endpoint's.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any

import msgspec
from redis.exceptions import ResponseError

from switchroom.errors import SwitchroomError
from switchroom.queue import Call, Queue, QueueEvent, State
from switchroom.queue.codec import decode_events
from switchroom.store import Store, keys
from switchroom.webhooks import CALLBACK, Endpoint, Message, Webhooks, message_id

log = logging.getLogger(__name__)

_BATCH = 100
_BLOCK_MS = 10_000
_BLOCKING = 200
"""Flows whose outbox is waited on at once, each on a connection of its own; they take turns with the others, whose
outboxes are looked into twice a second."""
_PAUSE_S = 0.5
_STORE_ERRORS = (SwitchroomError, ResponseError)
_encode = msgspec.json.Encoder().encode


class WebhookFeed:
    """Follows every flow that may have an outbox."""

    def __init__(self, store: Store, queue: Queue, webhooks: Webhooks) -> None:
        self._store = store
        self._queue = queue
        self._endpoints = webhooks.endpoints
        self._deliveries = webhooks.deliveries
        self._sender = webhooks.sender
        self._followed: set[str] = set()
        self._turns = asyncio.Semaphore(_BLOCKING)

    async def run(self) -> None:
        """Until cancelled. A flow that gets its first webhook is followed at once."""
        self._followed.clear()
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    # The news is read before the set, so that nothing falls in between.
                    last = await self._store.call("XREVRANGE", keys.hooked_news(), "+", "-", "COUNT", 1)
                    for name in await self._store.call("SMEMBERS", keys.hooked_flows()):
                        flow_id = name.decode()
                        if flow_id not in self._followed:
                            self._followed.add(flow_id)
                            group.create_task(self._follow(flow_id), name=f"webhook-feed-{flow_id}")
                    await self._block(keys.hooked_news(), last[0][0].decode() if last else "0-0")
                except _STORE_ERRORS as error:
                    log.warning("webhooks wait for the store", extra={"detail": str(error)})
                    await asyncio.sleep(_PAUSE_S)

    async def _follow(self, flow_id: str) -> None:
        self._sender.send(flow_id)
        outbox = keys.queue_outbox(flow_id)
        while True:
            try:
                while entries := await self._store.call("XRANGE", outbox, "-", "+", "COUNT", _BATCH):
                    await self._exchange(flow_id, entries)
                    self._sender.send(flow_id)
                if self._turns.locked():
                    await asyncio.sleep(_PAUSE_S)
                    continue
                async with self._turns:
                    await self._block(outbox, "0-0")
            except _STORE_ERRORS as error:
                log.warning("webhooks wait for the store", extra={"flow_id": flow_id, "detail": str(error)})
                await asyncio.sleep(_PAUSE_S)

    async def _block(self, stream: str, after: str) -> None:
        await self._store.blocking(
            "XREAD", "COUNT", 1, "BLOCK", _BLOCK_MS, "STREAMS", stream, after, timeout_s=_BLOCK_MS / 1000 + 5
        )

    async def _exchange(self, flow_id: str, entries: list[Any]) -> None:
        try:
            made = await self._made(flow_id, entries)
        except _STORE_ERRORS:
            raise
        except Exception:
            if len(entries) > 1:
                for entry in entries:
                    await self._exchange(flow_id, [entry])
                return
            # One that we cannot read must not hold up the others for ever.
            log.exception("an outbox entry is not readable: dropped", extra={"flow_id": flow_id})
            made = [(entries[0][0].decode(), [])]
        scheduled = await self._deliveries.schedule(flow_id, made)
        if scheduled.dropped:
            log.error("webhook messages dropped", extra={"flow_id": flow_id, "count": scheduled.dropped})

    async def _made(self, flow_id: str, entries: list[Any]) -> list[tuple[str, list[Message]]]:
        """Each entry's ID with its messages."""
        changes = [decode_events(flow_id, entry[0], entry[1]) for entry in entries]
        events = [event for several in changes for event in several]
        calls, endpoints = await asyncio.gather(self._calls(flow_id, events), self._endpoints.all(flow_id))
        if CALLBACK not in {endpoint.id for endpoint in endpoints} and any(c.callback_url for c in calls.values()):
            endpoints.append(await self._endpoints.callback(flow_id))
        return [
            (entry[0].decode(), [m for event in several for m in _messages(event, calls.get(event.task_id), endpoints)])
            for entry, several in zip(entries, changes, strict=True)
        ]

    async def _calls(self, flow_id: str, events: list[QueueEvent]) -> dict[str, Call]:
        """The calls of these events; one that is forgotten already has no message for a callback URL any more."""
        return await self._queue.calls(flow_id, list(dict.fromkeys(event.task_id for event in events)))


def _messages(event: QueueEvent, call: Call | None, endpoints: list[Endpoint]) -> list[Message]:
    kind = f"call.{event.state}"
    body: bytes | None = None
    found: list[Message] = []
    for endpoint in endpoints:
        url = ((call.callback_url if call else None) or "") if endpoint.id == CALLBACK else endpoint.url
        if not url or not endpoint.wants(kind):
            continue
        body = body or _body(kind, event, call)
        name = message_id(event.id, event.flow_id, endpoint.id)
        found.append(Message(name, endpoint.id, url, event.task_id, kind, body))
    return found


def _body(kind: str, event: QueueEvent, call: Call | None) -> bytes:
    """The change as it was, with the call's result once it is over. `eventId` orders the messages of a flow."""
    ended = event.state is State.ENDED
    data = {
        "taskId": event.task_id,
        "flowId": event.flow_id,
        "ID": event.caller_id,
        "state": event.state,
        "previousState": event.previous,
        "status": event.end_reason if ended and event.end_reason else event.state,
        "cause": event.cause,
        "endReason": event.end_reason,
        "detail": event.detail or None,
        "attempt": event.attempt,
        "eventId": event.id,
        "enqueuedAt": _rfc3339(call.enqueued_at_ms) if call else None,
        "outcome": (call.outcome or None) if call and ended else None,
        "result": call.result if call and ended else None,
    }
    return _encode({"type": kind, "timestamp": _rfc3339(event.at_ms), "data": data})


def _rfc3339(at_ms: int) -> str:
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ms % 1000:03}Z"
