"""The outbox is exchanged once; a call's messages go in order; bounds hold; a lost lease counts for nothing."""

from __future__ import annotations

import asyncio
import time

import pytest
from receiving import FLOW, MakeWebhooks, entry, message, post

from switchroom.errors import NotFound
from switchroom.store import Store, keys
from switchroom.webhooks import CALLBACK, Attempt, Delivery, Outcome, Webhooks, scripts

OK = Attempt(at_ms=1, status=204)
BAD = Attempt(at_ms=1, status=500, error="status")


async def claim(webhooks: Webhooks, limit: int = 10, lease_ms: int = 5_000) -> list[Delivery]:
    return (await webhooks.deliveries.claim(FLOW, "me", lease_ms=lease_ms, limit=limit)).deliveries


async def test_an_entry_becomes_messages_once_however_many_processes_read_it(
    store: Store, make_webhooks: MakeWebhooks
) -> None:
    rooms = [make_webhooks() for _ in range(4)]
    entries = [await entry(store, f"task-{number}") for number in range(50)]
    made = [(one, [message(one, end, task_id=f"task-{n}") for end in ("a", "b")]) for n, one in enumerate(entries)]
    results = await asyncio.gather(
        *(room.deliveries.schedule(FLOW, made[first : first + 25]) for room in rooms for first in (0, 25))
    )
    assert sum(result.taken for result in results) == 50
    assert sum(result.made for result in results) == 100
    assert await store.call("XLEN", keys.queue_outbox(FLOW)) == 0
    assert await rooms[0].deliveries.counts(FLOW, "a") == (50, 0)


async def test_messages_of_one_call_go_one_after_the_other(store: Store, webhooks: Webhooks) -> None:
    first = await post(store, webhooks, "a", kind="call.pending")
    second = await post(store, webhooks, "a", kind="call.live")
    third = await post(store, webhooks, "a", kind="call.ended")
    other_call = await post(store, webhooks, "a", task_id="task-2")
    other_end = await post(store, webhooks, "b")
    held = {one.id: one for one in await claim(webhooks)}
    assert set(held) == {first, other_call, other_end}, "neither another call nor another endpoint waits for it"
    assert await claim(webhooks) == []
    await webhooks.deliveries.finish(held[first], Outcome.DELIVERED, OK)
    (held_second,) = await claim(webhooks)
    assert held_second.id == second
    # one that failed once holds up nobody any more: its retry comes later, out of order
    await webhooks.deliveries.finish(held_second, Outcome.WAITING, BAD, retry_in_ms=60_000)
    (held_third,) = await claim(webhooks)
    assert held_third.id == third
    await webhooks.deliveries.finish(held_third, Outcome.DELIVERED, OK)
    waiting = await webhooks.deliveries.claim(FLOW, "me", lease_ms=5_000, limit=9)
    assert waiting.deliveries == []
    assert waiting.wait_ms is not None and waiting.wait_ms <= 5_000, "the leases of the other two end first"
    for name in (other_call, other_end):
        await webhooks.deliveries.finish(held[name], Outcome.DELIVERED, OK)
    assert await store.call("KEYS", keys.webhooks(FLOW) + keys.WH_LANE + "*") == [], "no lane is left behind"


async def test_a_lease_that_ended_is_taken_over_and_its_late_failure_does_not_count(
    store: Store, webhooks: Webhooks
) -> None:
    name = await post(store, webhooks, "a")
    (lost,) = await claim(webhooks, lease_ms=30)
    assert await claim(webhooks) == []
    await asyncio.sleep(0.05)
    (held,) = await claim(webhooks)
    assert (held.id, held.token) == (name, lost.token + 1)
    assert [one.error for one in held.attempts] == ["sender_lost"], "the log says that a sender died"
    assert not await webhooks.deliveries.finish(lost, Outcome.FAILED, BAD)
    assert (await webhooks.deliveries.get(FLOW, "a", name)).outcome is Outcome.WAITING
    # but what was delivered was delivered
    assert await webhooks.deliveries.finish(lost, Outcome.DELIVERED, OK)
    assert not await webhooks.deliveries.finish(held, Outcome.FAILED, BAD)
    assert (await webhooks.deliveries.get(FLOW, "a", name)).outcome is Outcome.DELIVERED
    assert await webhooks.deliveries.counts(FLOW, "a") == (0, 0)


async def test_requests_under_way_to_one_endpoint_are_bounded(store: Store, make_webhooks: MakeWebhooks) -> None:
    one, two = make_webhooks(), make_webhooks()
    for number in range(20):
        await post(store, one, "slow", task_id=f"task-{number}")
    await post(store, one, "quick")
    held = [*await claim(one, 5), *await claim(two, 100)]
    assert sum(each.endpoint_id == "slow" for each in held) == scripts.MOST_RUNNING
    assert sum(each.endpoint_id == "quick" for each in held) == 1, "a full endpoint holds up no other"
    assert await claim(two) == []
    await one.deliveries.finish(held[0], Outcome.DELIVERED, OK)
    assert len(await claim(two)) == 1


async def test_a_callback_host_that_is_full_holds_up_no_other(store: Store, webhooks: Webhooks) -> None:
    for number in range(20):
        await post(store, webhooks, CALLBACK, task_id=f"task-{number}", url=f"https://slow.example/{number}")
    await post(store, webhooks, CALLBACK, task_id="other", url="https://quick.example/")
    held = await claim(webhooks, 100)
    assert len(held) == scripts.MOST_RUNNING + 1


async def test_messages_that_nobody_takes_are_bounded_and_drops_counted(
    store: Store, webhooks: Webhooks, caplog: pytest.LogCaptureFixture
) -> None:
    await store.call("HSET", keys.webhooks(FLOW) + keys.WH_OPEN, "a", scripts.MOST_OPEN - 1)
    names = [await entry(store, f"task-{number}") for number in range(3)]
    result = await webhooks.deliveries.schedule(
        FLOW, [(name, [message(name, "a", task_id=f"task-{n}")]) for n, name in enumerate(names)]
    )
    assert result == (3, 1, 2)
    assert await webhooks.deliveries.counts(FLOW, "a") == (scripts.MOST_OPEN, 2)


async def test_the_log_is_bounded(store: Store, webhooks: Webhooks) -> None:
    for number in range(scripts.MOST_DONE + 20):
        name = await entry(store, f"task-{number}")
        await webhooks.deliveries.schedule(FLOW, [(name, [message(name, "a", task_id=f"task-{number}")])])
    waiting = await post(store, webhooks, "a", task_id="stays")
    while held := await claim(webhooks, 100):
        for one in held:
            if one.id != waiting:
                await webhooks.deliveries.finish(one, Outcome.DELIVERED, OK)
            else:
                await webhooks.deliveries.finish(one, Outcome.WAITING, BAD, retry_in_ms=600_000)
    prefix = keys.webhooks(FLOW)
    assert await store.call("ZCARD", prefix + keys.WH_DONE + "a") == scripts.MOST_DONE
    assert await store.call("ZCARD", prefix + keys.WH_LOG + "a") == scripts.MOST_DONE + 1
    assert len(await store.call("KEYS", prefix + keys.WH_DELIVERY + "*")) == scripts.MOST_DONE + 1
    assert (await webhooks.deliveries.get(FLOW, "a", waiting)).outcome is Outcome.WAITING
    ttl = await store.call("PTTL", prefix + keys.WH_DONE + "a")
    assert 0 < ttl <= 2 * scripts.KEEP_MS, "and leaves with an endpoint that fell silent"


async def test_old_deliveries_are_forgotten_by_age(store: Store, webhooks: Webhooks) -> None:
    old = await post(store, webhooks, "a")
    (held,) = await claim(webhooks)
    await webhooks.deliveries.finish(held, Outcome.DELIVERED, OK)
    done = keys.webhooks(FLOW) + keys.WH_DONE + "a"
    await store.call("ZADD", done, int(time.time() * 1000) - scripts.KEEP_MS - 1, old)
    new = await post(store, webhooks, "a", task_id="task-2")
    (held,) = await claim(webhooks)
    await webhooks.deliveries.finish(held, Outcome.DELIVERED, OK)
    assert [one.id for one in await webhooks.deliveries.newest(FLOW, "a")] == [new]
    with pytest.raises(NotFound):
        await webhooks.deliveries.get(FLOW, "a", old)


async def test_redelivery_begins_the_schedule_anew(store: Store, webhooks: Webhooks) -> None:
    name = await post(store, webhooks, "a")
    (held,) = await claim(webhooks)
    await webhooks.deliveries.redeliver(FLOW, "a", name)
    assert await claim(webhooks) == [], "one under way is not sent twice at a time"
    await webhooks.deliveries.finish(held, Outcome.FAILED, BAD)
    again = await webhooks.deliveries.redeliver(FLOW, "a", name)
    assert (again.outcome, again.tries, len(again.attempts)) == (Outcome.WAITING, 0, 1)
    assert await webhooks.deliveries.counts(FLOW, "a") == (1, 0)
    (held,) = await claim(webhooks)
    assert held.id == name
    await webhooks.deliveries.finish(held, Outcome.WAITING, BAD, retry_in_ms=600_000)
    await webhooks.deliveries.redeliver(FLOW, "a", name)
    (held,) = await claim(webhooks)
    await webhooks.deliveries.finish(held, Outcome.DELIVERED, OK)
    assert len((await webhooks.deliveries.get(FLOW, "a", name)).attempts) == 3
    with pytest.raises(NotFound):
        await webhooks.deliveries.redeliver(FLOW, "b", name)
    with pytest.raises(NotFound):
        await webhooks.deliveries.redeliver(FLOW, "a", "msg_unknown")


async def test_a_message_behind_another_is_not_pushed_past_it(store: Store, webhooks: Webhooks) -> None:
    first = await post(store, webhooks, "a")
    second = await post(store, webhooks, "a")
    await webhooks.deliveries.redeliver(FLOW, "a", second)
    assert [one.id for one in await claim(webhooks)] == [first]


async def test_what_failed_is_not_crowded_out_and_is_sent_again_together(store: Store, webhooks: Webhooks) -> None:
    bad = [await post(store, webhooks, "a", task_id=f"bad-{number}") for number in range(5)]
    for one in await claim(webhooks):
        await webhooks.deliveries.finish(one, Outcome.FAILED if one.id != bad[0] else Outcome.CANCELLED, BAD)
    for number in range(scripts.MOST_DONE + 5):
        await post(store, webhooks, "a", task_id=f"good-{number}")
    while held := await claim(webhooks, 100):
        for one in held:
            await webhooks.deliveries.finish(one, Outcome.DELIVERED, OK)
    assert {one.id for one in await webhooks.deliveries.newest(FLOW, "a", failed=True)} == set(bad)
    assert await webhooks.deliveries.redeliver_failed(FLOW, "a") == 5
    assert await webhooks.deliveries.newest(FLOW, "a", failed=True) == []
    assert {one.id for one in await claim(webhooks)} == set(bad)
