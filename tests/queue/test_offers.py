"""Offers: the deadline apart from the lease, refusal with a back-off, dead letters and their return, retry delays."""

from __future__ import annotations

import asyncio
import time

import pytest

from switchroom.errors import Conflict, NotFound
from switchroom.queue import CALLER_HUNG_UP, EndReason, Held, LeaseLost, NewCall, Queue, Rules, State
from switchroom.store import Store

FLOW = "support"
RULES = Rules()


def call(caller: str = "+38641656457", **more: object) -> NewCall:
    return NewCall(form={"ID": caller}, **more)  # type: ignore[arg-type]


async def put(queue: Queue, caller: str = "a", **more: object) -> str:
    return (await queue.enqueue(FLOW, call(caller, **more), RULES)).task_id


async def take(queue: Queue, owner: str = "kiosk", **more: int) -> Held:
    (held,) = await queue.claim(FLOW, owner, **more)
    return held


async def causes(queue: Queue, task: str) -> list[str]:
    return [change.cause for change in (await queue.detail(FLOW, task)).history]


async def test_an_offer_that_is_not_answered_goes_back_however_alive_its_holder_is(queue: Queue) -> None:
    task = await put(queue)
    held = await take(queue, lease_ms=5_000, offer_ms=80)
    for _ in range(4):
        await asyncio.sleep(0.03)
        if (await queue.detail(FLOW, task)).call.state is State.OFFERED:
            await queue.heartbeat(held)
    await asyncio.sleep(0.05)
    await queue.tick(FLOW)
    with pytest.raises(LeaseLost):
        await queue.answer(held)
    assert await causes(queue, task) == ["enqueued", "claimed", "no_answer"]
    assert await queue.claim(FLOW, "kiosk") == []  # it did not answer just now
    assert (await take(queue, "another")).task_id == task


async def test_an_answer_after_the_deadline_is_late_even_before_anybody_looked(queue: Queue) -> None:
    await put(queue)
    held = await take(queue, offer_ms=20)
    await asyncio.sleep(0.04)
    with pytest.raises(LeaseLost):
        await queue.answer(held)


async def test_an_answered_call_has_no_offer_deadline_any_more(queue: Queue) -> None:
    await put(queue)
    held = await take(queue, offer_ms=40)
    await queue.answer(held)
    await asyncio.sleep(0.06)
    await queue.tick(FLOW)
    await queue.heartbeat(held)


async def test_a_refused_call_keeps_its_place_and_goes_to_another_holder(queue: Queue) -> None:
    first, second = await put(queue, "a"), await put(queue, "b")
    held = await take(queue)
    assert held.task_id == first
    await queue.refuse(held, "on the phone")
    assert (await take(queue)).task_id == second  # the refused one is not offered to it again for now
    assert (await take(queue, "another")).task_id == first
    assert await causes(queue, first) == ["enqueued", "claimed", "refused", "claimed"]
    assert (await queue.detail(FLOW, first)).history[2].detail == "on the phone"
    with pytest.raises(LeaseLost):
        await queue.answer(held)


async def test_the_back_off_doubles_and_belongs_to_one_holder_and_one_call(queue: Queue, store: Store) -> None:
    await queue.configure(FLOW, Rules(refuse_backoff_ms=60))
    task = await put(queue)

    async def now_ms() -> int:
        seconds, micros = await store.call("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    for pause_ms in (60, 120, 240):
        held = await take(queue)
        before = await now_ms()
        await queue.refuse(held)
        until = int(await store.call("ZSCORE", f"sr:{{{FLOW}}}:backoff", f"kiosk\x1f{task}"))
        assert before + pause_ms <= until <= await now_ms() + pause_ms
        while not (again := await queue.claim(FLOW, "kiosk")):
            await asyncio.sleep(0.005)
        assert await now_ms() >= until
        await queue.release(again[0], "put back")
    await queue.refuse(await take(queue))
    assert await queue.claim(FLOW, "kiosk") == []
    await put(queue, "b")
    assert (await take(queue)).call.caller_id == "b"
    assert (await take(queue, "another")).task_id == task


async def test_many_refusals_are_no_failed_attempts_and_lost_ones_are(queue: Queue) -> None:
    task = await put(queue, max_attempts=2)
    for number in range(10):
        await queue.refuse(await take(queue, f"kiosk-{number}"))
    for number in range(2):
        await take(queue, f"dead-{number}", lease_ms=15)
        await asyncio.sleep(0.03)
    await queue.tick(FLOW)
    ended = (await queue.detail(FLOW, task)).call
    assert (ended.state, ended.end_reason) == (State.ENDED, EndReason.FAILED)


async def test_a_call_that_nobody_answers_is_a_dead_letter(queue: Queue) -> None:
    task = await put(queue, max_attempts=1)
    await take(queue, offer_ms=15)
    await asyncio.sleep(0.03)
    await queue.tick(FLOW)
    (dead,), total = await queue.dead_letters(FLOW)
    assert (dead.task_id, dead.end_reason, total) == (task, EndReason.NO_ANSWER, 1)
    assert (await queue.status(FLOW)).dead_count == 1
    # an ended call is forgotten after a while, a dead letter only after its own time
    later = int(time.time() * 1000) + 60_000
    assert await queue.tick(FLOW, forget_before_ms=later) == 0
    assert (await queue.dead_letters(FLOW))[1] == 1
    assert await queue.tick(FLOW, forget_dead_before_ms=later) == 1
    assert await queue.dead_letters(FLOW) == ([], 0)


async def test_a_dead_letter_comes_back_as_a_new_call_in_its_old_place(queue: Queue) -> None:
    old = await put(queue, "a", max_attempts=1, skills=("sl", "en"))
    await queue.claim(FLOW, "dead", lease_ms=15, skills=("en", "sl"))
    await asyncio.sleep(0.03)
    await put(queue, "b", skills=("sl", "en"))
    assert (await queue.dead_letters(FLOW))[1] == 1
    new, state = await queue.requeue(FLOW, old)
    assert state is State.PENDING
    assert await queue.requeue(FLOW, old) == (new, State.PENDING)  # asked again, answered again
    assert (await queue.dead_letters(FLOW))[1] == 0
    before, after = (await queue.detail(FLOW, old)).call, await queue.detail(FLOW, new)
    assert (before.state, before.requeued_as) == (State.ENDED, new)
    assert (after.call.requeued_from, after.call.form, after.call.max_attempts) == (old, {"ID": "a"}, 1)
    assert (after.position, after.history[0].cause, after.call.attempt) == (1, "requeued", 0)
    assert (await queue.claim(FLOW, "w", skills=("sl", "en")))[0].task_id == new


async def test_what_cannot_be_requeued_says_why(queue: Queue) -> None:
    with pytest.raises(NotFound):
        await queue.requeue(FLOW, "flowise-none")
    waiting = await put(queue)
    with pytest.raises(Conflict) as refused:
        await queue.requeue(FLOW, waiting)
    assert refused.value.code == "not_dead"
    dead = await put(queue, "b", max_attempts=1, priority=5)
    await take(queue, lease_ms=10)
    await asyncio.sleep(0.02)
    await queue.tick(FLOW)
    other = await put(queue, "b")
    with pytest.raises(Conflict) as refused:
        await queue.requeue(FLOW, dead)
    assert refused.value.extra == {"taskId": other}
    assert (await queue.requeue(FLOW, dead, duplicates="allow"))[1] is State.PENDING


@pytest.mark.parametrize("answered", [False, True])
async def test_after_a_failed_attempt_a_call_waits_and_keeps_its_place(queue: Queue, answered: bool) -> None:
    await queue.configure(FLOW, Rules(retry_delay_ms=120))
    first, second = await put(queue, "a"), await put(queue, "b")
    await queue.claim(FLOW, "dead", lease_ms=15, answered=answered)
    await asyncio.sleep(0.03)
    await queue.tick(FLOW)
    waiting = await queue.detail(FLOW, first)
    assert (waiting.call.state, waiting.history[-1].cause) == (State.SCHEDULED, "lease_expired")
    held = await take(queue)
    assert held.task_id == second
    await queue.release(held, "put back")
    await asyncio.sleep(0.13)
    assert (await queue.detail(FLOW, first)).position == 1
    assert (await take(queue)).task_id == first


async def test_an_offered_call_that_comes_back_can_still_expire(queue: Queue) -> None:
    task = await put(queue, expires_at_ms=int(time.time() * 1000) + 80)
    held = await take(queue)
    await queue.release(held, "not now")
    await asyncio.sleep(0.1)
    assert (await queue.detail(FLOW, task)).call.end_reason is EndReason.EXPIRED


async def test_a_caller_who_leaves_before_the_answer_abandons_the_call(queue: Queue) -> None:
    waiting, offered = await put(queue, "a"), await put(queue, "b", priority=1)
    held = await take(queue)
    assert held.task_id == offered
    for task in (waiting, offered):
        assert await queue.cancel(FLOW, task, CALLER_HUNG_UP) == (task, State.ENDED, "abandoned")
    assert await causes(queue, offered) == ["enqueued", "claimed", "caller_hung_up"]
    with pytest.raises(LeaseLost) as lost:
        await queue.answer(held)
    assert lost.value.end_reason is EndReason.ABANDONED


async def test_a_caller_who_leaves_a_live_call_completes_it(queue: Queue) -> None:
    task = await put(queue)
    held = await take(queue)
    await queue.answer(held)
    assert await queue.cancel(FLOW, task, CALLER_HUNG_UP) == (task, State.WRAPUP, "completed")
    assert await queue.finish(held, EndReason.FAILED) is State.ENDED


async def test_leaving_ends_what_is_not_answered_and_nothing_else(queue: Queue) -> None:
    waiting, live = await put(queue, "a"), await put(queue, "b", priority=1)
    held = await take(queue)
    await queue.answer(held)
    assert await queue.abandon(FLOW, live) is State.LIVE
    await queue.heartbeat(held)
    assert await queue.abandon(FLOW, waiting) is State.ENDED
    assert (await queue.detail(FLOW, waiting)).call.end_reason is EndReason.ABANDONED
    assert await queue.abandon(FLOW, waiting) is State.ENDED
    with pytest.raises(NotFound):
        await queue.abandon(FLOW, "flowise-none")
