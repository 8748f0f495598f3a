"""A caller that plays a scenario over real audio: speaks, is silent, interrupts, presses keys; and what came of it."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import msgspec
import numpy as np

from switchroom.realtime.audio import FRAME_S, NOTHING, SILENCE, Samples
from switchroom.realtime.caller import Caller
from switchroom.realtime.scenario import Scenario, Step

_QUIET_S = 0.7
_OPENING_S = 3.0
_STOPPED_S = 0.35
"""So much silence after the caller began to interrupt: the agent has stopped."""
_SETTLE_S = 1.5
"""The agent's words are told once they were heard: a moment after its voice has ended."""
_SILENCE_MS = 5000.0


class Heard(msgspec.Struct, kw_only=True):
    """What came of a step. Milliseconds as the caller's ear has them; None where it did not happen."""

    title: str
    done: bool = False
    began_ms: float = 0.0
    """From the call's beginning."""
    ended_ms: float = 0.0
    answer_after_ms: float | None = None
    silent_after_ms: float | None = None
    answer: str = ""


class SimulatedCaller(Caller):
    """One scenario's caller. `speech` holds the samples of each step that has some, by the step's place."""

    def __init__(self, scenario: Scenario, task_id: str, speech: dict[int, Samples], *, loopback: bool) -> None:
        super().__init__(scenario.flow, task_id, self._note, loopback=loopback)
        self._scenario = scenario
        self._speech = speech
        self._noise = _noise(scenario)
        self._at = 0
        self._live_at = 0.0
        self.heard: list[Heard] = []

    async def play(self) -> None:
        """All steps, or as many as the call lasts."""
        await self._until_live()
        self._live_at = self._live_at or time.monotonic()
        for place, step in enumerate(self._scenario.steps):
            if self._over.is_set():
                break
            heard = Heard(title=step.title)
            self.heard.append(heard)
            before = self._live_at if place == 0 else time.monotonic()
            follows = self._scenario.steps[place + 1 :]
            await self._step(
                step, place, heard, before, interrupted=bool(follows and follows[0].barge_in_after_ms is not None)
            )
            heard.done = True
        if not self._over.is_set():
            await self._wait_over(_SETTLE_S)
        self._assign()

    async def _step(self, step: Step, place: int, heard: Heard, before: float, *, interrupted: bool) -> None:
        patience_s = self._scenario.patience_ms / 1000
        if step.barge_in_after_ms is not None:
            sounded = await self._next_voice(patience_s)
            if sounded is None:
                return
            await self._pass(sounded + step.barge_in_after_ms / 1000 - time.monotonic())
        elif step.after_ms:
            await self._pass(step.after_ms / 1000)
        began = time.monotonic()
        heard.began_ms = heard.ended_ms = self._since(began)
        asked = began
        if step.silence_ms is not None:
            await self._pass(step.silence_ms / 1000)
            heard.ended_ms = self._since(time.monotonic())
            return
        if step.hang_up:
            await self.hang_up()
            return
        if place in self._speech:
            stopping = asyncio.ensure_future(self._silent_after(began)) if step.barge_in_after_ms is not None else None
            asked = await self._speak(self._speech[place])
            if stopping is not None:
                heard.silent_after_ms = await stopping
        elif step.press is not None:
            self._press(step.press)
        elif step.listen:
            asked = before
        heard.ended_ms = self._since(asked)
        if not step.listen:
            self._voice_at = None
        if step.expect.silence:
            patience_s = (step.expect.within_ms or _SILENCE_MS) / 1000
        first = await self._next_voice(patience_s)
        if first is None:
            return
        heard.answer_after_ms = round(max(0.0, first - asked) * 1000, 1)
        if not interrupted:
            await self._until_quiet()

    # --- small things --------------------------------------------------------------------------------------------

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("type") == "state" and event.get("state") == "live" and not self._live_at:
            self._live_at = time.monotonic()

    def _since(self, moment: float) -> float:
        return round((moment - self._live_at) * 1000, 1)

    def _press(self, digits: str) -> None:
        if self._channel is not None and self._channel.readyState == "open":
            self._channel.send(json.dumps({"type": "dtmf", "digits": digits}))

    async def _pass(self, seconds: float) -> None:
        """Time goes by, or the call ends."""
        if seconds > 0:
            await self._wait_over(seconds)

    async def _until_quiet(self) -> None:
        """Hears the agent out, also over a gap between two clauses: the server says when its turn is over."""
        while not self._over.is_set():
            quiet_s = time.monotonic() - self._last_voice_at
            # Before its first turn is over the agent may pause between an announcement and its greeting.
            pause_s = _QUIET_S if self.report.server_turns else _OPENING_S
            if quiet_s > self._scenario.patience_ms / 1000 or (quiet_s > pause_s and not self._agent_speaking):
                return
            await asyncio.sleep(FRAME_S)

    async def _next_voice(self, patience_s: float) -> float | None:
        """When the agent is heard: a moment ago, or within so long."""
        deadline = time.monotonic() + patience_s
        while not self._over.is_set() and time.monotonic() < deadline:
            if self._voice_at is not None:
                break
            await asyncio.sleep(FRAME_S)
        return self._voice_at

    async def _silent_after(self, began: float) -> float | None:
        """How long the agent went on talking into our words; None: to the end of the call."""
        while not self._over.is_set():
            last = max(began, self._last_voice_at)
            if time.monotonic() - last > _STOPPED_S:
                return round((last - began) * 1000, 1)
            await asyncio.sleep(FRAME_S)
        return None

    def _assign(self) -> None:
        """Each of the agent's lines to the step that it answers: the last one that had ended when the line began. A
        greeting that nobody listened to answers nothing."""
        lines = sorted(
            (line for line in self.report.transcript if line["role"] != "caller"), key=lambda one: one["start_ms"]
        )
        for line in lines:
            answered = [one for one in self.heard if one.ended_ms <= line["start_ms"] + 250]
            if answered:
                answered[-1].answer = f"{answered[-1].answer} {line['text']}".strip()

    def _next_frame(self) -> Samples:
        frame = super()._next_frame()
        if self._noise.size == 0:
            return frame
        start = self._at
        self._at = (self._at + SILENCE.size) % (self._noise.size - SILENCE.size)
        mixed = frame.astype(np.int32) + self._noise[start : start + SILENCE.size]
        noisy: Samples = np.clip(mixed, -32768, 32767).astype(np.int16)
        return noisy


def _noise(scenario: Scenario) -> Samples:
    """Ten seconds of white noise, which go round."""
    if scenario.noise is None:
        return NOTHING
    strength = 32768 * 10 ** (scenario.noise.level_dbfs / 20)
    samples = np.random.default_rng(0).normal(0.0, strength, 480_000)
    noise: Samples = np.clip(samples, -32768, 32767).astype(np.int16)
    return noise
