"""What housekeeping reads of a flow's changes: the ends, and the holds that were lost."""

from __future__ import annotations

import asyncio

from switchroom.queue import EndReason, NewCall, Queue, QueueEvent, Rules, State
from switchroom.store import Store

FLOW = "support"


async def test_closings_are_the_ends_and_the_lost_holds(store: Store) -> None:
    queue = Queue(store)
    for caller in ("a", "b", "c", "d"):
        await queue.enqueue(FLOW, NewCall(form={"ID": caller}), Rules())
    [held] = await queue.claim(FLOW, "media-1", answered=True)
    await queue.finish(held, EndReason.COMPLETED)
    await queue.claim(FLOW, "media-2", lease_ms=1)
    await asyncio.sleep(0.01)
    await queue.tick(FLOW)
    await queue.clear(FLOW)
    events = await queue.events(FLOW)
    wanted = [event for event in events if event.state is State.ENDED or event.cause == "lease_expired"]
    assert [event.cause == "lease_expired" for event in wanted] == [False, True, False, False, False]

    assert await queue.closings(FLOW, "0-0") == (wanted, events[-1].id)
    assert await queue.closings(FLOW, events[-1].id) == ([], "")
    for number, event in enumerate(wanted[:-1], 1):  # the last three changed in one run
        assert await queue.closings(FLOW, event.id) == (wanted[number:], events[-1].id)

    found: list[QueueEvent] = []
    after = "0-0"
    while (page := await queue.closings(FLOW, after, limit=2))[1]:
        found, after = found + page[0], page[1]
    assert (found, after) == (wanted, events[-1].id)
