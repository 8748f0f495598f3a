"""A media process dies in the middle of a call: its caller comes back into the same conversation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from switchroom.queue import State
from switchroom.realtime import MediaSettings
from switchroom.realtime.ears import SpeechParts
from switchroom.realtime.memory import CallMemory
from switchroom.store import Blobs, Store

from .test_call import SHORT, WAVS, House, open_house

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def house(
    room_store: Store, parts: SpeechParts, blobs: Blobs, settings: MediaSettings, short_canvas: dict[str, Any]
) -> AsyncIterator[House]:
    quick = settings.model_copy(update={"lease_ms": 1500, "heartbeat_s": 0.4})
    async with open_house(House(room_store, parts, blobs, quick), {SHORT: short_canvas}) as house:
        yield house


async def test_the_caller_comes_back_into_the_same_conversation(house: House) -> None:
    dying = await house.start_media()
    task_id = await house.enqueue()
    asked = asyncio.Event()

    def note(event: dict[str, Any]) -> None:
        if event["type"] == "turn" and event["turn"] == 2:
            asked.set()

    first = asyncio.ensure_future(house.call(task_id, WAVS[:1], on_event=note, hang_up_after_s=60))
    async with asyncio.timeout(90):
        await asked.wait()  # an answer was heard; which one, a recogniser on a busy machine decides
        while (left := await CallMemory(house.store, SHORT, task_id, 0).recall()) is None or left.given is not None:
            await asyncio.sleep(0.02)  # and that is kept
    dying.cancel()  # as a crash does it: nothing is ended, finalised or handed back
    await asyncio.gather(dying, return_exceptions=True)
    await house.start_media()
    first.cancel()
    back = await house.call(task_id, WAVS[1:2], hang_up_after_s=0.1)

    agent = [line["text"] for line in back.transcript if line["role"] == "agent"]
    assert agent[0] == f"Sorry, we were cut off. {left.session.messages[-1].text}"
    assert len(left.session.messages) == 3 and agent[1] not in (left.session.messages[0].text, "")  # no greeting again
    await house.until(task_id, State.ENDED)
    before, after = await house.executions.find(SHORT, task_id)
    assert (before.attempt, after.attempt) == (1, 2) and before.session_id == after.session_id
    assert set(before.final_state) <= set(after.final_state) and after.end_reason == "completed"
    await asyncio.gather(first, return_exceptions=True)
