"""Scenarios against a running Switchroom: enqueues each call, plays its caller, compares what came of it."""

from __future__ import annotations

import asyncio
import json
import math
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec

from switchroom.errors import BadInput, SwitchroomError, TimedOut, Unavailable
from switchroom.realtime.audio import Samples
from switchroom.realtime.client import load_audio
from switchroom.realtime.scenario import CallExpected, Scenario, Step, matches
from switchroom.realtime.simulated import Heard, SimulatedCaller
from switchroom.realtime.tts import load_voice

_HTTP_S = 15.0
_RECORD_S = 20.0
"""From the end of a call to its closed record."""


class Check(msgspec.Struct, kw_only=True):
    """One thing that was expected. `step` is its place from 1, 0 for the whole call."""

    step: int
    what: str
    expected: str
    got: str
    passed: bool


class Outcome(msgspec.Struct, kw_only=True):
    """What came of one scenario."""

    name: str
    passed: bool = False
    error: str = ""
    """Why it could not be played to its end."""
    task_id: str = ""
    execution_id: str = ""
    seconds: float = 0.0
    checks: list[Check] = []
    steps: list[Heard] = []
    route: list[str] = []
    transcript: list[dict[str, Any]] = []


async def simulate(
    server_url: str,
    scenarios: Sequence[Scenario],
    *,
    api_key: str | None = None,
    parallel: int = 4,
    record: Path | None = None,
    loopback: bool = False,
) -> list[Outcome]:
    """Plays scenarios, `parallel` at a time; `record` is a folder for a stereo WAV of each.

    Raises `BadInput` for an audio file that cannot be read, `Unavailable` where no server answers, or something is
    to be spoken and no voice is installed. What goes wrong in one call is its outcome.
    """
    gate = asyncio.Semaphore(parallel)
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    timeout = aiohttp.ClientTimeout(total=_HTTP_S)
    async with aiohttp.ClientSession(server_url.rstrip("/"), headers=headers, timeout=timeout) as http:
        await _reach(http)
        speech = await _speech(scenarios)

        async def one(scenario: Scenario, spoken: dict[int, Samples]) -> Outcome:
            outcome = Outcome(name=scenario.name)
            async with gate:
                try:
                    await _play(http, server_url, api_key, scenario, spoken, outcome, record, loopback=loopback)
                except SwitchroomError as error:
                    outcome.error = error.detail
                except (aiohttp.ClientError, TimeoutError) as error:
                    outcome.error = f"the server cannot be reached: {error or type(error).__name__}"
            outcome.passed = not outcome.error and all(check.passed for check in outcome.checks)
            return outcome

        return list(await asyncio.gather(*(one(*pair) for pair in zip(scenarios, speech, strict=True))))


async def _reach(http: aiohttp.ClientSession) -> None:
    try:
        async with http.get("/healthz"):
            pass  # whatever it says: somebody is there, and each call has its own answer
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Unavailable(f"the server cannot be reached: {error or type(error).__name__}") from error


async def _speech(scenarios: Sequence[Scenario]) -> list[dict[int, Samples]]:
    """The samples of every step that has some; a sentence that several scenarios say is rendered once."""
    texts = {step.say for scenario in scenarios for step in scenario.steps if step.say}
    rendered: dict[str, Samples] = {}
    if texts:
        voice = await load_voice()
        try:
            for text in sorted(texts):
                rendered[text] = await voice.say(text)
        finally:
            await voice.close()

    async def of(step: Step) -> Samples | None:
        if step.say:
            return rendered[step.say]
        return None if step.audio is None else await asyncio.to_thread(load_audio, step.audio)

    found: list[dict[int, Samples]] = []
    for scenario in scenarios:
        samples = [await of(step) for step in scenario.steps]
        found.append({place: one for place, one in enumerate(samples) if one is not None})
    return found


async def _play(
    http: aiohttp.ClientSession,
    server_url: str,
    api_key: str | None,
    scenario: Scenario,
    speech: dict[int, Samples],
    outcome: Outcome,
    record: Path | None,
    *,
    loopback: bool,
) -> None:
    queue = f"/api/v1/openai-realtime/{quote(scenario.flow)}/queue"
    form = {"ID": f"simulated-{uuid.uuid4().hex[:12]}", **scenario.form}
    accepted = await _ask(http, "POST", f"{queue}/enqueue", {"form": form, "state": scenario.state})
    outcome.task_id = accepted["taskId"]
    caller = SimulatedCaller(scenario, outcome.task_id, speech, loopback=loopback)
    try:
        async with asyncio.timeout(scenario.timeout_ms / 1000):
            await caller.dial(server_url, api_key)
            await caller.play()
    except TimeoutError:
        raise TimedOut(f"the call took longer than {scenario.timeout_ms / 1000:g} s") from None
    finally:
        await caller.hang_up()
        outcome.seconds = caller.report.seconds
        outcome.steps = caller.heard
        outcome.transcript = sorted(caller.report.transcript, key=lambda line: line["start_ms"])
        if record is not None:
            await caller.save(record / f"{_file_name(scenario.name)}.wav")
    row = await _record(http, queue, outcome.task_id)
    outcome.execution_id = row["id"]
    outcome.route = [node["nodeLabel"] for node in json.loads(row["executionData"])]
    outcome.checks = [
        *(check for place, step in enumerate(scenario.steps) for check in step_checks(place, step, caller.heard)),
        *call_checks(scenario.expect, row, caller.heard, outcome),
    ]


def step_checks(place: int, step: Step, heard: Sequence[Heard]) -> list[Check]:
    """What was expected of one step's answer."""
    wanted, number = step.expect, place + 1
    if place >= len(heard) or not heard[place].done:
        return [Check(step=number, what="step", expected=step.title, got="the call was over before", passed=False)]
    came, found = heard[place], []
    after = came.answer_after_ms
    got = "no answer" if after is None else f"after {after:.0f} ms: {came.answer}"
    if wanted.silence:
        found.append(Check(step=number, what="silence", expected="no answer", got=got, passed=after is None))
        return found
    if wanted.within_ms is not None:
        passed = after is not None and after <= wanted.within_ms
        found.append(Check(step=number, what="within_ms", expected=f"{wanted.within_ms:g}", got=got, passed=passed))
    for text in wanted.says:
        found.append(Check(step=number, what="says", expected=text, got=came.answer, passed=matches(text, came.answer)))
    for text in wanted.never_says:
        passed = not matches(text, came.answer)
        found.append(Check(step=number, what="never_says", expected=text, got=came.answer, passed=passed))
    if wanted.silent_within_ms is not None:
        silent = came.silent_after_ms
        passed = silent is not None and silent <= wanted.silent_within_ms
        shown = "talked on" if silent is None else f"{silent:.0f} ms"
        expected = f"{wanted.silent_within_ms:g} ms"
        found.append(Check(step=number, what="silent_within_ms", expected=expected, got=shown, passed=passed))
    return found


def call_checks(wanted: CallExpected, row: dict[str, Any], heard: Sequence[Heard], outcome: Outcome) -> list[Check]:
    """What was expected of the whole call. `row` is its record as `GET /api/v1/executions/{id}` shows it."""
    found: list[Check] = []

    def check(what: str, expected: object, got: object, passed: bool) -> None:
        found.append(Check(step=0, what=what, expected=str(expected), got=str(got), passed=passed))

    if wanted.end_reason is not None:
        check("end_reason", wanted.end_reason, row["endReason"], row["endReason"] == wanted.end_reason)
    nodes = [(node["nodeLabel"], node["nodeId"]) for node in json.loads(row["executionData"])]
    shown = " → ".join(label for label, _ in nodes)
    if wanted.route:
        rest = iter(nodes)
        missing = [name for name in wanted.route if not any(name in names for names in rest)]
        check("route", " → ".join(wanted.route), shown, not missing)
    for name in wanted.never:
        check("never", name, shown, not any(name in names for names in nodes))
    for path, value in wanted.fields.items():
        got = _member(row["finalState"], path)
        fits = matches(value, str(got)) if isinstance(value, str) and value.startswith("/") else str(got) == str(value)
        check(f"fields.{path}", value, got, fits)
    said = " ".join(line["text"] for line in outcome.transcript if line["role"] != "caller")
    for text in wanted.says:
        check("says", text, said, matches(text, said))
    if wanted.turn_p95_ms is not None:
        times = sorted(one.answer_after_ms for one in heard if one.answer_after_ms is not None)
        p95 = times[math.ceil(0.95 * len(times)) - 1] if times else math.inf
        check("turn_p95_ms", f"{wanted.turn_p95_ms:g}", f"{p95:g}", p95 <= wanted.turn_p95_ms)
    if wanted.within_ms is not None:
        took = outcome.seconds * 1000
        check("within_ms", f"{wanted.within_ms:g}", f"{took:g}", took <= wanted.within_ms)
    return found


def _member(state: Any, path: str) -> Any:
    for part in path.split("."):
        state = state.get(part) if isinstance(state, dict) else None
    return state


async def _record(http: aiohttp.ClientSession, queue: str, task_id: str) -> dict[str, Any]:
    """The closed record of the call's last attempt."""
    try:
        async with asyncio.timeout(_RECORD_S):
            while True:
                call = await _ask(http, "GET", f"{queue}/status?taskId={quote(task_id)}")
                if call["state"] == "ended" and call["executionIds"]:
                    row: dict[str, Any] = await _ask(http, "GET", f"/api/v1/executions/{call['executionIds'][-1]}")
                    return row
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise TimedOut(f"the record of the call was not closed within {_RECORD_S:g} s") from None


async def _ask(http: aiohttp.ClientSession, method: str, path: str, body: Any = None) -> Any:
    async with http.request(method, path, json=body) as reply:
        try:
            answer = await reply.json(content_type=None)
        except ValueError:
            answer = None
        if reply.status < 400 and answer is not None:
            return answer
        detail = answer.get("detail") if isinstance(answer, dict) else None
        kind = Unavailable if reply.status >= 500 else BadInput
        raise kind(f"{method} {path.partition('?')[0]} answered {reply.status}: {detail or reply.reason}")


def _file_name(name: str) -> str:
    return "".join(char if char.isalnum() or char in "-_" else "-" for char in name)[:80] or "call"
