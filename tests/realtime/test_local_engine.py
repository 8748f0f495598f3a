"""The local engine without a network: real models, the real flow engine, audio pumped frame by frame in real time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from switchroom.engine import Engine, Flow, FlowStore
from switchroom.engine.events import Event, TurnInput
from switchroom.engine.session import Session
from switchroom.realtime.audio import FRAME, FRAME_S, SILENCE, Samples, level_dbfs
from switchroom.realtime.client import load_audio
from switchroom.realtime.ears import SpeechParts
from switchroom.realtime.local import LocalEngine
from switchroom.realtime.playout import Playout
from switchroom.realtime.settings import MediaSettings
from switchroom.realtime.voice import Concluded, Said, TurnDone, VoiceEvent
from switchroom.store import Store

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLES = Path(__file__).parents[2] / "examples"


GREETING = "Hello, this is the support line. I have your request T-17 here. How can I help you?"


class Line:
    """A caller's end: pushes frames in, pulls frames out, every 20 ms; notes when what was heard."""

    def __init__(self, engine: LocalEngine) -> None:
        self.engine = engine
        self.playout = Playout()
        self.events: list[VoiceEvent] = []
        self.heard_at: list[float] = []
        self._mouth: Samples = np.zeros(0, dtype=np.int16)
        self.spoke_until = 0.0

    def speak(self, samples: Samples) -> None:
        self._mouth = samples

    async def run(self) -> Concluded:
        engine = asyncio.ensure_future(self.engine.run(self.playout, self.events.append))
        due = time.monotonic()
        try:
            while not engine.done():
                frame, self._mouth = self._mouth[:FRAME], self._mouth[FRAME:]
                if frame.size:
                    self.spoke_until = time.monotonic()
                self.engine.hear(frame if frame.size == FRAME else SILENCE)
                if level_dbfs(self.playout.next_frame()) > -48:
                    self.heard_at.append(time.monotonic())
                due += FRAME_S
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            return engine.result()
        finally:
            engine.cancel()
            await asyncio.gather(engine, return_exceptions=True)

    def said(self, role: str) -> list[Said]:
        return [event for event in self.events if isinstance(event, Said) and event.final and event.role == role]

    async def until(self, ready: Any, timeout_s: float = 30) -> None:
        async with asyncio.timeout(timeout_s):
            while not ready():
                await asyncio.sleep(0.02)


@pytest_asyncio.fixture(loop_scope="module")
async def make_line(
    room_store: Store, parts: SpeechParts, canvas: dict[str, Any], short_canvas: dict[str, Any]
) -> AsyncIterator[Any]:
    flows = FlowStore(room_store)
    long = await flows.save(canvas, flow_id="support")
    short = await flows.save(short_canvas, flow_id="short")
    engine = Engine(flows)
    lines: list[asyncio.Task[Concluded]] = []

    def make(settings: MediaSettings, flow: Flow = short) -> tuple[Line, asyncio.Task[Concluded]]:
        def run_turn(session: Session, given: TurnInput) -> AsyncIterator[Event]:
            return engine.run(flow.graph, session, given)

        session = Session(session_id="s", realtime=True, form={"ID": "1", "ticket": "T-17"}, state={})
        line = Line(LocalEngine(parts, run_turn, session, settings))
        task = asyncio.create_task(line.run())
        lines.append(task)
        return line, task

    make.long = long  # type: ignore[attr-defined]
    yield make
    for task in lines:
        task.cancel()
    await asyncio.gather(*lines, return_exceptions=True)


async def test_barge_in_stops_the_agent_and_keeps_what_was_heard(make_line: Any, settings: MediaSettings) -> None:
    line, _ = make_line(settings, make_line.long)
    speech = await asyncio.to_thread(load_audio, EXAMPLES / "caller-1-invoice.wav")
    await line.until(lambda: len(line.heard_at) > 50)  # a second of the greeting
    began = time.monotonic()
    line.speak(speech)
    await line.until(lambda: line.said("caller"))
    stopped_after = max(at for at in line.heard_at if at < line.spoke_until) - began
    print(f"the agent fell silent {stopped_after * 1000:.0f} ms after the caller began")
    assert stopped_after < 0.6  # the file's own lead-in, three voiced windows, and a frame
    greeting = line.said("agent")[0]
    assert greeting.interrupted
    assert GREETING.startswith(greeting.text) and 0 < len(greeting.text) < len(GREETING)
    assert line.engine.session.messages[0].text == greeting.text  # the context knows what was heard, no more
    await line.until(lambda: len([event for event in line.events if isinstance(event, TurnDone)]) == 2)
    answer = line.said("agent")[1]
    assert "order number" in answer.text and not answer.interrupted
    timings = [event.timing for event in line.events if isinstance(event, TurnDone)]
    assert [timing.interrupted for timing in timings] == [True, False]
