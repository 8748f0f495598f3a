from __future__ import annotations

import asyncio
import time

import pytest

from switchroom.errors import Conflict, NotFound, TooMany, Unprocessable
from switchroom.queue import EndReason, Feed, Held, LeaseLost, NewCall, Queue, Rules, State, Waiting
from switchroom.store import Store

FLOW = "support"
RULES = Rules()


def call(caller: str = "+38641656457", **more: object) -> NewCall:
    return NewCall(form={"ID": caller, "ticket": "T-1"}, state={"crm": {"tier": "gold"}}, **more)  # type: ignore[arg-type]


async def claim_one(queue: Queue, owner: str = "media-1", **more: int) -> Held:
    held = await queue.claim(FLOW, owner, **more)
    assert len(held) == 1
    return held[0]


async def test_a_call_goes_all_the_way_and_leaves_its_history(queue: Queue) -> None:
    accepted = await queue.enqueue(FLOW, call(), RULES)
    assert accepted.task_id.startswith("flowise-")
    assert (accepted.pending, accepted.position, accepted.estimate_ms) == (1, 1, 0)
    held = await claim_one(queue)
    assert held.call.form == {"ID": "+38641656457", "ticket": "T-1"}
    assert held.call.memory == {"crm": {"tier": "gold"}}
    assert held.attempt == 1
    await queue.answer(held)
    await queue.heartbeat(held)
    assert await queue.hang_up(held, EndReason.COMPLETED) is State.WRAPUP
    assert await queue.finish(held, EndReason.COMPLETED, outcome="solved", result={"n": 1}) is State.ENDED
    detail = await queue.detail(FLOW, accepted.task_id)
    assert detail.call.end_reason is EndReason.COMPLETED
    assert (detail.call.outcome, detail.call.result) == ("solved", {"n": 1})
    states = [change.state for change in detail.history]
    assert states == [State.PENDING, State.OFFERED, State.LIVE, State.WRAPUP, State.ENDED]
    events = await queue.events(FLOW)
    assert [event.state for event in events] == states
    assert events[0].previous is None
    assert events[-1].end_reason is EndReason.COMPLETED
    status = await queue.status(FLOW)
    assert (status.pending_count, status.active) == (0, [])
    assert (status.stats.answered, status.stats.handled, status.stats.in_sl) == (1, 1, 1)


async def test_order_is_priority_then_arrival(queue: Queue) -> None:
    ids = {}
    for name, priority in (("a", 0), ("b", 5), ("c", 0), ("d", 5), ("e", -1)):
        ids[(await queue.enqueue(FLOW, call(name, priority=priority), RULES)).task_id] = name
    await queue.configure(FLOW, Rules(lines=10))
    assert [ids[held.task_id] for held in await queue.claim(FLOW, "w", limit=10)] == ["b", "d", "a", "c", "e"]


async def test_a_call_that_goes_back_keeps_its_place(queue: Queue) -> None:
    first = await queue.enqueue(FLOW, call("a"), RULES)
    await queue.enqueue(FLOW, call("b"), RULES)
    held = await claim_one(queue)
    await queue.release(held, "refused")
    again = await claim_one(queue, "other")
    assert again.task_id == first.task_id
    assert again.attempt == 2
    assert again.token > held.token


async def test_lines_bound_what_is_held(queue: Queue) -> None:
    await queue.configure(FLOW, Rules(lines=2))
    for name in "abc":
        await queue.enqueue(FLOW, call(name), RULES)
    held = await queue.claim(FLOW, "w", limit=10)
    assert len(held) == 2
    assert await queue.claim(FLOW, "w", limit=10) == []
    await queue.answer(held[0])
    await queue.hang_up(held[0], EndReason.COMPLETED)
    assert len(await queue.claim(FLOW, "w", limit=10)) == 1


async def test_a_lost_lease_goes_back_and_the_late_holder_is_refused(queue: Queue) -> None:
    await queue.enqueue(FLOW, call(), RULES)
    old = await claim_one(queue, "dead", lease_ms=50)
    await queue.answer(old)
    await asyncio.sleep(0.08)
    new = await claim_one(queue, "alive")
    assert new.task_id == old.task_id
    for late in (
        queue.heartbeat(old),
        queue.answer(old),
        queue.hang_up(old, EndReason.COMPLETED),
        queue.finish(old, EndReason.COMPLETED),
        queue.release(old, "x"),
    ):
        with pytest.raises(LeaseLost):
            await late
    await queue.heartbeat(new)
    causes = [change.cause for change in (await queue.detail(FLOW, new.task_id)).history]
    assert causes == ["enqueued", "claimed", "answered", "lease_expired", "claimed"]


async def test_the_same_owner_with_an_old_token_is_refused(queue: Queue) -> None:
    await queue.enqueue(FLOW, call(), RULES)
    old = await claim_one(queue, "w", lease_ms=30)
    await asyncio.sleep(0.05)
    await claim_one(queue, "w")
    with pytest.raises(LeaseLost):
        await queue.heartbeat(old)


async def test_a_heartbeat_keeps_the_lease(queue: Queue) -> None:
    await queue.enqueue(FLOW, call(), RULES)
    held = await claim_one(queue, lease_ms=150)
    for _ in range(5):
        await asyncio.sleep(0.06)
        await queue.heartbeat(held)
    assert await queue.claim(FLOW, "thief") == []


async def test_after_its_last_attempt_a_call_fails_with_a_true_reason(queue: Queue) -> None:
    task = (await queue.enqueue(FLOW, call(max_attempts=2), RULES)).task_id
    for _ in range(2):
        await claim_one(queue, lease_ms=20)
        await asyncio.sleep(0.04)
    await queue.tick(FLOW)
    ended = await queue.get(FLOW, task)
    assert ended is not None
    assert (ended.state, ended.end_reason) == (State.ENDED, EndReason.FAILED)
    assert "no sign of life" in ended.detail


async def test_the_caller_who_is_on_the_line_gets_that_call(queue: Queue) -> None:
    await queue.configure(FLOW, Rules(lines=1))
    tasks = [(await queue.enqueue(FLOW, call(name), RULES)).task_id for name in "abc"]
    third = await queue.claim_call(FLOW, tasks[2], "m")
    assert isinstance(third, Held)
    assert third.task_id == tasks[2]
    assert await queue.claim_call(FLOW, tasks[1], "m") == Waiting(place=1)
    assert await queue.claim_call(FLOW, tasks[0], "m") == Waiting(place=1)
    assert await queue.claim_call(FLOW, tasks[1], "m") == Waiting(place=2)
    with pytest.raises(Conflict, match="offered"):
        await queue.claim_call(FLOW, tasks[2], "m")
    await queue.answer(third)
    await queue.hang_up(third, EndReason.COMPLETED)
    await queue.finish(third, EndReason.COMPLETED)
    assert await queue.claim_call(FLOW, tasks[1], "m") == Waiting(place=2)
    assert isinstance(await queue.claim_call(FLOW, tasks[0], "m"), Held)
    with pytest.raises(Conflict, match="ended"):
        await queue.claim_call(FLOW, tasks[2], "m")
    with pytest.raises(NotFound):
        await queue.claim_call(FLOW, "flowise-nobody", "m")


async def test_a_paused_queue_accepts_but_hands_nothing_out(queue: Queue) -> None:
    assert await queue.toggle(FLOW, False) is False
    task = (await queue.enqueue(FLOW, call(), RULES)).task_id
    assert await queue.claim(FLOW, "w") == []
    assert await queue.claim_call(FLOW, task, "w") == Waiting(place=1)
    assert (await queue.status(FLOW)).enabled is False
    assert await queue.toggle(FLOW, None) is True
    assert len(await queue.claim(FLOW, "w")) == 1


async def test_duplicates(queue: Queue) -> None:
    first = await queue.enqueue(FLOW, call(), RULES)
    joined = await queue.enqueue(
        FLOW, NewCall(form={"ID": "+38641656457", "ticket": "T-2"}, state={}), Rules(duplicates="join")
    )
    assert (joined.task_id, joined.duplicate, joined.pending) == (first.task_id, True, 1)
    updated = await queue.get(FLOW, first.task_id)
    assert updated is not None
    assert updated.form["ticket"] == "T-2"
    with pytest.raises(Conflict) as refused:
        await queue.enqueue(FLOW, call(), Rules(duplicates="reject"))
    assert refused.value.extra == {"taskId": first.task_id}
    second = await queue.enqueue(FLOW, call(), Rules(duplicates="allow"))
    assert second.task_id != first.task_id
    assert second.pending == 2


async def test_an_ended_call_is_no_duplicate(queue: Queue) -> None:
    first = await queue.enqueue(FLOW, call(), RULES)
    await queue.remove(FLOW, first.task_id)
    assert (await queue.enqueue(FLOW, call(), Rules(duplicates="reject"))).task_id != first.task_id


async def test_a_live_call_joined_keeps_its_form(queue: Queue) -> None:
    first = await queue.enqueue(FLOW, call(), RULES)
    await claim_one(queue)
    await queue.enqueue(FLOW, NewCall(form={"ID": "+38641656457", "ticket": "T-9"}), RULES)
    kept = await queue.get(FLOW, first.task_id)
    assert kept is not None
    assert kept.form["ticket"] == "T-1"


async def test_idempotency_key(queue: Queue) -> None:
    keyed = call(idempotency_key="k1", payload_digest="d1")
    first = await queue.enqueue(FLOW, keyed, Rules(duplicates="allow"))
    await queue.enqueue(FLOW, call("b"), RULES)
    again = await queue.enqueue(FLOW, keyed, Rules(duplicates="allow"))
    assert again == first
    with pytest.raises(Unprocessable):
        await queue.enqueue(FLOW, call(idempotency_key="k1", payload_digest="d2"), RULES)


async def test_concurrent_enqueues_with_one_key_make_one_call(queue: Queue) -> None:
    keyed = call(idempotency_key="k1", payload_digest="d1")
    answers = await asyncio.gather(*(queue.enqueue(FLOW, keyed, Rules(duplicates="allow")) for _ in range(30)))
    assert len({answer.task_id for answer in answers}) == 1
    assert (await queue.status(FLOW)).pending_count == 1


async def test_a_full_queue_says_so(queue: Queue) -> None:
    await queue.enqueue(FLOW, call("a"), Rules(cap=1))
    with pytest.raises(TooMany) as full:
        await queue.enqueue(FLOW, call("b"), Rules(cap=1))
    assert full.value.retry_after_s


async def test_callback_waits_for_its_time_and_expiry_ends_a_waiting_call(queue: Queue) -> None:
    now = int(time.time() * 1000)
    later = await queue.enqueue(FLOW, call("a", not_before_ms=now + 120), RULES)
    assert (later.state, later.pending, later.position) == (State.SCHEDULED, 0, 0)
    short = await queue.enqueue(FLOW, call("b", expires_at_ms=now + 60), RULES)
    assert (await queue.status(FLOW)).scheduled_count == 1
    await asyncio.sleep(0.15)
    held = await claim_one(queue)
    assert held.task_id == later.task_id
    expired = await queue.get(FLOW, short.task_id)
    assert expired is not None
    assert expired.end_reason is EndReason.EXPIRED


async def test_verbs_are_idempotent_and_say_what_they_cannot_do(queue: Queue) -> None:
    waiting = (await queue.enqueue(FLOW, call("a"), RULES)).task_id
    held_task = (await queue.enqueue(FLOW, call("b", priority=9), RULES)).task_id
    held = await claim_one(queue)
    assert held.task_id == held_task
    with pytest.raises(Conflict):
        await queue.remove(FLOW, held_task)
    with pytest.raises(Conflict):
        await queue.complete(FLOW, waiting)
    with pytest.raises(Conflict):
        await queue.complete(FLOW, None)
    await queue.answer(held)
    assert await queue.complete(FLOW, None, outcome="sold") == (held_task, State.WRAPUP, "completed")
    assert (await queue.complete(FLOW, held_task))[1] is State.WRAPUP
    with pytest.raises(LeaseLost) as lost:
        await queue.heartbeat(held)
    assert (lost.value.state, lost.value.end_reason) == (State.WRAPUP, EndReason.COMPLETED)
    assert await queue.finish(held, EndReason.FAILED) is State.ENDED
    assert await queue.complete(FLOW, held_task) == (held_task, State.ENDED, "completed")
    assert await queue.cancel(FLOW, waiting, "caller hung up") == (waiting, State.ENDED, "cancelled")
    assert await queue.cancel(FLOW, waiting) == (waiting, State.ENDED, "cancelled")
    assert await queue.remove(FLOW, waiting) == (waiting, State.ENDED, "cancelled")
    with pytest.raises(NotFound):
        await queue.cancel(FLOW, "flowise-none")


async def test_wrapup_ends_by_itself_when_the_holder_is_gone(queue: Queue) -> None:
    task = (await queue.enqueue(FLOW, call(), RULES)).task_id
    held = await claim_one(queue)
    await queue.answer(held)
    await queue.hang_up(held, EndReason.TIMEOUT, wrapup_ms=20)
    await asyncio.sleep(0.04)
    ended = await queue.get(FLOW, task)
    assert ended is not None
    assert (ended.state, ended.end_reason) == (State.ENDED, EndReason.TIMEOUT)


async def test_clear_drops_everything_pending_and_nothing_else(queue: Queue) -> None:
    for n in range(1_205):
        await queue.enqueue(FLOW, call(f"n{n}"), RULES)
    held = await claim_one(queue)
    assert await queue.clear(FLOW) == 1_204
    assert await queue.clear(FLOW) == 0
    await queue.heartbeat(held)
    status = await queue.status(FLOW)
    assert (status.pending_count, len(status.active)) == (0, 1)


async def test_ended_calls_leave_the_store_after_their_time(queue: Queue, store: Store) -> None:
    task = (await queue.enqueue(FLOW, call(), RULES)).task_id
    await queue.remove(FLOW, task)
    assert await queue.tick(FLOW, forget_before_ms=int(time.time() * 1000) - 60_000) == 0
    assert await queue.tick(FLOW, forget_before_ms=int(time.time() * 1000) + 60_000) == 1
    assert await queue.get(FLOW, task) is None
    left = sorted(name.decode() for name in await store.call("KEYS", f"sr:{{{FLOW}}}:*"))
    left = [name for name in left if "stats" not in name and "minute" not in name]
    assert left == [
        f"sr:{{{FLOW}}}:{name}"
        for name in (
            "conf",
            "events",
        )
    ]


async def test_flows_do_not_see_each_other(queue: Queue) -> None:
    await queue.enqueue("one", call(), RULES)
    assert await queue.claim("two", "w") == []
    assert await queue.flows() == ["one"]


async def test_the_feed_wakes_on_a_change(queue: Queue, store: Store) -> None:
    feed = Feed(store)
    start = (await queue.status(FLOW)).last_event
    waiters = [asyncio.create_task(feed.wait(FLOW, start, 5)) for _ in range(20)]
    await asyncio.sleep(0.05)
    await queue.enqueue(FLOW, call(), RULES)
    newest = (await queue.status(FLOW)).last_event
    assert {await waiter for waiter in waiters} == {newest}
    assert await feed.wait(FLOW, start, 5) == newest
    assert await feed.wait(FLOW, newest, 0.05) == newest
    await feed.close()


async def test_a_thousand_concurrent_claims_hold_each_call_once(queue: Queue) -> None:
    await queue.configure(FLOW, Rules(lines=1_000))
    for n in range(200):
        await queue.enqueue(FLOW, call(f"n{n}"), RULES)
    results = await asyncio.gather(*(queue.claim(FLOW, f"w{n % 7}", limit=3) for n in range(300)))
    taken = [held.task_id for batch in results for held in batch]
    assert len(taken) == len(set(taken)) == 200
    tokens = [{held.token for held in batch} for batch in results if batch]
    assert all(len(of_one_claim) == 1 for of_one_claim in tokens)
    assert len(set.union(*tokens)) == len(tokens)
