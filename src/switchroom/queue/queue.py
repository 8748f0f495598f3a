"""Calls waiting and held. Each method is one run of a server-side function: record, indexes, statistics and event
change together.

Order is priority first, then arrival; a call that goes back keeps its place. A hold is a lease with an owner and a
fencing token, and a write of a holder that lost it is refused. Overdue leases are taken back inside every claim and by
a timer: there is no leader.
"""

from __future__ import annotations

import asyncio
import time
from datetime import date, timedelta
from typing import Any

import msgspec

from switchroom.errors import Conflict, NotFound, TooMany, Unprocessable
from switchroom.hours import OpeningHours
from switchroom.ids import new_uuid
from switchroom.queue.answers import (
    Accepted,
    Changed,
    Detail,
    Figures,
    Holders,
    Idle,
    Row,
    StaleRules,
    Statistics,
    Status,
)
from switchroom.queue.codec import (
    decode_call,
    decode_events,
    decode_history,
    decode_record,
    encode_json,
    encode_payload,
    entry_before,
    event_order,
    last_event_id,
    needed,
    pairs,
    skills_of,
)
from switchroom.queue.feed import events_after
from switchroom.queue.holding import Argument, Holding
from switchroom.queue.library import QUEUE
from switchroom.queue.model import Call, NewCall, QueueEvent, State
from switchroom.queue.rules import WRAPUP_MS, Admission, Rules, stored_hours, stored_rules
from switchroom.store import Store, keys

IDEMPOTENCY_TTL_S = 24 * 3600
CLEAR_CHUNK = 200
"""Calls that one run drops: whoever else asks the store waits for no more than those."""
CALLER_HUNG_UP = "caller_hung_up"
"""The reason of a `cancel` by which the caller's side says that the caller left."""
WINDOW_MINUTES = 15
_HOURS_EVERY_MS = 3_600_000
_EPOCH = date(1970, 1, 1)
_pack = msgspec.msgpack.Encoder().encode


class Queue(Holding):
    """The queues of all flows in one store."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._known: set[str] = set()
        self._hooked: set[str] = set()
        self._handed: set[str] = set()
        self._hours_until: dict[str, float] = {}

    # --- the way in --------------------------------------------------------------------------------------------

    async def configure(self, flow_id: str, rules: Rules) -> None:
        """Makes a flow's rules known to the server-side function."""
        flat = await asyncio.to_thread(stored_rules, rules, time.time_ns() // 1_000_000)
        await self._store.call("HSET", keys.flow(flow_id) + keys.CONFIG, *flat)
        self._hours_until.pop(flow_id, None)
        await self.tick(flow_id)

    async def enqueue(self, flow_id: str, call: NewCall, rules: Admission, *, revision: bytes = b"") -> Accepted:
        """Puts a call in the queue; it is on disk when this returns.

        `revision` is that of the flow's document that `rules` were read from: where it is not the stored one any more
        nothing happens and `StaleRules` is raised (empty: unchecked).

        Raises `Conflict` (`duplicates` is `reject` and the ID has a call that has not ended), `Unprocessable` (the
        idempotency key came with another payload), `TooMany` (the queue is full).
        """
        if flow_id not in self._known:
            await self._store.call("SADD", keys.queue_flows(), flow_id)
            self._known.add(flow_id)
        if call.callback_url and flow_id not in self._hooked:
            await self.hooked(flow_id)
        if call.cc_base_url and flow_id not in self._handed:
            await self._has_unity_calls(flow_id)
        reply = await self._run(
            "enqueue",
            flow_id,
            f"flowise-{new_uuid()}",
            call.form["ID"],
            encode_payload(call),
            call.priority,
            call.not_before_ms or 0,
            call.expires_at_ms or 0,
            call.max_attempts or rules.max_attempts,
            rules.duplicates,
            rules.cap,
            call.idempotency_key or "",
            call.payload_digest,
            IDEMPOTENCY_TTL_S,
            "1" if call.callback_url else "",
            revision.decode(),
            needed(call),
        )
        word = reply[0]
        if word == b"stale":
            raise StaleRules(flow_id)
        if word == b"duplicate":
            raise _duplicate(reply[1].decode())
        if word == b"mismatch":
            raise Unprocessable("this Idempotency-Key was used with another payload", code="idempotency_key_reused")
        if word == b"full":
            raise TooMany(f"the queue is full ({rules.cap} calls)", code="queue_full", retry_after_s=30)
        return Accepted(
            task_id=reply[1].decode(),
            state=State(reply[2].decode()),
            pending=reply[3],
            position=reply[4],
            estimate_ms=reply[5],
            overtaken=bool(reply[6]),
            duplicate=word == b"joined",
        )

    # --- the verbs ---------------------------------------------------------------------------------------------

    async def toggle(self, flow_id: str, enabled: bool | None) -> bool:
        """Opens or pauses handing out calls (None: flips). A paused queue still accepts."""
        word = "" if enabled is None else str(int(enabled))
        reply = await self._run("verb", flow_id, "toggle", "", word)
        return bool(reply[1])

    async def complete(
        self, flow_id: str, task_id: str | None, *, outcome: str = "", result: Any = None
    ) -> tuple[str, State, str]:
        """Ends a live call as completed (None: the only live one). Returns task, state, end reason."""
        return await self._verb(flow_id, "complete", task_id or "", outcome, encode_json(result), WRAPUP_MS)

    async def cancel(self, flow_id: str, task_id: str, reason: str = "") -> tuple[str, State, str]:
        """Ends a waiting, offered or live call as cancelled. With `CALLER_HUNG_UP` as reason one that was not answered
        is abandoned, and a live one is completed."""
        left = reason == CALLER_HUNG_UP
        return await self._verb(
            flow_id, "cancel", task_id, "the caller hung up" if left else reason, WRAPUP_MS, "1" if left else ""
        )

    async def abandon(self, flow_id: str, task_id: str) -> State:
        """The caller left before anybody answered. A call that is answered meanwhile stays as it is."""
        return (await self._verb(flow_id, "abandon", task_id))[1]

    async def remove(self, flow_id: str, task_id: str) -> tuple[str, State, str]:
        """Drops a call that waits; one that is held is a `Conflict`."""
        return await self._verb(flow_id, "remove", task_id)

    async def clear(self, flow_id: str) -> int:
        """Drops every pending call, in chunks. Returns how many."""
        removed = 0
        while True:
            _, count, left = await self._run("verb", flow_id, "clear", "", CLEAR_CHUNK)
            removed += int(count)
            if not count or not left:
                return removed

    async def change(
        self,
        flow_id: str,
        task_id: str,
        *,
        priority: int | None = None,
        not_before_ms: int | None = None,
        expires_at_ms: int | None = None,
        detail: str = "",
    ) -> Changed:
        """Changes a call that waits; what is None stays. `not_before_ms` 0 is now, `expires_at_ms` 0 never; `detail`
        stands in its history. It keeps its order of arrival within its priority.

        Raises `NotFound`, or `Conflict` (code `wrong_state`) for one that is held or has ended.
        """
        given = ["" if value is None else value for value in (priority, not_before_ms, expires_at_ms)]
        reply = await self._run("change", flow_id, task_id, *given, detail)
        match reply[0]:
            case b"unknown":
                raise NotFound(f"no call {task_id} in this flow", code="unknown_task")
            case b"conflict":
                raise Conflict(f"the call {task_id} is {reply[1].decode()}: it cannot change", code="wrong_state")
        return Changed(
            state=State(reply[1].decode()), position=reply[2], estimate_ms=reply[3], overtaken=bool(reply[4])
        )

    # --- dead letters ------------------------------------------------------------------------------------------

    async def dead_letters(self, flow_id: str, *, first: int = 0, limit: int = 100) -> tuple[list[Call], int]:
        """A page of the calls whose last attempt failed, newest first, and how many there are."""
        total, page = await self._run("dead", flow_id, first, first + limit - 1)
        return [decode_call(flow_id, row[0].decode(), row[1], row[2]) for row in page], total

    async def requeue(self, flow_id: str, task_id: str, *, duplicates: str = "join") -> tuple[str, State]:
        """Brings a dead letter back: as a new call, with its content and its place; the old one stays ended and names
        the new one. Repeated, it answers that call again. Returns the new task and its state.

        Raises `NotFound`, or `Conflict`: it is no dead letter (code `not_dead`), or its caller has another call that
        has not ended (code `duplicate_call`) and `duplicates` is not `allow`.
        """
        reply = await self._run(
            "requeue", flow_id, task_id, f"flowise-{new_uuid()}", "" if duplicates == "allow" else "1"
        )
        word = reply[1].decode() if len(reply) > 1 else ""
        match reply[0]:
            case b"unknown":
                raise NotFound(f"no call {task_id} in this flow", code="unknown_task")
            case b"state":
                raise Conflict(f"the call {task_id} is {word}, and no dead letter", code="not_dead")
            case b"duplicate":
                raise _duplicate(word)
        return word, State(reply[2].decode())

    # --- reading -----------------------------------------------------------------------------------------------

    async def status(self, flow_id: str, *, after: str = "", limit: int = 100) -> Status:
        """The queue now; `after` (the `next_after` of the page before) and `limit` page the waiting calls."""
        reply = await self._run("status", flow_id, after, limit)
        return Status(
            enabled=bool(reply[0]),
            lines=reply[1],
            pending_count=reply[2],
            scheduled_count=reply[3],
            active=[_row(row) for row in reply[4]],
            pending=[_row(row) for row in reply[5]],
            stats=_figures(*reply[6]),
            last_event=last_event_id(reply[7].decode()),
            average_handle_ms=int(reply[8]),
            now_ms=int(reply[9]),
            free=reply[10],
            service_level_ms=reply[11],
            open=bool(reply[12]),
            opens_at_ms=int(reply[13]),
            next_after=reply[14].decode(),
            dead_count=reply[15],
        )

    async def holders(self, flow_id: str) -> Holders:
        """Who waits for a call of this flow, who rests, and who holds one."""
        waiting, resting, held = await self._run("holders", flow_id)
        idle: dict[tuple[str, str], int] = {}
        for owner, skills, since in waiting:  # one may wait in several processes
            key = (owner.decode(), skills.decode())
            idle[key] = min(int(since), idle.get(key, int(since)))
        return Holders(
            waiting=[
                Idle(owner=owner, skills=skills_of(skills), since_ms=since)
                for (owner, skills), since in sorted(idle.items(), key=lambda item: item[1])
            ],
            resting={owner.decode(): int(until) for owner, until in resting},
            held=[_row(row) for row in held],
        )

    async def statistics(
        self, flow_id: str, *, first: date, last: date, window_minutes: int = WINDOW_MINUTES
    ) -> Statistics:
        """Figures ever, of the last minutes, and of each day from `first` to `last` on which anything happened."""
        span = [(day - _EPOCH).days for day in (first, last)]
        reply = await self._run("stats", flow_id, window_minutes, *span)
        return Statistics(
            now_ms=int(reply[0]),
            service_level_ms=reply[1],
            longest_waiting_ms=reply[3],
            ever=_figures(*reply[4]),
            window=_figures(*reply[5]),
            days={(_EPOCH + timedelta(days=day)).isoformat(): _figures(*flats) for day, *flats in reply[6]},
        )

    async def detail(self, flow_id: str, task_id: str) -> Detail:
        """One call, ended ones included, with every change of its state. Raises `NotFound`."""
        reply = await self._run("call", flow_id, task_id)
        if not reply:
            raise NotFound(f"no call {task_id} in this flow", code="unknown_task")
        return Detail(
            call=decode_call(flow_id, task_id, reply[0], reply[1]),
            history=decode_history(reply[0]),
            position=reply[2],
            estimate_ms=reply[3],
            overtaken=bool(reply[4]),
        )

    async def get(self, flow_id: str, task_id: str) -> Call | None:
        try:
            return (await self.detail(flow_id, task_id)).call
        except NotFound:
            return None

    async def calls(self, flow_id: str, task_ids: list[str]) -> dict[str, Call]:
        """Those of these calls that are not forgotten, as they stand; time is not looked at."""
        if not task_ids:
            return {}
        prefixes = [keys.flow(flow_id) + part for part in (keys.CALL, keys.PAYLOAD)]
        rows = await self._store.call("MGET", *(prefix + task_id for prefix in prefixes for task_id in task_ids))
        found = zip(task_ids, rows[: len(task_ids)], rows[len(task_ids) :], strict=True)
        return {task: decode_call(flow_id, task, row, payload) for task, row, payload in found if row and payload}

    async def flows(self) -> list[str]:
        """The flows that ever had a call."""
        return sorted(name.decode() for name in await self._store.call("SMEMBERS", keys.queue_flows()))

    async def events(self, flow_id: str, after: str = "0-0", *, limit: int = 1_000) -> list[QueueEvent]:
        """Changes after an event ID, oldest first; of at most `limit` stream entries."""
        return await events_after(self._store, flow_id, after, limit)

    async def closings(self, flow_id: str, after: str, *, limit: int = 1_000) -> tuple[list[QueueEvent], str]:
        """Of the changes after an event ID those by which a call ended or lost its holder, oldest first; and the ID of
        the last one that was looked at ('' where there was none)."""
        rows = await self._store.call(
            "XRANGE", keys.queue_events(flow_id), f"({entry_before(after)}", "+", "COUNT", limit
        )
        last = last_event_id(rows[-1][0].decode()) if rows else after
        if event_order(last) <= event_order(after):
            return [], ""
        # Every process reads every change here: those of calls that merely came are not taken apart.
        events = [
            event
            for entry_id, fields in rows
            if b"ended" in fields[1] or b"lease_expired" in fields[1]
            for event in decode_events(flow_id, entry_id, fields)
        ]
        found = [event for event in events if event.state is State.ENDED or event.cause == "lease_expired"]
        return [event for event in found if event_order(event.id) > event_order(after)], last

    async def tick(self, flow_id: str, *, forget_before_ms: int = 0, forget_dead_before_ms: int = 0) -> int:
        """Lets time pass: takes back overdue leases, lets callbacks fall due, keeps the opening hours ahead, wakes a
        holder that missed its wake, and forgets calls that ended before a time (dead letters before their own)."""
        if time.monotonic() * 1000 >= self._hours_until.get(flow_id, 0.0):
            await self._look_at_the_calendar(flow_id)
        count: int = await self._run("tick", flow_id, forget_before_ms, forget_dead_before_ms)
        return count

    async def hooked(self, flow_id: str) -> None:
        """Lets every sender of webhooks know that this flow has an outbox."""
        if await self._store.call("SADD", keys.hooked_flows(), flow_id):
            await self._store.call("XADD", keys.hooked_news(), "MAXLEN", "~", 1_000, "*", "f", flow_id)
        self._hooked.add(flow_id)

    async def _has_unity_calls(self, flow_id: str) -> None:
        """Lets every dispatcher know that this flow has calls with a `ccBaseUrl`."""
        if await self._store.call("SADD", keys.unity_flows(), flow_id):
            await self._store.call("XADD", keys.unity_news(), "MAXLEN", "~", 1_000, "*", "f", flow_id)
        self._handed.add(flow_id)

    # --- one run each ------------------------------------------------------------------------------------------

    async def _run(self, verb: str, flow_id: str, *args: Argument) -> Any:
        return await self._store.run_function(QUEUE, [keys.flow(flow_id)], (verb, _pack(args)))

    async def _look_at_the_calendar(self, flow_id: str) -> None:
        """Writes the coming open spans of a flow that has opening hours; they reach two weeks ahead."""
        key = keys.flow(flow_id) + keys.CONFIG
        packed = await self._store.call("HGET", key, "hours")
        if packed:
            hours = msgspec.json.decode(packed, type=OpeningHours)
            await self._store.call(
                "HSET", key, *await asyncio.to_thread(stored_hours, hours, time.time_ns() // 1_000_000)
            )
        self._hours_until[flow_id] = time.monotonic() * 1000 + _HOURS_EVERY_MS

    async def _verb(self, flow_id: str, verb: str, task_id: str, *args: Argument) -> tuple[str, State, str]:
        reply = await self._run("verb", flow_id, verb, task_id, *args)
        match reply[0]:
            case b"unknown":
                raise NotFound(f"no call {task_id} in this flow", code="unknown_task")
            case b"many":
                raise Conflict(f"{reply[1]} calls are live: name one by taskId", code="which_call")
            case b"conflict":
                state = reply[1].decode()
                raise Conflict(f"the call {task_id} is {state}: it cannot {verb}", code="wrong_state")
        return reply[1].decode(), State(reply[2].decode()), reply[3].decode()


def _duplicate(task_id: str) -> Conflict:
    return Conflict(
        f"this ID already has a call that has not ended: {task_id}", code="duplicate_call", extra={"taskId": task_id}
    )


def _figures(*flats: list[bytes]) -> Figures:
    """The sum of some counters; of the longest waits it is the longest."""
    sums: dict[str, int] = {}
    for flat in flats:
        for name, value in pairs(flat).items():
            word, number = name.decode(), int(value)
            sums[word] = max(sums.get(word, 0), number) if word == "longest_ms" else sums.get(word, 0) + number
    return msgspec.convert(sums, Figures)


def _row(row: list[Any]) -> Row:
    stored = decode_record(row[1])
    standing, own = stored.standing, stored.own
    position, estimate_ms, overtaken = row[2:5] or (0, 0, 0)
    return Row(
        task_id=row[0].decode(),
        state=State(standing.state),
        caller_id=own.caller,
        enqueued_at_ms=own.enqueued,
        started_at_ms=standing.live or standing.offered,
        attempt=standing.attempt,
        owner=standing.owner,
        position=position,
        estimate_ms=estimate_ms,
        overtaken=bool(overtaken),
    )
