"""The place a caller is told never grows, unless calls of a higher priority came, and then it says so."""

from __future__ import annotations

import pytest

from switchroom.queue import NewCall, Queue, Rules
from switchroom.store import Store

FLOW = "support"
RULES = Rules(lines=2)


@pytest.fixture(autouse=True)
async def configured(queue: Queue) -> None:
    await queue.configure(FLOW, RULES)


async def put(queue: Queue, caller: str, *skills: str, priority: int = 0) -> str:
    call = NewCall(form={"ID": caller}, skills=skills, priority=priority)
    return (await queue.enqueue(FLOW, call, RULES)).task_id


async def told(queue: Queue, task: str) -> tuple[int, bool]:
    detail = await queue.detail(FLOW, task)
    return detail.position, detail.overtaken


async def test_calls_that_come_back_to_their_place_do_not_push_a_caller_back(queue: Queue) -> None:
    await put(queue, "a")
    await put(queue, "b")
    third = await put(queue, "c")
    held = await queue.claim(FLOW, "w", limit=2)
    assert await told(queue, third) == (1, False)
    for one in held:
        await queue.release(one, "put back")
    assert await told(queue, third) == (1, False)
    assert [row.position for row in (await queue.status(FLOW)).pending] == [1, 2, 1]
    await queue.claim(FLOW, "w", limit=1)
    assert await told(queue, third) == (1, False)


async def test_a_higher_priority_pushes_back_and_says_so_until_the_place_is_regained(queue: Queue) -> None:
    await put(queue, "a")
    second = await put(queue, "b")
    urgent = [await put(queue, f"urgent-{number}", priority=1) for number in range(2)]
    assert await told(queue, second) == (4, True)
    assert await told(queue, second) == (4, True)
    await queue.remove(FLOW, urgent[0])
    assert await told(queue, second) == (3, True)
    await put(queue, "urgent-3", priority=1)
    assert await told(queue, second) == (4, True)
    await queue.remove(FLOW, urgent[1])
    held = await queue.claim(FLOW, "w", limit=2)
    assert await told(queue, second) == (1, False)
    for (
        one
    ) in held:  # the urgent one and the one before it come back: one of a higher priority is one more than was told
        await queue.release(one, "put back")
    assert await told(queue, second) == (3, True)


async def test_the_same_or_a_lower_priority_never_pushes_back(queue: Queue) -> None:
    first = await put(queue, "a", priority=1)
    for number in range(5):
        await put(queue, f"n{number}", priority=number % 2)
    assert await told(queue, first) == (1, False)


async def test_the_enqueue_answers_by_the_same_rule(queue: Queue) -> None:
    await put(queue, "a")
    again = await queue.enqueue(FLOW, NewCall(form={"ID": "b"}), RULES)
    assert (again.position, again.overtaken) == (2, False)
    held = await queue.claim(FLOW, "w", limit=1)
    joined = await queue.enqueue(FLOW, NewCall(form={"ID": "b"}), RULES)
    assert (joined.position, joined.duplicate) == (1, True)
    await queue.release(held[0], "put back")
    assert (await queue.enqueue(FLOW, NewCall(form={"ID": "b"}), RULES)).position == 1
    await put(queue, "urgent", "sl", priority=3)
    pushed = await queue.enqueue(FLOW, NewCall(form={"ID": "b"}), RULES)
    assert (pushed.position, pushed.overtaken) == (3, True)


async def test_the_estimate_follows_the_place_and_the_lines(queue: Queue, store: Store) -> None:
    await store.call("HSET", f"sr:{{{FLOW}}}:conf", "aht_ms", 60_000)
    estimates = [(await queue.enqueue(FLOW, NewCall(form={"ID": f"n{n}"}), RULES)).estimate_ms for n in range(5)]
    assert estimates == [0, 0, 30_000, 60_000, 90_000]  # two lines are free; then one of two every half minute
