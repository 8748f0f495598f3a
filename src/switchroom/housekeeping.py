"""What passes with time, in every API process and with no leader: overdue leases, records of calls that nobody closed,
and what is older than it is kept. Each step is idempotent, so that several processes may do it at once."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid

from switchroom.errors import SwitchroomError
from switchroom.queue import Call, EndReason, Queue, QueueEvent, State
from switchroom.records import Execution, Executions, state_of_end
from switchroom.store import Store, keys

log = logging.getLogger(__name__)

TICK_S = 1.0
PRUNE_EVERY_S = 600.0
LOST_TURN_MS = 300_000
"""A text turn has a deadline far below this: a record still open then has nobody who runs it."""
_HOUR_MS = 3_600_000
_MISSED_CALLS = uuid.UUID("6d1f9f0e-5d0c-4a53-9d6f-6f1c2f7c0d3a")


class Housekeeping:
    """Ticks the queues of all flows, and makes sure that every call leaves a closed record."""

    def __init__(
        self,
        store: Store,
        queue: Queue,
        executions: Executions,
        *,
        call_hours: int,
        record_days: int,
        recording_days: int | None = None,
    ) -> None:
        self._store = store
        self._queue = queue
        self._executions = executions
        self._call_ms = call_hours * _HOUR_MS
        self._record_ms = record_days * 24 * _HOUR_MS
        self._recording_ms = recording_days * 24 * _HOUR_MS if recording_days is not None else None
        self._silent_before_ms = 0
        """Records created before have no audio any more."""
        self._prune_at = 0.0

    async def run(self) -> None:
        """Until cancelled. A store that is away for a moment is waited for."""
        while True:
            try:
                await self.once()
            except SwitchroomError as error:
                log.warning("housekeeping waits for the store", extra={"detail": error.detail})
            await asyncio.sleep(TICK_S)

    async def once(self) -> None:
        """One round over all flows."""
        now_ms = int(time.time() * 1000)
        for flow_id in await self._queue.flows():
            await self._queue.tick(
                flow_id, forget_before_ms=now_ms - self._call_ms, forget_dead_before_ms=now_ms - self._record_ms
            )
            await self._close_records(flow_id)
        if time.monotonic() >= self._prune_at:
            self._prune_at = time.monotonic() + PRUNE_EVERY_S
            await self._executions.close_lost_turns(now_ms - LOST_TURN_MS)
            pruned = await self._executions.prune(now_ms - self._record_ms)
            if pruned:
                log.info("old records removed", extra={"count": pruned})
            if self._recording_ms is not None:
                before_ms = now_ms - self._recording_ms
                dropped = await self._executions.drop_recordings(self._silent_before_ms, before_ms)
                self._silent_before_ms = before_ms
                if dropped:
                    log.info("old recordings removed", extra={"count": dropped})

    async def _close_records(self, flow_id: str) -> None:
        """Reads the flow's changes on from where records stand."""
        cursor = keys.records_cursor(flow_id)
        stored = await self._store.call("GET", cursor)
        after = stored.decode() if stored else "0-0"
        while True:
            events, last = await self._queue.closings(flow_id, after, limit=200)
            if not last:
                return
            for event in events:
                await self._record(event)
            after = last
            await self._store.call("SET", cursor, after)

    async def _record(self, event: QueueEvent) -> None:
        lost = event.cause == "lease_expired"
        if not lost and event.state is not State.ENDED:
            return
        if event.attempt:
            # A live holder closes its record before it ends the call; what is open now has nobody any more.
            reason = event.end_reason or EndReason.FAILED
            detail = event.detail or "the call was over before its holder closed the record"
            await self._executions.close_lost(event.flow_id, event.task_id, event.attempt, reason, detail)
        if event.state is State.ENDED and not await self._executions.attempt_ids(event.flow_id, event.task_id):
            call = await self._queue.get(event.flow_id, event.task_id)
            if call is not None:
                await self._record_missed(call)

    async def _record_missed(self, call: Call) -> None:
        """A call that nobody ever held leaves a record too."""
        row = Execution(
            id=str(uuid.uuid5(_MISSED_CALLS, call.task_id)),
            flow_id=call.flow_id,
            session_id=call.task_id,
            kind="realtime",
            created_ms=call.enqueued_at_ms,
            task_id=call.task_id,
            attempt=call.attempt,
            caller_id=call.caller_id,
            form=call.form,
            memory=call.memory,
            end_reason=call.end_reason or "",
            detail=call.detail,
        )
        if await self._executions.begin(row):
            await self._executions.finish(row, state_of_end(row.end_reason))
