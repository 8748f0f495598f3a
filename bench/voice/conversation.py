"""How long a caller waits for an answer, and how fast the agent falls silent when interrupted.

One conversation of the local engine in this process: real speech in, frame by frame in real time, through voice
detection, recognition, the example flow and Piper, to the frames that leave. Counted from the samples themselves:

- *answer*: from the last voiced frame of the caller to the first voiced frame of the agent
- *barge-in*: from the first voiced frame of the caller to the last voiced frame of the agent

No network is in it: add a transport's own delay (`bench/voice` has that apart).

    python bench/voice/conversation.py [--turns 24] [--spoken-by FILE.wav ...]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from switchroom.engine import Engine, FlowStore
from switchroom.engine.events import Event, TurnInput
from switchroom.engine.session import Session
from switchroom.realtime.audio import FRAME, FRAME_S, NOTHING, SILENCE, Samples, level_dbfs
from switchroom.realtime.client import load_audio
from switchroom.realtime.ears import SpeechParts
from switchroom.realtime.local import LocalEngine
from switchroom.realtime.playout import Playout
from switchroom.realtime.settings import MediaSettings
from switchroom.realtime.voice import Said, TurnDone, VoiceEvent
from switchroom.store import EmbeddedServer, Store

FLOW = Path(__file__).parents[2] / "examples" / "support-line.json"
VOICED_DBFS = -42.0
ANSWER_AT_MOST_S = 8.0
SENTENCES = [
    "I have a question about my invoice.",
    "My order number is four one seven two.",
    "Where is my parcel?",
    "The delivery was late and the box was open.",
    "Can you tell me when you are open on Saturday?",
    "I was charged twice for the same thing.",
    "My order number is nine three three eight.",
    "I would like to return the shoes that I bought last week.",
    "Could you send the bill again, please?",
    "Nobody has called me back since Monday.",
    "What does it cost to send it to Ireland?",
    "I think there is a mistake on my bill.",
]


class Line:
    """The caller's end: frames in and out every 20 ms, with the moments of voice on both sides."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self._playout = Playout()
        self._mouth: Samples = NOTHING
        self.events: list[VoiceEvent] = []
        self.agent_voiced: list[float] = []
        self.caller_voiced: list[float] = []
        self.late_frames = 0

    @property
    def speaking(self) -> bool:
        return self._mouth.size > 0

    def speak(self, samples: Samples) -> None:
        self.caller_voiced.clear()
        self._mouth = samples

    def agent_quiet(self, seconds: float) -> bool:
        return bool(self.agent_voiced) and time.monotonic() - self.agent_voiced[-1] > seconds

    async def run(self) -> None:
        engine = asyncio.ensure_future(self._engine.run(self._playout, self.events.append))
        due = time.monotonic()
        try:
            while not engine.done():
                frame, self._mouth = self._mouth[:FRAME], self._mouth[FRAME:]
                if frame.size and level_dbfs(frame) > VOICED_DBFS:
                    self.caller_voiced.append(time.monotonic())
                self._engine.hear(frame if frame.size == FRAME else SILENCE)
                if level_dbfs(self._playout.next_frame()) > VOICED_DBFS:
                    self.agent_voiced.append(time.monotonic())
                due += FRAME_S
                late = time.monotonic() - due
                self.late_frames += late > FRAME_S
                await asyncio.sleep(max(0.0, -late))
        finally:
            engine.cancel()
            await asyncio.gather(engine, return_exceptions=True)


async def until(ready: Any, at_most_s: float) -> bool:
    end = time.monotonic() + at_most_s
    while not ready():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.005)
    return True


def figures(values: list[float]) -> str:
    ordered = sorted(value * 1000 for value in values)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    middle = statistics.median(ordered)
    return f"n {len(ordered):3d}   p50 {middle:5.0f} ms   p95 {p95:5.0f} ms   max {ordered[-1]:5.0f} ms"


class Counted:
    """What several conversations came to, in seconds."""

    def __init__(self) -> None:
        self.answers: list[float] = []
        self.silences: list[float] = []
        self.events: list[VoiceEvent] = []
        self.lost = 0
        self.late_frames = 0

    def tell(self) -> None:
        print(f"answer    {figures(self.answers)}   (wanted: p50 <= 700, p95 <= 1000)")
        print(f"barge-in  {figures(self.silences)}   (wanted: p95 <= 200)")
        timings = [event.timing for event in self.events if isinstance(event, TurnDone) and event.timing.endpoint_ms]
        stages = ("endpoint_ms", "transcript_ms", "first_token_ms", "first_audio_ms")
        for name, what in zip(stages, ("endpoint", "words", "first token", "first audio"), strict=True):
            values = [value / 1000 for timing in timings if (value := getattr(timing, name)) is not None]
            print(f"  {what:12s} {figures(values)}   (the engine's own count, from the last voiced window)")
        heard = sum(isinstance(event, Said) and event.final and event.role == "caller" for event in self.events)
        print(f"{heard} utterances, {self.lost} without an answer, {self.late_frames} late frames")


async def converse(line: Line, speech: list[Samples], turns: int, counted: Counted) -> None:
    """One conversation; every other turn interrupts the agent."""
    running = asyncio.create_task(line.run())
    await until(lambda: line.agent_quiet(1.2), 20)
    for number in range(turns):
        if number % 2:
            await until(lambda: line.agent_voiced and line.agent_voiced[-1] > time.monotonic() - 0.1, 5)
            await asyncio.sleep(random.uniform(0.6, 1.2))
        else:
            await until(lambda: line.agent_quiet(1.2), 20)
        line.speak(random.choice(speech))
        if not await until(lambda: line.caller_voiced, 2):
            break  # the flow has ended the call
        onset = line.caller_voiced[0]
        talked_over = bool(line.agent_voiced) and onset - line.agent_voiced[-1] < 0.1
        await until(lambda: not line.speaking, 10)
        end = line.caller_voiced[-1]
        if talked_over:
            counted.silences.append(max([at - onset for at in line.agent_voiced if onset <= at < end], default=0.0))
        if await until(lambda end=end: line.agent_voiced and line.agent_voiced[-1] > end, ANSWER_AT_MOST_S):
            counted.answers.append(next(at for at in line.agent_voiced if at > end) - end)
        else:
            counted.lost += 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    counted.events += line.events
    counted.late_frames += line.late_frames


async def main(options: argparse.Namespace) -> None:
    settings = MediaSettings(silence_s=60)
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedServer(Path(folder), fsync="everysec")
        await server.start()
        store = await Store.connect(server.url)
        parts = await SpeechParts.load(settings)
        try:
            if options.spoken_by:
                speech = [await asyncio.to_thread(load_audio, path) for path in options.spoken_by]
            else:
                speech = [await parts.voice.say(text) for text in SENTENCES]
            speech = [np.concatenate((one, np.zeros(FRAME, dtype=np.int16))) for one in speech]
            print(f"load before {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
            flows = FlowStore(store)
            flow = await flows.save(json.loads(FLOW.read_text()), flow_id="support")
            flow_engine = Engine(flows)

            def run_turn(session: Session, given: TurnInput) -> AsyncIterator[Event]:
                return flow_engine.run(flow.graph, session, given)

            counted = Counted()
            while len(counted.answers) + counted.lost < options.turns:
                session = Session(session_id="bench", realtime=True, form={"ID": "1", "ticket": "T-17"})
                line = Line(LocalEngine(parts, run_turn, session, settings))
                await converse(line, speech, min(8, options.turns), counted)
            counted.tell()
            print(f"load after {os.getloadavg()[0]:.1f}")
        finally:
            await parts.close()
            await store.close()
            await server.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=24)
    parser.add_argument("--spoken-by", type=Path, nargs="*", default=[], help="audio files of a caller")
    uvloop.run(main(parser.parse_args()))
