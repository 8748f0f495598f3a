"""Calls waiting and held. Each method is one server-side script: record, indexes, statistics and event change together.

Order is priority first, then arrival; a call that goes back keeps its place. A hold is a lease with an owner and a
fencing token, and a write of a holder that lost it is refused. Overdue leases are taken back inside every claim and by
a timer: there is no leader.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import msgspec

from switchroom.errors import Conflict, NotFound, TooMany, Unprocessable
from switchroom.queue import scripts
from switchroom.queue.codec import Change, decode_call, decode_event, decode_history, encode_payload, pairs
from switchroom.queue.model import Call, EndReason, Held, NewCall, QueueEvent, State
from switchroom.store import Script, Store, keys

LEASE_MS = 5_000
"""How long a machine's hold lasts without a heartbeat."""
WRAPUP_MS = 15_000
"""How long a holder may take to close a call's record after the call is over."""
IDEMPOTENCY_TTL_S = 24 * 3600
CLEAR_CHUNK = 1_000


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """A flow's own settings of its queue.

    `lines`: calls that may be held at once. `duplicates`: what an enqueue of an ID that has not ended does.
    `cap`: most calls waiting (0: no bound). `service_level_ms`: a call answered within it counts as in time.
    """

    lines: int = 4
    duplicates: str = "join"
    max_attempts: int = 3
    cap: int = 100_000
    service_level_ms: int = 20_000


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to an enqueue. `position` is 0 and `estimate_ms` 0 for a call that is not waiting in line."""

    task_id: str
    state: State
    pending: int
    position: int
    estimate_ms: int
    duplicate: bool = False


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a claim of one call that must wait for a free line: `place` 1 is next."""

    place: int


class Detail(msgspec.Struct, frozen=True, kw_only=True):
    """One call with its history, and its place while it waits (0 otherwise)."""

    call: Call
    history: list[Change]
    position: int
    estimate_ms: int


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the status: a held or a waiting call."""

    task_id: str
    state: State
    caller_id: str
    enqueued_at_ms: int
    started_at_ms: int
    attempt: int
    owner: str


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A flow's queue at one moment. `last_event` names the newest change; `free` is the number of idle lines."""

    enabled: bool
    lines: int
    free: int
    pending_count: int
    scheduled_count: int
    active: list[Row]
    pending: list[Row]
    stats: dict[str, int]
    last_event: str
    average_handle_ms: int
    service_level_ms: int
    now_ms: int


class LeaseLost(Conflict):
    """The hold is not the call's any more: whoever writes must stop. `state` and `end_reason` say what became of it."""

    code = "lease_lost"
    title = "The hold was lost"

    def __init__(self, task_id: str, state: str, reason: str) -> None:
        super().__init__(f"the call {task_id} is not held by this holder any more (it is {state or 'gone'})")
        self.state = State(state) if state else None
        self.end_reason = EndReason(reason) if reason else None


class StaleRules(Conflict):
    """The flow was changed or deleted after its rules were read: read it again."""

    code = "stale_rules"
    title = "The flow was changed meanwhile"

    def __init__(self, flow_id: str) -> None:
        super().__init__(f"the flow {flow_id} was changed while a call was put in its queue")


class Queue:
    """The queues of all flows in one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: set[str] = set()
        self._hooked: set[str] = set()

    # --- the way in --------------------------------------------------------------------------------------------

    async def configure(self, flow_id: str, rules: Rules) -> None:
        """Makes a flow's rules known to the scripts that claim from it."""
        await self._store.call(
            "HSET", keys.flow(flow_id) + keys.CONFIG, "lines", rules.lines, "sl_ms", rules.service_level_ms
        )

    async def enqueue(self, flow_id: str, call: NewCall, rules: Rules, *, revision: bytes = b"") -> Accepted:
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
        reply = await self._run(
            scripts.ENQUEUE,
            flow_id,
            f"flowise-{uuid.uuid4()}",
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
            revision,
        )
        word = reply[0]
        if word == b"stale":
            raise StaleRules(flow_id)
        if word == b"duplicate":
            task_id = reply[1].decode()
            raise Conflict(
                f"this ID already has a call that has not ended: {task_id}",
                code="duplicate_call",
                extra={"taskId": task_id},
            )
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
            duplicate=word == b"joined",
        )

    # --- holding -----------------------------------------------------------------------------------------------

    async def claim(
        self, flow_id: str, owner: str, *, limit: int = 1, lease_ms: int = LEASE_MS, answered: bool = False
    ) -> list[Held]:
        """Takes up to `limit` calls from the head of the queue, as far as lines are free; `answered` makes them
        live at once."""
        reply = await self._run(scripts.CLAIM, flow_id, owner, lease_ms, limit, "", "1" if answered else "")
        return [self._held(flow_id, owner, lease_ms, row) for row in reply]

    async def claim_call(self, flow_id: str, task_id: str, owner: str, *, lease_ms: int = LEASE_MS) -> Held | Waiting:
        """Takes the one call whose caller is on the line, or says how many such callers go before it.

        Callers that wait on a line are served in the queue's order; asking again within 15 s keeps the place.
        Raises `NotFound`, or `Conflict` (code `call_ended` or `call_held`) where the call does not wait.
        """
        reply = await self._run(scripts.CLAIM, flow_id, owner, lease_ms, 1, task_id, "")
        if reply and reply[0] == b"wait":
            return Waiting(place=reply[1])
        if reply and reply[0] == b"state":
            state, reason = reply[1].decode(), reply[2].decode()
            if not state:
                raise NotFound(f"no call {task_id} in this flow", code="unknown_task")
            if state == State.ENDED:
                raise Conflict(f"the call {task_id} has ended ({reason})", code="call_ended")
            raise Conflict(f"the call {task_id} is {state}", code="call_held", extra={"state": state})
        return self._held(flow_id, owner, lease_ms, reply[0])

    async def answer(self, held: Held) -> None:
        """The caller is connected: offered → live."""
        await self._hold("answer", held, held.lease_ms)

    async def heartbeat(self, held: Held) -> None:
        """Renews the lease. Raises `LeaseLost` when the call was taken away, or ended by somebody else."""
        await self._hold("heartbeat", held, held.lease_ms)

    async def hang_up(self, held: Held, reason: EndReason, detail: str = "", *, wrapup_ms: int = WRAPUP_MS) -> State:
        """The call is over; its record is not complete yet. An unanswered one ends at once."""
        return await self._hold("hang_up", held, reason, detail, wrapup_ms)

    async def finish(
        self, held: Held, reason: EndReason, detail: str = "", *, outcome: str = "", result: Any = None
    ) -> State:
        """The record is complete: the call is ended. A reason that was set before (by a verb) stays."""
        packed = b"" if result is None else msgspec.json.encode(result)
        return await self._hold("finish", held, reason, detail, outcome, packed)

    async def release(self, held: Held, cause: str, detail: str = "") -> None:
        """Gives a call back to its old place in the queue."""
        await self._hold("release", held, cause, detail)

    # --- the verbs ---------------------------------------------------------------------------------------------

    async def toggle(self, flow_id: str, enabled: bool | None) -> bool:
        """Opens or pauses handing out calls (None: flips). A paused queue still accepts."""
        word = "" if enabled is None else str(int(enabled))
        reply = await self._run(scripts.VERB, flow_id, "toggle", "", word)
        return bool(reply[1])

    async def complete(
        self, flow_id: str, task_id: str | None, *, outcome: str = "", result: Any = None
    ) -> tuple[str, State, str]:
        """Ends a live call as completed (None: the only live one). Returns task, state, end reason."""
        packed = b"" if result is None else msgspec.json.encode(result)
        return await self._verb(flow_id, "complete", task_id or "", outcome, packed, WRAPUP_MS)

    async def cancel(self, flow_id: str, task_id: str, reason: str = "") -> tuple[str, State, str]:
        """Ends a waiting, offered or live call as cancelled."""
        return await self._verb(flow_id, "cancel", task_id, reason, WRAPUP_MS)

    async def remove(self, flow_id: str, task_id: str) -> tuple[str, State, str]:
        """Drops a call that waits; one that is held is a `Conflict`."""
        return await self._verb(flow_id, "remove", task_id)

    async def clear(self, flow_id: str) -> int:
        """Drops every pending call, in chunks. Returns how many."""
        removed = 0
        while True:
            _, count, left = await self._run(scripts.VERB, flow_id, "clear", "", CLEAR_CHUNK)
            removed += int(count)
            if not count or not left:
                return removed

    # --- reading -----------------------------------------------------------------------------------------------

    async def status(self, flow_id: str, *, first: int = 0, limit: int = 100) -> Status:
        """The queue now; `first` and `limit` page the waiting calls."""
        reply = await self._run(scripts.STATUS, flow_id, first, first + limit - 1)
        stats = {name.decode(): int(value) for name, value in pairs(reply[6]).items()}
        return Status(
            enabled=bool(reply[0]),
            lines=reply[1],
            pending_count=reply[2],
            scheduled_count=reply[3],
            active=[_row(row) for row in reply[4]],
            pending=[_row(row) for row in reply[5]],
            stats=stats,
            last_event=reply[7].decode(),
            average_handle_ms=int(reply[8]),
            now_ms=int(reply[9]),
            free=reply[10],
            service_level_ms=reply[11],
        )

    async def detail(self, flow_id: str, task_id: str) -> Detail:
        """One call, ended ones included, with every change of its state. Raises `NotFound`."""
        reply = await self._run(scripts.CALL, flow_id, task_id)
        if not reply:
            raise NotFound(f"no call {task_id} in this flow", code="unknown_task")
        fields = pairs(reply[0])
        return Detail(
            call=decode_call(flow_id, task_id, fields),
            history=decode_history(fields),
            position=reply[1],
            estimate_ms=reply[2],
        )

    async def get(self, flow_id: str, task_id: str) -> Call | None:
        try:
            return (await self.detail(flow_id, task_id)).call
        except NotFound:
            return None

    async def flows(self) -> list[str]:
        """The flows that ever had a call."""
        return sorted(name.decode() for name in await self._store.call("SMEMBERS", keys.queue_flows()))

    async def events(self, flow_id: str, after: str = "0-0", *, limit: int = 1_000) -> list[QueueEvent]:
        """Changes after a stream ID, oldest first."""
        rows = await self._store.call("XRANGE", keys.queue_events(flow_id), f"({after}", "+", "COUNT", limit)
        return [decode_event(flow_id, row[0], row[1]) for row in rows]

    async def tick(self, flow_id: str, *, forget_before_ms: int = 0) -> int:
        """Takes back overdue leases, lets callbacks fall due, and forgets calls that ended before a time."""
        count: int = await self._run(scripts.TICK, flow_id, forget_before_ms)
        return count

    async def hooked(self, flow_id: str) -> None:
        """Lets every sender of webhooks know that this flow has an outbox."""
        if await self._store.call("SADD", keys.hooked_flows(), flow_id):
            await self._store.call("XADD", keys.hooked_news(), "MAXLEN", "~", 1_000, "*", "f", flow_id)
        self._hooked.add(flow_id)

    # --- one script each ---------------------------------------------------------------------------------------

    async def _run(self, script: Script, flow_id: str, *args: str | bytes | int) -> Any:
        return await self._store.run(script, [keys.flow(flow_id)], args)

    async def _hold(self, verb: str, held: Held, *args: str | bytes | int) -> State:
        reply = await self._run(scripts.HOLD, held.flow_id, verb, held.task_id, held.owner, held.token, *args)
        if reply[0] == b"lost":
            raise LeaseLost(held.task_id, reply[1].decode(), reply[2].decode())
        return State(reply[1].decode())

    async def _verb(self, flow_id: str, verb: str, task_id: str, *args: str | bytes | int) -> tuple[str, State, str]:
        reply = await self._run(scripts.VERB, flow_id, verb, task_id, *args)
        match reply[0]:
            case b"unknown":
                raise NotFound(f"no call {task_id} in this flow", code="unknown_task")
            case b"many":
                raise Conflict(f"{reply[1]} calls are live: name one by taskId", code="which_call")
            case b"conflict":
                state = reply[1].decode()
                raise Conflict(f"the call {task_id} is {state}: it cannot {verb}", code="wrong_state")
        return reply[1].decode(), State(reply[2].decode()), reply[3].decode()

    @staticmethod
    def _held(flow_id: str, owner: str, lease_ms: int, row: Sequence[Any]) -> Held:
        call = decode_call(flow_id, row[0].decode(), pairs(row[2]))
        return Held(call=call, owner=owner, attempt=call.attempt, token=row[1], lease_ms=lease_ms)


def _row(row: list[bytes]) -> Row:
    return Row(
        task_id=row[0].decode(),
        state=State(row[1].decode()),
        caller_id=row[2].decode(),
        enqueued_at_ms=int(row[3]),
        started_at_ms=int(row[4]) or int(row[5]),
        attempt=int(row[6]),
        owner=row[7].decode(),
    )
