"""Messages on their way: made from the outbox, claimed under a lease, finished, told of. Each method is one script."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from switchroom.errors import NotFound
from switchroom.store import Store, keys
from switchroom.webhooks import scripts
from switchroom.webhooks.model import CALLBACK, Attempt, Delivery, Message, Outcome

_CHUNK = 500
_attempts = msgspec.json.Decoder(list[Attempt])
_encode = msgspec.json.Encoder().encode


class Scheduled(NamedTuple):
    """`taken` entries of the outbox were ours to take; `dropped` messages had no room."""

    taken: int
    made: int
    dropped: int


class Claimed(NamedTuple):
    """`wait_ms` until the next delivery is due, None where none is waiting."""

    deliveries: list[Delivery]
    wait_ms: int | None


class Counts(NamedTuple):
    """Of one endpoint: messages that have not finished, and those that were dropped because too many had not."""

    open: int
    dropped: int


class Deliveries:
    """The deliveries of all flows in one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def schedule(self, flow_id: str, entries: Iterable[tuple[str, Sequence[Message]]]) -> Scheduled:
        """Exchanges entries of the queue's outbox, by their IDs, for messages; one that was taken before is left."""
        args: list[str | bytes | int] = []
        for entry_id, messages in entries:
            args += [entry_id, len(messages)]
            for message in messages:
                args += [
                    message.id,
                    message.endpoint_id,
                    target_of(message),
                    message.task_id,
                    message.type,
                    message.url,
                    message.body,
                ]
        reply = await self._store.run(scripts.SCHEDULE, [keys.webhooks(flow_id), keys.queue_outbox(flow_id)], args)
        return Scheduled(*reply)

    async def claim(self, flow_id: str, owner: str, *, lease_ms: int, limit: int) -> Claimed:
        """Takes up to `limit` deliveries that are due, within each target's bound."""
        wait_ms, *rows = await self._store.run(scripts.CLAIM, [keys.webhooks(flow_id)], [owner, lease_ms, limit])
        return Claimed([_delivery(flow_id, row[0], row[2]) for row in rows], None if wait_ms < 0 else wait_ms)

    async def finish(self, delivery: Delivery, outcome: Outcome, attempt: Attempt, *, retry_in_ms: int = 0) -> bool:
        """Writes what became of a try; False where it was claimed again meanwhile and this try failed."""
        reply = await self._store.run(
            scripts.FINISH,
            [keys.webhooks(delivery.flow_id)],
            [delivery.id, delivery.token, outcome, retry_in_ms, _encode(attempt)],
        )
        return bool(reply == b"ok")

    async def redeliver(self, flow_id: str, endpoint_id: str, delivery_id: str) -> Delivery:
        """Makes it due now, with the whole schedule of retries before it. Raises `NotFound`."""
        await self.get(flow_id, endpoint_id, delivery_id)
        reply = await self._store.run(scripts.REDELIVER, [keys.webhooks(flow_id)], [delivery_id])
        if reply != b"ok":
            raise _unknown(delivery_id)
        return await self.get(flow_id, endpoint_id, delivery_id)

    async def get(self, flow_id: str, endpoint_id: str, delivery_id: str) -> Delivery:
        """Raises `NotFound`, also for a delivery of another endpoint."""
        row = await self._row(flow_id, delivery_id)
        if not row:
            raise _unknown(delivery_id)
        delivery = _delivery(flow_id, delivery_id.encode(), row)
        if delivery.endpoint_id != endpoint_id:
            raise _unknown(delivery_id)
        return delivery

    async def newest(
        self, flow_id: str, endpoint_id: str, *, failed: bool = False, first: int = 0, limit: int = 100
    ) -> list[Delivery]:
        """A page of an endpoint's deliveries, newest first; with `failed` only those that were given up."""
        index = keys.webhooks(flow_id) + (keys.WH_FAILED if failed else keys.WH_LOG) + endpoint_id
        names = await self._store.call("ZREVRANGE", index, first, first + limit - 1)
        rows = await asyncio.gather(*(self._row(flow_id, name.decode()) for name in names))
        return [_delivery(flow_id, name, row) for name, row in zip(names, rows, strict=True) if row]

    async def redeliver_failed(self, flow_id: str, endpoint_id: str) -> int:
        """Makes all that were given up due now, as after an outage longer than the retries. Returns how many."""
        index = keys.webhooks(flow_id) + keys.WH_FAILED + endpoint_id
        names = await self._store.call("ZRANGE", index, 0, -1)
        sent = 0
        for first in range(0, len(names), _CHUNK):
            replies = await asyncio.gather(
                *(
                    self._store.run(scripts.REDELIVER, [keys.webhooks(flow_id)], [name.decode()])
                    for name in names[first : first + _CHUNK]
                )
            )
            sent += sum(reply == b"ok" for reply in replies)
        return sent

    async def counts(self, flow_id: str, endpoint_id: str) -> Counts:
        index = keys.webhooks(flow_id) + keys.WH_OPEN
        waiting, dropped = await self._store.call("HMGET", index, endpoint_id, f"{endpoint_id}:dropped")
        return Counts(int(waiting or 0), int(dropped or 0))

    async def _row(self, flow_id: str, delivery_id: str) -> list[bytes]:
        row: list[bytes] = await self._store.call("HGETALL", keys.webhooks(flow_id) + keys.WH_DELIVERY + delivery_id)
        return row


def message_id(event_id: str, flow_id: str, endpoint_id: str) -> str:
    """The same for the same event and endpoint, whoever makes it and however often."""
    return "msg_" + hashlib.sha256(f"{flow_id}\n{endpoint_id}\n{event_id}".encode()).hexdigest()[:32]


def target_of(message: Message) -> str:
    """What shares a bound on requests under way: an endpoint, or the host of a callback, so that one that does not
    answer holds up nobody else's."""
    if message.endpoint_id != CALLBACK:
        return message.endpoint_id
    parts = urlsplit(message.url)
    origin = f"{parts.scheme}://{parts.hostname}:{parts.port or ''}"
    return f"{CALLBACK}-{hashlib.sha256(origin.encode()).hexdigest()[:16]}"


def _delivery(flow_id: str, delivery_id: bytes, flat: list[bytes]) -> Delivery:
    fields: dict[bytes, Any] = dict(zip(flat[::2], flat[1::2], strict=True))
    return Delivery(
        id=delivery_id.decode(),
        flow_id=flow_id,
        endpoint_id=fields[b"ep"].decode(),
        url=fields[b"u"].decode(),
        task_id=fields[b"t"].decode(),
        type=fields[b"y"].decode(),
        body=fields[b"b"],
        outcome=Outcome(fields[b"s"].decode()),
        tries=int(fields[b"n"]),
        created_ms=int(fields[b"c"]),
        next_at_ms=int(fields[b"x"]),
        ended_ms=int(fields.get(b"en", 0)),
        attempts=_attempts.decode(b"[" + fields.get(b"l", b"") + b"]"),
        token=int(fields.get(b"k", 0)),
    )


def _unknown(delivery_id: str) -> NotFound:
    return NotFound(f"This endpoint has no delivery {delivery_id!r} (any more).", code="unknown_delivery")
