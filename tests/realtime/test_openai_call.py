"""Whole calls on the openai engine: real WebRTC, queue, flow engine, record and recording; the service is scripted.

No speech model is loaded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from switchroom.queue import State
from switchroom.realtime import MediaSettings
from switchroom.realtime import caller as caller_module
from switchroom.realtime.caller import Caller
from switchroom.realtime.client import load_audio
from switchroom.records.model import ExecutionState
from switchroom.store import Blobs, Store

from .openai_server import KEY, RealtimeServer, Says, Script
from .test_call import FLOW, WAVS, House, open_house, sides

HEARS = [
    "I have a question about my invoice.",
    "My order number is four one seven two.",
    "I want to talk to an operator, please.",
]
SAYS = [
    Says(calls=[("INVOICE", {})]),
    Says(text="I can look into your invoice. Please tell me your order number, digit by digit."),
    Says(calls=[("ORDER_NUMBER", {"order": "4172"})]),
    Says(text="Thank you. I noted order number 4 1 7 2. Is there anything else?"),
    Says(calls=[("OPERATOR", {})]),
]
GREETING = "Hello, this is the support line. I have your request T-17 here. How can I help you?"
HAND_OVER = "I am connecting you with an operator. One moment, please."
Open = Callable[[Script], AbstractAsyncContextManager[tuple[House, RealtimeServer]]]


@pytest.fixture
def opened(store: Store, blobs: Blobs, canvas: dict[str, Any]) -> Open:
    @asynccontextmanager
    async def opened(script: Script) -> AsyncIterator[tuple[House, RealtimeServer]]:
        server = RealtimeServer(script, WAVS[2])
        await server.start()
        settings = MediaSettings(
            media_loopback=True,
            engine="openai",
            openai_url=server.url,
            openai_api_key=SecretStr(KEY),
            hangover_ms=500,
        )
        try:
            async with open_house(House(store, None, blobs, settings), {FLOW: canvas}) as house:
                await house.start_media()
                yield house, server
        finally:
            await server.stop()
        assert server.faults == []

    return opened


async def test_a_whole_call(opened: Open, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller_module, "_QUIET_S", 2.0)  # a gap that a busy machine makes is not an end
    async with opened(Script(hears=HEARS, says=SAYS)) as (house, server):
        task_id = await house.enqueue(flow_id=FLOW)
        report = await house.call(task_id, WAVS, data_dir / "call.wav")
        assert report.greeted and report.ended_by == "agent" and report.end_reason == "completed"
        assert all(turn.answer_after_ms is not None for turn in report.turns)
        assert report.heard_dbfs > -40
        await house.until(task_id, State.ENDED)

        row = await house.row(task_id)
        assert row.state is ExecutionState.FINISHED and row.end_reason == "completed"
        assert [(line.role, line.text) for line in row.transcript] == [
            ("agent", GREETING),
            ("caller", HEARS[0]),
            ("agent", SAYS[1].text),
            ("caller", HEARS[1]),
            ("agent", SAYS[3].text),
            ("caller", HEARS[2]),
            ("agent", HAND_OVER),
        ]
        assert [line.text for line in row.transcript] == [line["text"] for line in report.transcript]
        assert row.final_state["order"] == "4172"
        assert len(row.timings) == 4
        for timing in row.timings[1:]:
            assert timing.first_audio_ms is not None and timing.endpoint_ms is not None
            assert 0 < timing.endpoint_ms < timing.first_audio_ms < 20_000
        assert row.usage["model"] == "gpt-realtime-2.1" and row.usage["responses"]["count"] == 7
        assert row.usage["responses"]["output_token_details"] == {"text_tokens": 70, "audio_tokens": 140}

        assert row.recording is not None
        left, right, rate = await asyncio.to_thread(sides, house.blobs.path(row.recording.blob))
        for line in row.transcript:
            side = left if line.role == "caller" else right
            spoken = side[line.start_ms * rate // 1000 : line.end_ms * rate // 1000].astype(np.float32)
            assert np.sqrt(np.mean(spoken**2)) > 300, line.text
        assert len(server.sessions) == 1 and server.refusals == []


class Interrupter(Caller):
    """Does not hear the opening out: speaks into it."""

    async def _listen(self, patience_s: float) -> bool:
        assert await self._first_voice(patience_s) is not None
        await asyncio.sleep(1.5)
        return True


async def test_barge_in_and_a_broken_connection_in_one_call(opened: Open) -> None:
    # The answer's connection breaks after two seconds of it (the opening is the first that is spoken).
    script = Script(hears=HEARS, says=[*SAYS[:2], Says(text="Digit by digit."), *SAYS[2:]], drop={1: 2000})
    async with opened(script) as (house, server):
        task_id = await house.enqueue(flow_id=FLOW)
        caller = Interrupter(FLOW, task_id, None, loopback=True)
        speech = [(path.name, await asyncio.to_thread(load_audio, path)) for path in WAVS]
        try:
            async with asyncio.timeout(60):
                await caller.dial(house.url, None)
                await caller.converse(speech, 1.0)
        finally:
            await caller.hang_up()
        assert caller.report.ended_by == "agent" and caller.report.end_reason == "completed"
        await house.until(task_id, State.ENDED)
        row = await house.row(task_id)

    said = [(line.role, line.text) for line in row.transcript]
    opening, answer = row.transcript[0], row.transcript[2]
    assert opening.interrupted and GREETING.startswith(opening.text) and 0 < len(opening.text) < len(GREETING)
    assert 1000 < opening.end_ms - opening.start_ms < 5000
    before = answer.text.removesuffix(" Digit by digit.")
    assert SAYS[1].text.startswith(before) and before != answer.text and not answer.interrupted
    assert said[1] == ("caller", HEARS[0])
    assert said[3:] == [("caller", HEARS[1]), ("agent", SAYS[3].text), ("caller", HEARS[2]), ("agent", HAND_OVER)]

    first, second = server.sessions
    (cut,) = first.of_type("conversation.item.truncate")
    assert abs(cut["audio_end_ms"] - (opening.end_ms - opening.start_ms)) < 1000
    told = [event["item"] for event in second.of_type("conversation.item.create")][:3]
    assert [item["content"][0]["text"] for item in told] == [opening.text, HEARS[0], before]
    assert row.usage["responses"]["count"] == 7  # eight were asked for; of the broken one no count came
    assert server.refusals == []


async def test_a_refused_key_ends_the_call_with_the_true_cause(opened: Open) -> None:
    async with opened(Script(refuse=[401])) as (house, _):
        task_id = await house.enqueue(flow_id=FLOW)
        report = await house.call(task_id, [], hang_up_after_s=10)
        assert report.end_reason == "failed" and report.ended_by == "agent"
        await house.until(task_id, State.ENDED)
        row = await house.row(task_id)
    assert row.state is ExecutionState.ERROR
    assert row.end_reason == "failed" and "invalid_api_key" in row.detail and KEY not in row.detail
