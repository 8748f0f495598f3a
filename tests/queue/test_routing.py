"""Who gets which call: skills and their relaxation, calls for Unity, waiting holders, several flows by weight."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import msgspec
import pytest
from stored import rewrite

from switchroom.errors import Conflict
from switchroom.queue import UNITY, EndReason, Finished, Held, LeaseLost, NewCall, Queue, Rules, State
from switchroom.queue.fair import Shares
from switchroom.store import Store

FLOW = "support"
RULES = Rules(lines=100, cap=0)


@pytest.fixture(autouse=True)
async def configured(queue: Queue) -> None:
    await queue.configure(FLOW, RULES)


async def put(queue: Queue, caller: str, *skills: str, flow: str = FLOW, **more: object) -> str:
    call = NewCall(form={"ID": caller}, skills=skills, **more)  # type: ignore[arg-type]
    return (await queue.enqueue(flow, call, RULES)).task_id


async def soon(task: asyncio.Task[list[Held]]) -> list[Held]:
    """What a waiting holder got, if it was woken: its own time-out is far away."""
    return await asyncio.wait_for(asyncio.shield(task), 3)


async def callers(queue: Queue, *skills: str, limit: int = 100, owner: str = "w") -> list[str]:
    return [held.call.caller_id for held in await queue.claim(FLOW, owner, skills=skills, limit=limit)]


# --- skills ---


async def test_a_holder_gets_the_calls_that_need_no_more_than_it_has(queue: Queue) -> None:
    for caller, *skills in (("plain",), ("sl", "sl"), ("both", "sl", "billing"), ("de", "de")):
        await put(queue, caller, *skills)
    assert await callers(queue) == ["plain"]
    assert await callers(queue, "billing", "sl", "x") == ["sl", "both"]
    assert await callers(queue, "de") == ["de"]


async def test_priority_and_place_count_over_all_lanes(queue: Queue) -> None:
    await put(queue, "plain")
    await put(queue, "sl", "sl")
    urgent = await put(queue, "urgent", "sl", priority=1)
    late = await put(queue, "late")
    assert (await queue.detail(FLOW, urgent)).position == 1
    assert (await queue.detail(FLOW, late)).position == 4
    rows = (await queue.status(FLOW)).pending
    assert [(row.caller_id, row.position) for row in rows] == [("urgent", 1), ("plain", 2), ("sl", 3), ("late", 4)]
    assert await callers(queue, "sl", limit=3) == ["urgent", "plain", "sl"]


async def test_pages_of_the_status_cover_all_lanes_once(queue: Queue) -> None:
    for number in range(25):
        await put(queue, f"n{number}", *(("sl",) if number % 3 else ()), priority=number % 2)
    seen, places, after = [], [], ""
    while True:
        status = await queue.status(FLOW, after=after, limit=4)
        seen += [row.caller_id for row in status.pending]
        places += [row.position for row in status.pending]
        after = status.next_after
        if not after:
            break
    assert len(set(seen)) == len(seen) == 25
    assert places == list(range(1, 26))
    assert [int(name[1:]) % 2 for name in seen] == [1] * 12 + [0] * 13


async def test_skilled_calls_at_the_head_do_not_hide_the_others(queue: Queue) -> None:
    for number in range(300):
        await put(queue, f"s{number}", "rare")
    await put(queue, "plain")
    assert await callers(queue, limit=1) == ["plain"]


async def test_more_skill_sets_than_lanes_are_served_all_the_same(queue: Queue) -> None:
    for number in range(80):
        await put(queue, f"n{number}", f"skill-{number}")
    await put(queue, "two", "skill-70", "skill-71")
    assert await callers(queue, "skill-3") == ["n3"]
    assert await callers(queue, "skill-70", "skill-71") == ["n70", "n71", "two"]
    assert await queue.clear(FLOW) == 77
    assert (await queue.status(FLOW)).pending_count == 0


async def test_a_waiting_call_needs_less_as_time_goes_by(queue: Queue, store: Store) -> None:
    await queue.configure(FLOW, Rules(lines=100, relax_after_s=(1, 2)))
    task = await put(queue, "a", "sl", "billing", "gold")
    await put(queue, "b", "sl", "billing", "gold")
    assert await callers(queue, "sl", "billing") == []

    async def waited(ms: int) -> None:  # the clock of a script is the server's: move the call's, not the clock
        since = int(time.time() * 1000) - ms
        key = f"sr:{{{FLOW}}}:c:{task}"
        await rewrite(store, key, since=since)
        await store.call("ZADD", f"sr:{{{FLOW}}}:relax", since, task)

    await waited(1_500)
    assert (await queue.detail(FLOW, task)).position == 1
    held = await queue.claim(FLOW, "w", skills=("billing", "sl"))
    assert [one.task_id for one in held] == [task]
    await queue.release(held[0], "put back")  # it stays as relaxed as it was
    assert await callers(queue, "gold") == []
    await waited(2_500)
    assert await callers(queue, "sl") == ["a"]


async def test_calls_for_unity_stand_in_a_line_of_their_own(queue: Queue) -> None:
    unity = await put(queue, "unity", "sl", cc_base_url="https://unity.example")
    await put(queue, "plain")
    await put(queue, "sl", "sl")
    assert await callers(queue, "sl", "billing") == ["plain", "sl"]
    with pytest.raises(Conflict) as refused:
        await queue.claim_call(FLOW, unity, "media")
    assert refused.value.code == "call_reserved"
    assert await callers(queue, UNITY) == ["unity"]


async def test_an_update_of_a_joined_call_moves_it_to_its_new_lane(queue: Queue) -> None:
    task = await put(queue, "a", "sl")
    assert await put(queue, "a", "de") == task
    assert await callers(queue, "sl") == []
    assert await callers(queue, "de") == ["a"]


# --- waiting holders ---


async def test_a_waiting_holder_is_woken_at_once_and_asks_the_store_nothing_meanwhile(
    queue: Queue, store: Store
) -> None:
    waiter = asyncio.create_task(queue.wait_claim("w", FLOW, timeout_s=30))
    await asyncio.sleep(0.1)
    before = (await store.call("INFO", "stats")).decode().split("total_commands_processed:")[1].split()[0]
    await asyncio.sleep(0.3)
    after = (await store.call("INFO", "stats")).decode().split("total_commands_processed:")[1].split()[0]
    assert int(after) - int(before) == 1  # our own INFO
    start = time.monotonic()
    task = await put(queue, "a")
    (held,) = await soon(waiter)
    assert held.task_id == task
    assert time.monotonic() - start < 2  # a poll would be seconds away


async def test_a_holder_that_waits_in_vain_gets_nothing_and_leaves_no_trace(queue: Queue, store: Store) -> None:
    assert await queue.wait_claim("w", FLOW, timeout_s=0.05) == []
    names = {name.decode().rpartition(":")[2] for name in await store.call("KEYS", "*support*")}
    assert not names & {"waiting", "profiles", "idle"}


async def test_the_holder_that_is_idle_longest_is_served_first(queue: Queue) -> None:
    served: list[str] = []

    async def hold(owner: str, turns: int) -> None:
        for _ in range(turns):
            (held,) = await queue.wait_claim(owner, FLOW, answered=True, timeout_s=30)
            served.append(owner)
            await queue.finish(held, EndReason.COMPLETED)

    holders = []
    for owner in ("a", "b", "c"):
        holders.append(asyncio.create_task(hold(owner, 2)))
        await asyncio.sleep(0.01)
    for number in range(6):
        await put(queue, f"n{number}")
        await asyncio.sleep(0.02)
    await asyncio.gather(*holders)
    assert served == ["a", "b", "c", "a", "b", "c"]


async def test_a_holder_that_went_away_was_not_idle_meanwhile(queue: Queue) -> None:
    first = asyncio.create_task(queue.wait_claim("comes-and-goes", FLOW, timeout_s=30))
    await asyncio.sleep(0.03)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    waiting = {}
    for owner in ("stays", "comes-and-goes"):
        waiting[owner] = asyncio.create_task(queue.wait_claim(owner, FLOW, timeout_s=30))
        await asyncio.sleep(0.03)
    task = await put(queue, "a")
    assert [held.task_id for held in await soon(waiting["stays"])] == [task]
    waiting["comes-and-goes"].cancel()
    await asyncio.gather(waiting["comes-and-goes"], return_exceptions=True)


async def test_a_wake_goes_to_a_holder_that_may_take_the_call(queue: Queue) -> None:
    plain = asyncio.create_task(queue.wait_claim("plain", FLOW, timeout_s=30))
    await asyncio.sleep(0.01)
    skilled = asyncio.create_task(queue.wait_claim("skilled", FLOW, skills=("sl",), timeout_s=30))
    unity = asyncio.create_task(queue.wait_claim("unity", FLOW, skills=(UNITY,), timeout_s=30))
    await asyncio.sleep(0.03)
    first = await put(queue, "a", "sl")
    assert [held.task_id for held in await soon(skilled)] == [first]
    second = await put(queue, "b", cc_base_url="https://unity.example")
    assert [held.task_id for held in await soon(unity)] == [second]
    assert not plain.done()
    third = await put(queue, "c")
    assert [held.task_id for held in await soon(plain)] == [third]


async def test_the_longest_idle_is_found_among_holders_with_different_skills(queue: Queue) -> None:
    waiting = {}
    for owner, skills in (("old", ("sl",)), ("middle", ()), ("young", ("de", "sl"))):
        waiting[owner] = asyncio.create_task(queue.wait_claim(owner, FLOW, skills=skills, timeout_s=30))
        await asyncio.sleep(0.02)
    for owner in ("old", "middle", "young"):
        task = await put(queue, f"for-{owner}")
        assert [held.task_id for held in await soon(waiting[owner])] == [task]


async def test_the_right_token_in_the_wrong_hands_is_refused(queue: Queue) -> None:
    await put(queue, "a")
    (held,) = await queue.claim(FLOW, "w")
    with pytest.raises(LeaseLost):
        await queue.answer(msgspec.structs.replace(held, owner="thief"))
    await queue.answer(held)


async def test_a_refused_call_wakes_another_holder_and_not_the_one_that_refused(queue: Queue) -> None:
    waiting = {name: asyncio.create_task(queue.wait_claim(name, FLOW, timeout_s=30)) for name in ("a", "b")}
    await asyncio.sleep(0.02)
    task = await put(queue, "x")
    done, _ = await asyncio.wait(waiting.values(), return_when=asyncio.FIRST_COMPLETED, timeout=2)
    (held,) = done.pop().result()
    again = asyncio.create_task(queue.wait_claim(held.owner, FLOW, timeout_s=0.3))
    await asyncio.sleep(0.02)
    await queue.refuse(held)
    other = "b" if held.owner == "a" else "a"
    assert [one.task_id for one in await soon(waiting[other])] == [task]
    assert await again == []


async def test_a_freed_line_wakes_a_holder(queue: Queue) -> None:
    await queue.configure(FLOW, Rules(lines=1))
    await put(queue, "a")
    await put(queue, "b")
    (held,) = await queue.claim(FLOW, "w", answered=True)
    waiter = asyncio.create_task(queue.wait_claim("other", FLOW, timeout_s=30))
    await asyncio.sleep(0.05)
    assert not waiter.done()
    await queue.finish(held, EndReason.COMPLETED)
    assert [one.call.caller_id for one in await soon(waiter)] == ["b"]


async def test_a_paused_queue_wakes_nobody_until_it_is_open(queue: Queue) -> None:
    await queue.toggle(FLOW, False)
    waiter = asyncio.create_task(queue.wait_claim("w", FLOW, timeout_s=30))
    await asyncio.sleep(0.02)
    await put(queue, "a")
    await asyncio.sleep(0.05)
    assert not waiter.done()
    await queue.toggle(FLOW, True)
    assert len(await soon(waiter)) == 1


async def test_a_wake_that_reached_a_dead_process_is_mended_by_the_timer(queue: Queue, store: Store) -> None:
    dead = Queue(store)
    waiter = asyncio.create_task(dead.wait_claim("dead", FLOW, timeout_s=30))
    await asyncio.sleep(0.03)
    # kill -9: its tasks are gone, its registration stays
    await dead.close()
    waiter.add_done_callback(lambda task: task.exception() if not task.cancelled() else None)
    alive = asyncio.create_task(queue.wait_claim("alive", FLOW, timeout_s=30))
    await asyncio.sleep(0.03)
    task = await put(queue, "a")  # is given to `dead`, which is idle for longer
    other = await put(queue, "b")
    assert [held.task_id for held in await soon(alive)] == [other]
    await asyncio.sleep(2)
    assert [held.task_id for held in await queue.claim(FLOW, "next", limit=9)] == [task]
    detail = await queue.detail(FLOW, task)
    assert [change.cause for change in detail.history] == ["enqueued", "claimed", "not_taken", "claimed"]
    # what arrived has its whole lease
    assert [change.cause for change in (await queue.detail(FLOW, other)).history] == ["enqueued", "claimed"]
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)


async def test_a_holder_cancelled_while_it_claims_gives_the_call_back(queue: Queue) -> None:
    tasks = {await put(queue, f"n{number}") for number in range(30)}
    for delay in range(30):
        waiter = asyncio.create_task(queue.wait_claim(f"w{delay}", FLOW, timeout_s=30))
        for _ in range(delay % 6):
            await asyncio.sleep(0)
        waiter.cancel()
        try:
            for held in await soon(waiter):
                await queue.release(held, "test")
        except asyncio.CancelledError:
            pass
    status = await queue.status(FLOW)
    assert (status.pending_count, status.active) == (30, [])
    assert {row.task_id for row in status.pending} == tasks


async def test_a_holder_that_leaves_while_it_is_given_a_call_gives_it_back(queue: Queue) -> None:
    for delay in range(12):
        waiter = asyncio.create_task(queue.wait_claim(f"w{delay}", FLOW, timeout_s=30))
        await asyncio.sleep(0.02)
        task = await put(queue, f"n{delay}")
        for _ in range(delay):
            await asyncio.sleep(0)
        waiter.cancel()
        try:
            (held,) = await soon(waiter)
            await queue.release(held, "test")
        except asyncio.CancelledError:
            pass
        for _ in range(100):
            if (await queue.detail(FLOW, task)).call.state is State.PENDING:
                break
            await asyncio.sleep(0.01)
        await queue.remove(FLOW, task)


async def test_a_hundred_holders_and_a_thousand_calls(queue: Queue) -> None:
    taken: list[str] = []

    async def hold(owner: str) -> None:
        while held := await queue.wait_claim(owner, FLOW, answered=True, timeout_s=1):
            taken.extend(one.task_id for one in held)
            for one in held:
                await queue.finish(one, EndReason.COMPLETED)

    holders = [asyncio.create_task(hold(f"h{number}")) for number in range(100)]
    tasks = [await put(queue, f"n{number}") for number in range(1_000)]
    await asyncio.gather(*holders)
    assert sorted(taken) == sorted(tasks)


# --- several flows ---


async def test_one_holder_serves_several_flows_by_weight(queue: Queue) -> None:
    for flow in ("gold", "iron"):
        await queue.configure(flow, RULES)
        for number in range(60):
            await put(queue, f"{flow}-{number}", flow=flow)
    served = []
    for _ in range(40):
        (held,) = await queue.wait_claim("w", {"gold": 3, "iron": 1}, answered=True, timeout_s=1)
        served.append(held.flow_id)
        await queue.finish(held, EndReason.COMPLETED)
    assert Counter(served) == {"gold": 30, "iron": 10}
    assert all(served[start : start + 4].count("iron") == 1 for start in range(0, 40, 4))


async def test_a_call_in_any_of_its_flows_wakes_a_holder_and_it_waits_in_none_afterwards(
    queue: Queue, store: Store
) -> None:
    for flow in ("one", "two"):
        await queue.configure(flow, RULES)
        waiter = asyncio.create_task(queue.wait_claim("w", {"one": 1, "two": 1}, timeout_s=30))
        await asyncio.sleep(0.03)
        task = await put(queue, f"caller-{flow}", flow=flow)
        (held,) = await soon(waiter)
        assert (held.flow_id, held.task_id) == (flow, task)
        assert await store.call("KEYS", "*waiting") == []


async def test_a_wake_that_comes_while_the_holder_is_served_elsewhere_reaches_another(queue: Queue) -> None:
    for flow in ("one", "two"):
        await queue.configure(flow, RULES)
    both = asyncio.create_task(queue.wait_claim("both", {"one": 1, "two": 1}, timeout_s=30))
    await asyncio.sleep(0.03)
    second = asyncio.create_task(queue.wait_claim("second", "two", timeout_s=30))
    await asyncio.sleep(0.03)
    await asyncio.gather(put(queue, "a", flow="one"), put(queue, "b", flow="two"))
    assert len(await soon(both)) == 1
    assert len(await soon(second)) == 1 or (await soon(both))[0].flow_id == "two"


def test_shares_follow_the_weights_and_nothing_is_saved_up() -> None:
    shares, weights = Shares(), {"a": 5, "b": 2, "c": 1}
    served: Counter[str] = Counter()
    for _ in range(80):
        flow = shares.order(weights)[0]
        served[flow] += 1
        shares.took(flow, 1, weights)
    assert served == {"a": 50, "b": 20, "c": 10}
    for _ in range(100):  # only `c` has calls
        shares.empty("a")
        shares.empty("b")
        shares.took("c", 1, weights)
    burst = []
    for _ in range(8):
        flow = shares.order(weights)[0]
        burst.append(flow)
        shares.took(flow, 1, weights)
    assert 1 <= burst.count("b") <= 3


# --- turning over, resting ---


async def test_finishing_and_claiming_is_one_step(queue: Queue) -> None:
    tasks = [await put(queue, f"n{number}") for number in range(6)]
    first = await queue.claim(FLOW, "w", limit=3, answered=True)
    stolen = first[1]
    await queue.cancel(FLOW, stolen.task_id)
    await queue.finish(stolen, EndReason.CANCELLED)
    done = [Finished(held=held, outcome="sold", result={"n": 1}) for held in first]
    held, lost = await queue.turn_over(FLOW, "w", [*done, done[0]], limit=10, answered=True)
    assert [one.task_id for one in held] == tasks[3:]
    assert lost == [stolen.task_id]
    ended = (await queue.detail(FLOW, tasks[0])).call
    assert (ended.state, ended.end_reason, ended.outcome, ended.result) == (
        State.ENDED, EndReason.COMPLETED, "sold", {"n": 1},
    )  # fmt: skip
    assert [change.state for change in (await queue.detail(FLOW, tasks[0])).history] == [
        State.PENDING, State.OFFERED, State.LIVE, State.WRAPUP, State.ENDED,
    ]  # fmt: skip
    causes = [event.cause for event in await queue.events(FLOW) if event.task_id == tasks[0]]
    assert causes == ["enqueued", "claimed", "answered", "hung_up", "finished"]  # once, though it was named twice


async def test_after_a_call_the_line_and_its_holder_rest(queue: Queue) -> None:
    await queue.configure(FLOW, Rules(lines=1, rest_ms=150))
    await put(queue, "a")
    await put(queue, "b")
    (held,) = await queue.claim(FLOW, "w", answered=True)
    await queue.hang_up(held, EndReason.COMPLETED)
    await queue.finish(held, EndReason.COMPLETED)
    assert (await queue.status(FLOW)).free == 0
    assert await queue.claim(FLOW, "w", rests=True) == []
    assert await queue.claim(FLOW, "other") == []
    start = time.monotonic()
    assert len(await queue.wait_claim("w", FLOW, rests=True, timeout_s=10)) == 1
    assert time.monotonic() - start > 0.1


async def test_a_resting_holder_does_not_keep_others_from_a_free_line(queue: Queue) -> None:
    await queue.configure(FLOW, Rules(lines=2, rest_ms=60_000))
    await put(queue, "a")
    (held,) = await queue.claim(FLOW, "w", answered=True)
    await queue.finish(held, EndReason.COMPLETED)
    await put(queue, "b")
    assert await queue.claim(FLOW, "w", rests=True) == []
    assert len(await queue.claim(FLOW, "other", rests=True)) == 1


async def test_a_holder_that_rests_after_a_call_of_one_flow_rests_in_all_of_its_flows(queue: Queue) -> None:
    for flow in ("one", "two"):
        await queue.configure(flow, Rules(rest_ms=200))
        await put(queue, "a", flow=flow)
    start = time.monotonic()
    (held,) = await queue.wait_claim("w", {"one": 1, "two": 1}, answered=True, rests=True, timeout_s=5)
    await queue.finish(held, EndReason.COMPLETED)
    assert 100 < await queue.rests_ms("w", ("one", "two")) <= 200
    (after,) = await queue.wait_claim("w", {"one": 1, "two": 1}, rests=True, timeout_s=5)
    assert after.flow_id != held.flow_id
    assert time.monotonic() - start >= 0.2


async def test_one_holder_may_wait_in_several_processes(queue: Queue, store: Store) -> None:
    other = Queue(store)
    first = asyncio.create_task(queue.wait_claim("dispatcher", FLOW, timeout_s=30))
    await asyncio.sleep(0.02)
    second = asyncio.create_task(other.wait_claim("dispatcher", FLOW, timeout_s=0.1))
    assert await second == []  # it signs itself off, and not the other one
    task = await put(queue, "a")
    assert [held.task_id for held in await soon(first)] == [task]
    await other.close()
