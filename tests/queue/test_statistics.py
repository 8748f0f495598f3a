"""Figures: of ever, of the last minutes, by day; what counts as what."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, date, datetime, timedelta

import pytest

from switchroom.hours import OpeningHours
from switchroom.queue import CALLER_HUNG_UP, EndReason, Figures, NewCall, Queue, Rules
from switchroom.store import Store

FLOW = "support"
RULES = Rules(lines=50, short_abandon_ms=60, service_level_ms=100)


@pytest.fixture(autouse=True)
async def configured(queue: Queue) -> None:
    await queue.configure(FLOW, RULES)


async def put(queue: Queue, caller: str, **more: object) -> str:
    return (await queue.enqueue(FLOW, NewCall(form={"ID": caller}, **more), RULES)).task_id  # type: ignore[arg-type]


async def today(queue: Queue) -> Figures:
    day = datetime.now(UTC).date()
    found = await queue.statistics(FLOW, first=day - timedelta(days=1), last=day + timedelta(days=1))
    assert found.window == found.ever
    assert list(found.days.values()) == [found.ever]
    return found.ever


async def test_every_kind_of_end_is_counted_once_everywhere(queue: Queue) -> None:
    quick, slow, short, left, died = [await put(queue, name) for name in ("quick", "slow", "short", "left", "died")]
    expired = await put(queue, "expired", expires_at_ms=int(time.time() * 1000) + 30)
    held = {one.task_id: one for one in await queue.claim(FLOW, "w", limit=1)}
    await queue.answer(held[quick])
    await queue.cancel(FLOW, short, CALLER_HUNG_UP)
    await asyncio.sleep(0.11)
    await queue.cancel(FLOW, left, CALLER_HUNG_UP)
    (late,) = await queue.claim(FLOW, "w", limit=1, answered=True)
    assert late.task_id == slow
    await queue.finish(held[quick], EndReason.COMPLETED)
    await queue.finish(late, EndReason.FAILED)
    for _ in range(3):
        await queue.claim(FLOW, "dead", lease_ms=10)
        await asyncio.sleep(0.02)
    await queue.tick(FLOW)
    assert [(await queue.detail(FLOW, task)).call.end_reason for task in (expired, died)] == ["expired", "failed"]
    figures = await today(queue)
    assert (figures.answered, figures.in_sl, figures.handled) == (2, 1, 2)
    assert (figures.abandoned, figures.short_abandoned, figures.failed, figures.ended) == (3, 1, 2, 6)
    assert figures.service_level == 1 / (2 + 3 - 1)
    assert 100 <= figures.longest_ms < 10_000
    assert figures.average_wait_ms is not None and 50 <= figures.average_wait_ms < 10_000
    assert figures.average_handle_ms is not None and 40 <= figures.average_handle_ms < 10_000


async def test_a_second_attempt_is_no_second_answer(queue: Queue) -> None:
    await put(queue, "a")
    await queue.claim(FLOW, "dead", lease_ms=10, answered=True)
    await asyncio.sleep(0.02)
    (held,) = await queue.claim(FLOW, "w", answered=True)
    await queue.finish(held, EndReason.COMPLETED)
    figures = await today(queue)
    assert (figures.answered, figures.handled, figures.ended) == (1, 1, 1)


async def test_a_callback_waits_from_its_own_time_on(queue: Queue) -> None:
    from_ms = int(time.time() * 1000) + 150
    await put(queue, "a", not_before_ms=from_ms)
    await asyncio.sleep(0.17)
    await queue.claim(FLOW, "w", answered=True)
    since_ms = time.time() * 1000 - from_ms
    figures = await today(queue)
    assert (figures.answered, figures.in_sl) == (1, 1)
    assert figures.wait_ms <= since_ms  # and not the 150 ms before


async def test_the_longest_wait_now_is_of_any_priority_and_lane(queue: Queue) -> None:
    day = date(2026, 1, 1)
    assert (await queue.statistics(FLOW, first=day, last=day)).longest_waiting_ms == 0
    await put(queue, "old", skills=("sl",), priority=-3)
    await asyncio.sleep(0.12)
    for number in range(5):
        await put(queue, f"n{number}", priority=number)
    assert 110 <= (await queue.statistics(FLOW, first=day, last=day)).longest_waiting_ms < 1_000


async def test_old_minutes_leave_the_window_and_days_are_kept_for_their_time(queue: Queue, store: Store) -> None:
    await queue.configure(FLOW, Rules(stats_days=2))
    await put(queue, "a")
    await queue.claim(FLOW, "w", answered=True)
    # the clock of the function is the server's: move the minute, not the clock
    minute = int(await store.call("HGET", f"sr:{{{FLOW}}}:conf", "minute"))
    await store.call("HSET", f"sr:{{{FLOW}}}:conf", "minute", minute - 15)
    days = {"first": datetime.now(UTC).date() - timedelta(days=1), "last": datetime.now(UTC).date()}
    found = await queue.statistics(FLOW, **days)
    assert (found.window.answered, found.ever.answered) == (0, 1)
    assert (await queue.statistics(FLOW, **days, window_minutes=17)).window.answered == 1
    await put(queue, "b")
    await queue.claim(FLOW, "w", answered=True)  # the first change of another minute closes the one before
    found = await queue.statistics(FLOW, **days, window_minutes=17)
    assert (found.window.answered, found.ever.answered, sum(day.answered for day in found.days.values())) == (2, 2, 2)
    assert (await queue.status(FLOW)).stats.answered == 2
    day = (minute - 15) // 1_440
    assert 0 < await store.call("TTL", f"sr:{{{FLOW}}}:minute:{minute - 15}") <= 7_200
    assert 0 < await store.call("TTL", f"sr:{{{FLOW}}}:stats:{day}") <= 2 * 86_400


async def test_a_day_is_a_day_of_the_flows_own_place(queue: Queue) -> None:
    far = OpeningHours(timezone="Pacific/Kiritimati", weekly={name: [("00:00", "24:00")] for name in
                       ("mon", "tue", "wed", "thu", "fri", "sat", "sun")})  # fmt: skip
    await queue.configure(FLOW, Rules(hours=far))
    await put(queue, "a")
    await queue.claim(FLOW, "w", answered=True)
    there = (datetime.now(UTC) + timedelta(hours=14)).date()
    found = await queue.statistics(FLOW, first=there, last=there)
    assert list(found.days) == [there.isoformat()]
