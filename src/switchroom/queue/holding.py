"""The holder's side of the queue: claiming, waiting for a call, and every word of a holder about a call it holds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from switchroom.errors import Conflict, NotFound, SwitchroomError
from switchroom.queue.answers import Finished, LeaseLost, Waiting
from switchroom.queue.codec import call_of, decode_call, encode_json, skill_set
from switchroom.queue.fair import Shares
from switchroom.queue.model import Call, EndReason, Held, State
from switchroom.queue.rules import LEASE_MS, OFFER_MS, WRAPUP_MS
from switchroom.queue.waiting import Given, Inbox
from switchroom.store import Store, keys

log = logging.getLogger(__name__)

REGISTER_S = 10.0
"""How long a waiting holder stands in the store before it has to say again that it waits."""
_REMEMBERED = 10_000

Argument = str | int | Sequence[Any]
"""What a verb of the server-side function takes: text, numbers and lists, no bytes."""

T = TypeVar("T")


class _Reply(msgspec.Struct, frozen=True):
    held: list[Held]
    lost: set[tuple[str, int]]
    idle_since: str
    rests_ms: int


class Holding:
    """Claims calls and says what becomes of them. Every write of a hold that was lost raises `LeaseLost`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._inbox = Inbox(store, self)
        self._idle_since: OrderedDict[str, str] = OrderedDict()
        self._shares: OrderedDict[str, Shares] = OrderedDict()

    async def close(self) -> None:
        """Ends the waiting of this process."""
        await self._inbox.close()

    # --- claiming ----------------------------------------------------------------------------------------------

    async def claim(
        self,
        flow_id: str,
        owner: str,
        *,
        limit: int = 1,
        lease_ms: int = LEASE_MS,
        offer_ms: int = OFFER_MS,
        answered: bool = False,
        skills: Sequence[str] = (),
        rests: bool = False,
    ) -> list[Held]:
        """Takes up to `limit` calls, as far as lines are free: the first of those that need no more than `skills`, and
        that this holder did not refuse a short while ago.

        They must be answered within `offer_ms` (0: as long as the lease is kept); `answered` makes them live at once.
        Calls with a `ccBaseUrl` go only to a holder whose one skill is `UNITY`. A holder that `rests` gets no call of
        a flow before its wrap-up time there is over.
        """
        terms = (lease_ms, offer_ms, limit, answered, skill_set(skills), rests)
        return (await self._claim(flow_id, owner, terms)).held

    async def wait_claim(
        self,
        owner: str,
        flows: Mapping[str, int] | str,
        *,
        skills: Sequence[str] = (),
        limit: int = 1,
        lease_ms: int = LEASE_MS,
        offer_ms: int = OFFER_MS,
        answered: bool = False,
        rests: bool = False,
        timeout_s: float = 30.0,
    ) -> list[Held]:
        """`claim` from one flow or from several by weight, waiting until there is something; [] after `timeout_s`.

        Nothing is polled: a call that may be taken wakes, among the holders that wait and may take it, the one that has
        been idle the longest. One owner may wait in several processes, but only once in each. Waits that follow each
        other count as one; a cancelled one ends it.
        """
        weights = {flows: 1} if isinstance(flows, str) else dict(flows)
        terms = (lease_ms, offer_ms, limit, answered, skill_set(skills), rests)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        waiter = self._inbox.expect(owner, weights, lease_ms)
        owed: set[str] = set()
        given: list[Given] = []
        registered: set[str] = set()
        try:
            while True:
                owed, given = waiter.take()
                if given:  # it waits in one flow alone
                    (flow_id,) = weights
                    registered.discard(flow_id)
                    self._idle_since.pop(owner, None)
                    first, given = given[0], given[1:]
                    return [_arrived(flow_id, lease_ms, first)]
                held, rests_ms = await self._round(owner, weights, terms, registered)
                owed -= {held[0].flow_id} if held else owed
                left_s = deadline - loop.time()
                if held or left_s <= 0:
                    return held
                pause_s = min(left_s, REGISTER_S)
                if rests_ms:
                    pause_s = min(pause_s, rests_ms / 1000 + 0.002)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await waiter.woken()
        except asyncio.CancelledError:
            self._idle_since.pop(owner, None)  # it went away: what it did meanwhile was not waiting
            raise
        finally:
            self._inbox.forget(owner, weights, waiter)
            for flow_id in registered:
                try:
                    await self._run("unwait", flow_id, owner, terms[4], self._inbox.name)
                except SwitchroomError as error:  # what was claimed is not lost for it; the registration runs out
                    log.warning("a waiting holder could not be signed off", extra={"detail": error.detail})
            late, more = waiter.take()
            for flow_id in owed | late:
                self._inbox.tell(self.pass_on(flow_id))
            for one in given + more:
                self._inbox.tell(self.hand_back(next(iter(weights)), one))

    async def rests_ms(self, owner: str, flow_ids: Iterable[str]) -> int:
        """How long a holder still wraps up after a call of any of these flows (0: it is available)."""
        seconds, micros = await self._store.call("TIME")
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        until = [await self._store.call("ZSCORE", keys.queue_available(flow_id), owner) for flow_id in flow_ids]
        return max(0, *(int(at_ms) - now_ms for at_ms in until if at_ms), 0)

    async def turn_over(
        self,
        flow_id: str,
        owner: str,
        finished: Sequence[Finished],
        *,
        limit: int = 1,
        lease_ms: int = LEASE_MS,
        offer_ms: int = OFFER_MS,
        answered: bool = False,
        skills: Sequence[str] = (),
    ) -> tuple[list[Held], list[str]]:
        """Closes calls and claims the next ones in one step. Returns what it holds now, and the tasks of those of
        `finished` whose hold was lost: they were not written."""
        alike: dict[tuple[int, str, str, str, str], dict[str, None]] = {}
        for one in finished:
            end = (one.held.token, one.reason, one.detail, one.outcome, encode_json(one.result))
            alike.setdefault(end, {})[one.held.task_id] = None
        terms = (lease_ms, offer_ms, limit, answered, skill_set(skills), False)
        reply = await self._claim(flow_id, owner, terms, finished=[(*end, list(tasks)) for end, tasks in alike.items()])
        done = (one.held for one in finished)
        return reply.held, [held.task_id for held in done if (held.task_id, held.token) in reply.lost]

    async def claim_call(
        self, flow_id: str, task_id: str, owner: str, *, lease_ms: int = LEASE_MS, offer_ms: int = 60_000
    ) -> Held | Waiting:
        """Takes the one call whose caller is on the line, or says how many such callers go before it.

        Callers that wait on a line are served in the queue's order; asking again within 15 s keeps the place.
        Raises `NotFound`, or `Conflict` (code `call_ended`, `call_held`, or `call_reserved` for one with a `ccBaseUrl`)
        where the call is not to be had.
        """
        reply = await self._run("join", flow_id, owner, lease_ms, offer_ms, task_id)
        match reply[0]:
            case b"held":
                return _held(flow_id, owner, lease_ms, task_id.encode(), *reply[1:])
            case b"wait":
                return Waiting(place=reply[1])
            case b"reserved":
                raise Conflict(f"the call {task_id} is taken by the client at its ccBaseUrl", code="call_reserved")
        state, reason = reply[1].decode(), reply[2].decode()
        if not state:
            raise NotFound(f"no call {task_id} in this flow", code="unknown_task")
        if state == State.ENDED:
            raise Conflict(f"the call {task_id} has ended ({reason})", code="call_ended")
        raise Conflict(f"the call {task_id} is {state}", code="call_held", extra={"state": state})

    # --- a call that is held -----------------------------------------------------------------------------------

    async def answer(self, held: Held) -> None:
        """The caller is connected: offered → live."""
        await self._hold("answer", held, held.lease_ms)

    async def refuse(self, held: Held, cause: str = "") -> None:
        """The holder does not take the offer: the call keeps its place, and is not offered to this holder again for a
        while, longer each time. It is no failed attempt of the call."""
        await self._hold("refuse", held, cause)

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
        return await self._hold("finish", held, reason, detail, outcome, encode_json(result))

    async def release(self, held: Held, cause: str, detail: str = "") -> None:
        """Gives a call back to its old place in the queue."""
        await self._hold("release", held, cause, detail)

    async def note(self, held: Held, cause: str, detail: str = "") -> None:
        """Tells of something that changes no state of a live call (an operator took it over, say): it stands in the
        call's history, the event stream and the outbox, in order with the changes."""
        await self._hold("note", held, cause, detail)

    # --- one run each ------------------------------------------------------------------------------------------

    async def _run(self, verb: str, flow_id: str, *args: Argument) -> Any:
        raise NotImplementedError

    async def took(self, flow_id: str, given: Given, lease_ms: int) -> None:
        """See `Arrivals`."""
        await self._run("hold", flow_id, "took", given.task_id, given.owner, given.token, lease_ms)

    async def hand_back(self, flow_id: str, given: Given) -> None:
        """See `Arrivals`."""
        await self._run(
            "hold", flow_id, "release", given.task_id, given.owner, given.token, "holder_left", "it waited no more"
        )

    async def pass_on(self, flow_id: str) -> None:
        """See `Arrivals`."""
        await self._run("tick", flow_id, 0, 0)

    async def _round(
        self, owner: str, weights: dict[str, int], terms: tuple[int, int, int, bool, str, bool], registered: set[str]
    ) -> tuple[list[Held], int]:
        """Asks the flows once, those that are owed most first; whoever has nothing has the holder on its list."""
        if terms[5] and (rests_ms := await self.rests_ms(owner, weights)):
            return [], rests_ms
        shares = _recall(self._shares, owner, Shares())
        order = shares.order(weights)
        looks = [False, True] if len(order) > 1 else [True]  # it waits only where no flow has anything
        rests_ms = 0
        for waits in looks:
            for flow_id in order:
                reply = await self._claim(flow_id, owner, terms, waits=waits, direct=len(order) == 1 and not terms[5])
                if reply.held:
                    registered.discard(flow_id)
                    self._idle_since.pop(owner, None)
                    shares.took(flow_id, len(reply.held), weights)
                    return reply.held, 0
                shares.empty(flow_id)
                if reply.rests_ms:
                    rests_ms = min(rests_ms or reply.rests_ms, reply.rests_ms)
                elif waits:
                    registered.add(flow_id)
                    _recall(self._idle_since, owner, reply.idle_since)
        return [], rests_ms

    async def _claim(
        self,
        flow_id: str,
        owner: str,
        terms: tuple[int, int, int, bool, str, bool],
        *,
        waits: bool = False,
        direct: bool = False,
        finished: Sequence[tuple[Any, ...]] = (),
    ) -> _Reply:
        lease_ms, offer_ms, limit, answered, skills, rests = terms
        asked = asyncio.ensure_future(
            self._run(
                "claim",
                flow_id,
                owner,
                lease_ms,
                offer_ms,
                limit,
                "1" if answered else "",
                skills,
                int(REGISTER_S * 1000) + 1_000 if waits else "",
                self._inbox.name,
                self._idle_since.get(owner, ""),
                "1" if direct else "",
                "1" if rests else "",
                finished,
            )
        )
        try:
            reply = await asyncio.shield(asked)
        except asyncio.CancelledError:
            # The store may have given us calls: nobody would know of them before their lease is over.
            with contextlib.suppress(SwitchroomError):
                for held in _batch(flow_id, owner, lease_ms, await asked):
                    await self.release(held, "holder_left")
            raise
        lost, idle_since, rests_ms = reply[4:]
        calls = _batch(flow_id, owner, lease_ms, reply)
        return _Reply(calls, {(task.decode(), token) for task, token in lost}, idle_since.decode(), int(rests_ms))

    async def _hold(self, verb: str, held: Held, *args: Argument) -> State:
        reply = await self._run("hold", held.flow_id, verb, held.task_id, held.owner, held.token, *args)
        if reply[0] == b"lost":
            raise LeaseLost(held.task_id, reply[1].decode(), reply[2].decode())
        return State(reply[1].decode())


def _batch(flow_id: str, owner: str, lease_ms: int, reply: Sequence[Any]) -> list[Held]:
    """The calls that a claim took, as the server-side function answers them."""
    tasks, token, records, payloads = reply[:4]
    return [
        _held(flow_id, owner, lease_ms, task, token, record, payload)
        for task, record, payload in zip(tasks, records, payloads, strict=True)
    ]


def _held(flow_id: str, owner: str, lease_ms: int, task: bytes, token: int, record: bytes, payload: bytes) -> Held:
    return _hold(decode_call(flow_id, task.decode(), record, payload), owner, token, lease_ms)


def _arrived(flow_id: str, lease_ms: int, given: Given) -> Held:
    assert given.standing is not None and given.own is not None
    call = call_of(flow_id, given.task_id, given.standing, given.own, given.payload)
    return _hold(call, given.owner, given.token, lease_ms)


def _hold(call: Call, owner: str, token: int, lease_ms: int) -> Held:
    return Held(call=call, owner=owner, attempt=call.attempt, token=token, lease_ms=lease_ms)


def _recall(kept: OrderedDict[str, T], owner: str, new: T) -> T:
    """What is kept for a holder, or `new` from now on; those not seen for longest are forgotten."""
    value = kept.setdefault(owner, new)
    kept.move_to_end(owner)
    if len(kept) > _REMEMBERED:
        kept.popitem(last=False)
    return value
