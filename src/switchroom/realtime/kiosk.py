"""A kiosk that is connected: takes calls of its flow, and holds them by the same lease and token as our media processes
do. A call outlives the connection by its lease: who comes back in time goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from redis.exceptions import ResponseError

from switchroom.engine import Flow
from switchroom.errors import Conflict, NotFound, SwitchroomError
from switchroom.queue import EndReason, Held, LeaseLost, QueueEvent, State
from switchroom.realtime.handover import KIOSK_PREFIX, hold_by_token
from switchroom.realtime.kiosk_call import Changed, KioskCall, KioskTools, Lost, Paused, Resumed, Tell
from switchroom.records.model import state_of_end

log = logging.getLogger(__name__)

_WAIT_S = 30.0
_PAUSE_S = 0.5
_STORE_ERRORS = (SwitchroomError, ResponseError)


class Kiosk:
    """One connection of one kiosk. What happens goes to `tell`, in order for each call.

    After `pause_after` offers in a row that were not answered it is paused (0: never): its operator has left.
    """

    def __init__(
        self,
        tools: KioskTools,
        flow: Flow,
        client_id: str,
        tell: Tell,
        *,
        skills: Sequence[str],
        capacity: int,
        paused: bool = False,
        pause_after: int = 0,
    ) -> None:
        self._tools = tools
        self._flow = flow
        self._tell = tell
        self._skills = tuple(skills)
        self._capacity = capacity
        self._calls: dict[str, KioskCall] = {}
        self._room = asyncio.Event()
        self._paused = paused
        self._pause_after = pause_after
        self._unanswered = 0
        self._asking: asyncio.Task[list[Held]] | None = None
        self.owner = KIOSK_PREFIX + client_id
        self.settled = asyncio.Event()
        """Set once the calls that it held before are its own again, or lost: what it says of them is understood."""

    async def run(self, held: Mapping[str, tuple[int, int | None]]) -> None:
        """Goes on with the calls that it `held` (task: token, and the last turn whose end it was told, where it knows)
        and takes further ones, until cancelled. Then offers that were not answered go back; live calls stay its own for
        as long as their lease is."""
        try:
            try:
                after, _ = await self._tools.feed.position(self._flow.id)
                for task_id, (token, told) in held.items():
                    await self._resume(task_id, token, told)
            finally:
                self.settled.set()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch(after), name="kiosk-watch")
                group.create_task(self._claim(), name="kiosk-claim")
        finally:
            await asyncio.shield(self._leave())

    async def accept(self, task_id: str) -> None:
        """Raises `NotFound`, or `LeaseLost` where the offer is over."""
        call = self._mine(task_id)
        if call.live:
            return
        self._unanswered = 0
        await self._tools.queue.answer(call.held)
        await self._tell(Changed(task_id=task_id, state=State.LIVE))
        await call.begin()

    async def refuse(self, task_id: str, reason: str) -> None:
        call = self._mine(task_id)
        if call.live:
            raise Conflict(f"the call {task_id} is live: complete it", code="wrong_state")
        self._unanswered = 0
        self._drop(call)
        await self._tools.queue.refuse(call.held, reason)

    async def ping(self) -> None:
        """The callers of all its calls are still there."""
        for call in list(self._calls.values()):
            if call.live:
                try:
                    await self._tools.queue.heartbeat(call.held)
                except LeaseLost as error:
                    await self._lost(call, error)

    async def pause(self, reason: str = "") -> None:
        """It is offered nothing until it resumes. Live calls, and offers that are out, stay its own."""
        self._paused = True
        if self._asking is not None:
            self._asking.cancel()
        await self._tell(Paused(reason=reason))

    async def resume(self) -> None:
        """It takes calls again; it has been idle since now."""
        self._paused = False
        self._unanswered = 0
        self._room.set()
        await self._tell(Resumed())

    async def ask(self, task_id: str | None, text: str, heard: str | None) -> None:
        """The caller of a live call (None: of the only one) said something."""
        live = [call for call in self._calls.values() if call.live]
        if task_id is None and len(live) != 1:
            raise Conflict(f"{len(live)} calls are live: name one by taskId", code="which_call")
        call = self._mine(task_id) if task_id is not None else live[0]
        if not call.live:
            raise Conflict(f"the call {call.task_id} is not live", code="wrong_state")
        await call.ask(text, heard)

    async def complete(self, task_id: str, outcome: str, result: Any) -> None:
        """The record first, then the call; both only where the hold still stands."""
        call = self._mine(task_id)
        await self._finish(call, EndReason.COMPLETED, outcome=outcome, result=result)

    async def _finish(self, call: KioskCall, reason: EndReason, *, outcome: str = "", result: Any = None) -> None:
        queue = self._tools.queue
        try:
            if call.live:
                await queue.hang_up(call.held, reason)
                await call.close(state_of_end(reason), reason)
                await queue.finish(call.held, reason, outcome=outcome, result=result)
            else:
                raise Conflict(f"the call {call.task_id} is not live", code="wrong_state")
        except LeaseLost as error:
            await self._lost(call, error)

    def _mine(self, task_id: str) -> KioskCall:
        call = self._calls.get(task_id)
        if call is None:
            raise NotFound(f"the call {task_id} is not at this kiosk", code="not_yours")
        return call

    def _drop(self, call: KioskCall) -> None:
        self._calls.pop(call.task_id, None)
        self._room.set()

    async def _lost(self, call: KioskCall, error: LeaseLost) -> None:
        self._drop(call)
        await call.stop_turn()
        await self._tell(Lost(task_id=call.task_id, state=error.state or "", reason=error.end_reason or ""))

    async def _claim(self) -> None:
        while True:
            while self._paused or len(self._calls) >= self._capacity:
                self._room.clear()
                await self._room.wait()
            asking = self._asking = asyncio.create_task(self._wait_claim(), name="kiosk-wait")
            try:
                found = await asking
                if self._paused:  # they came while the pause did
                    for held in found:
                        await self._tools.queue.release(held, "holder_left")
                    continue
            except asyncio.CancelledError:
                this = asyncio.current_task()
                if this is None or this.cancelling():
                    raise
                continue  # a pause ended the wait
            except _STORE_ERRORS as error:
                log.warning("a kiosk waits for the store", extra={"detail": str(error)})
                await asyncio.sleep(_PAUSE_S)
                continue
            for held in found:
                call = self._calls[held.task_id] = KioskCall(self._tools, self._flow, held, self._tell)
                if held.attempt > 1:
                    await call.recall()
                await self._tell(call.offer())

    async def _wait_claim(self) -> list[Held]:
        return await self._tools.queue.wait_claim(
            self.owner,
            self._flow.id,
            skills=self._skills,
            limit=self._capacity - len(self._calls),
            lease_ms=self._tools.lease_ms,
            offer_ms=self._tools.offer_ms,
            rests=True,
            timeout_s=_WAIT_S,
        )

    async def _resume(self, task_id: str, token: int, told: int | None) -> None:
        stored = await self._tools.queue.get(self._flow.id, task_id)
        if stored is None:
            await self._tell(Lost(task_id=task_id))
            return
        held = hold_by_token(stored, self.owner, token, self._tools.lease_ms)
        try:
            await self._tools.queue.heartbeat(held)
        except LeaseLost as error:
            await self._tell(Lost(task_id=task_id, state=error.state or "", reason=error.end_reason or ""))
            return
        call = self._calls[task_id] = KioskCall(self._tools, self._flow, held, self._tell)
        if not call.live:
            await call.recall()
            await self._tell(call.offer())
            return
        await self._tell(Changed(task_id=task_id, state=State.LIVE))
        await call.resume(told)

    async def _watch(self, after: str) -> None:
        """Tells what becomes of its calls, whoever did it, as soon as it happens."""
        while True:
            try:
                for change in await self._tools.feed.changes(self._flow.id, after, timeout_s=_WAIT_S):
                    after = change.id
                    if (call := self._calls.get(change.task_id)) is not None:
                        await self._changed(call, change)
            except _STORE_ERRORS as error:
                log.warning("a kiosk waits for the store", extra={"detail": str(error)})
                await asyncio.sleep(_PAUSE_S)

    async def _changed(self, call: KioskCall, change: QueueEvent) -> None:
        if change.attempt < call.held.attempt:
            return
        reason = change.end_reason or ""
        ours = change.attempt == call.held.attempt and change.owner == self.owner
        if ours and not call.live and "no_answer" in (change.cause, reason):
            self._unanswered += 1
            if self._unanswered == self._pause_after and not self._paused:
                await self.pause("no_answer")
        match change.state:
            case State.WRAPUP if ours and call.live and change.cause not in ("hung_up", "finished"):
                # A verb ended it (complete, cancel): whoever holds a call closes its record.
                await self._tell(Changed(task_id=call.task_id, state=State.WRAPUP, reason=reason, detail=change.detail))
                await self._finish(call, change.end_reason or EndReason.COMPLETED)
            case State.ENDED:
                self._drop(call)
                await call.stop_turn()
                await self._tell(Changed(task_id=call.task_id, state=State.ENDED, reason=reason, detail=change.detail))
            case State.PENDING | State.SCHEDULED:
                self._drop(call)
                await call.stop_turn()
                await self._tell(Lost(task_id=call.task_id, state=change.state, reason=change.cause))

    async def _leave(self) -> None:
        for call in list(self._calls.values()):
            try:
                if call.live:
                    await call.stop_turn()
                else:
                    await self._tools.queue.release(call.held, "holder_left")
            except _STORE_ERRORS as error:
                log.info("a kiosk left a call", extra={"task_id": call.task_id, "detail": str(error)})
