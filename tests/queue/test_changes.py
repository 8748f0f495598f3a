"""A waiting call gets another priority, another time or another expiry; and the longest wait that a flow allows."""

from __future__ import annotations

import asyncio
import time

import pytest

from switchroom.errors import Conflict, NotFound
from switchroom.queue import NewCall, Queue, Rules, State

FLOW = "support"
RULES = Rules()


async def put(queue: Queue, caller: str, **more: object) -> str:
    return (await queue.enqueue(FLOW, NewCall(form={"ID": caller}, **more), RULES)).task_id  # type: ignore[arg-type]


async def line(queue: Queue) -> list[tuple[str, int, bool]]:
    rows = (await queue.status(FLOW)).pending
    return [(row.caller_id, row.position, row.overtaken) for row in rows]


def soon(ms: int) -> int:
    return time.time_ns() // 1_000_000 + ms


async def test_a_call_is_put_before_the_others_and_back_to_its_place(queue: Queue) -> None:
    a, b, c = [await put(queue, name) for name in "abc"]
    assert (await queue.detail(FLOW, b)).position == 2
    done = await queue.change(FLOW, c, priority=5, detail="priority 5")
    assert (done.state, done.position, done.overtaken) == (State.PENDING, 1, False)
    assert await line(queue) == [("c", 1, False), ("a", 2, True), ("b", 3, True)]
    held = await queue.claim(FLOW, "w")
    assert [one.task_id for one in held] == [c]
    await queue.release(held[0], "handed_back")
    done = await queue.change(FLOW, c, priority=0)
    assert done.position == 3
    assert await line(queue) == [("a", 1, False), ("b", 2, False), ("c", 3, False)]
    history = (await queue.detail(FLOW, c)).history
    assert [(change.cause, change.state) for change in history] == [
        ("enqueued", "pending"), ("changed", "pending"), ("claimed", "offered"), ("handed_back", "pending"),
        ("changed", "pending"),
    ]  # fmt: skip
    assert history[1].detail == "priority 5"
    assert [held.task_id for held in await queue.claim(FLOW, "w", limit=3)] == [a, b, c]


async def test_a_call_is_put_off_and_comes_back_to_its_place(queue: Queue) -> None:
    first = await put(queue, "first")
    second = await put(queue, "second")
    assert (await queue.change(FLOW, first, not_before_ms=soon(60_000))).state is State.SCHEDULED
    status = await queue.status(FLOW)
    assert (status.pending_count, status.scheduled_count) == (1, 1)
    assert [held.task_id for held in await queue.claim(FLOW, "w", limit=2)] == [second]
    # another time, still to come; then now
    due_ms = soon(120_000)
    assert (await queue.change(FLOW, first, not_before_ms=due_ms)).state is State.SCHEDULED
    assert (await queue.detail(FLOW, first)).call.not_before_ms == due_ms
    await put(queue, "third")
    done = await queue.change(FLOW, first, not_before_ms=0)
    assert (done.state, done.position) == (State.PENDING, 1)
    call = (await queue.detail(FLOW, first)).call
    assert abs(call.waiting_since_ms - soon(0)) < 60_000, "it waits from now, not from the time that was asked for"
    assert [row.caller_id for row in (await queue.status(FLOW)).pending] == ["first", "third"]


async def test_a_scheduled_call_wakes_the_holder_that_waits_when_it_may_be_offered_now(queue: Queue) -> None:
    task = await put(queue, "a", not_before_ms=soon(3_600_000))
    waiting = asyncio.create_task(queue.wait_claim("w", FLOW, timeout_s=20))
    await asyncio.sleep(0.05)  # it has found nothing, and waits
    await queue.change(FLOW, task, not_before_ms=0)
    assert [held.task_id for held in await asyncio.wait_for(waiting, 10)] == [task]


async def test_expiry_is_given_moved_and_taken_away(queue: Queue) -> None:
    one, other, none = [await put(queue, name) for name in ("one", "other", "none")]
    for task in (one, other, none):
        await queue.change(FLOW, task, expires_at_ms=soon(40))
    await queue.change(FLOW, other, expires_at_ms=soon(60_000))
    await queue.change(FLOW, none, expires_at_ms=0)
    await asyncio.sleep(0.06)
    await queue.tick(FLOW)
    assert [row.caller_id for row in (await queue.status(FLOW)).pending] == ["other", "none"]
    assert (await queue.detail(FLOW, one)).call.end_reason == "expired"
    assert (await queue.detail(FLOW, none)).call.expires_at_ms == 0


async def test_who_does_not_wait_cannot_change(queue: Queue) -> None:
    task = await put(queue, "a")
    (held,) = await queue.claim(FLOW, "w")
    with pytest.raises(Conflict, match="offered"):
        await queue.change(FLOW, task, priority=1)
    await queue.answer(held)
    await queue.cancel(FLOW, task)
    with pytest.raises(Conflict, match="wrapup"):
        await queue.change(FLOW, task, not_before_ms=soon(1_000))
    with pytest.raises(NotFound):
        await queue.change(FLOW, "flowise-none", priority=1)


async def test_a_call_with_skills_keeps_its_lane(queue: Queue) -> None:
    await put(queue, "plain")
    skilled = await put(queue, "skilled", skills=("sl",))
    await queue.change(FLOW, skilled, priority=9)
    assert [held.call.caller_id for held in await queue.claim(FLOW, "w", limit=2)] == ["plain"]
    assert [held.call.caller_id for held in await queue.claim(FLOW, "s", skills=("sl",))] == ["skilled"]


async def test_the_longest_wait_of_a_flow_counts_from_when_its_caller_waits(queue: Queue) -> None:
    await queue.configure(FLOW, Rules(max_wait_ms=50))
    at_once, later, own = (
        await put(queue, "at once"),
        await put(queue, "later", not_before_ms=soon(60_000)),
        await put(queue, "own", expires_at_ms=soon(60_000)),
    )
    call = (await queue.detail(FLOW, later)).call
    assert call.expires_at_ms == call.not_before_ms + 50
    await asyncio.sleep(0.07)
    await queue.tick(FLOW)
    states = {task: (await queue.detail(FLOW, task)).call.state for task in (at_once, later, own)}
    assert states == {at_once: State.ENDED, later: State.SCHEDULED, own: State.PENDING}
