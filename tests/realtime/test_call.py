"""Whole calls: two WebRTC peers, the real queue, engine, speech models, record and recording."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import pytest_asyncio
from aiohttp import web
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from switchroom import tracing
from switchroom.engine import FlowStore
from switchroom.errors import Conflict, NotFound, SwitchroomError, Unavailable
from switchroom.queue import EndReason, Feed, NewCall, Queue, Rules, State
from switchroom.realtime import MediaSettings, SignalClient
from switchroom.realtime.audio import RATE
from switchroom.realtime.client import CallReport, place_call
from switchroom.realtime.ears import SpeechParts
from switchroom.realtime.worker import MediaWorker
from switchroom.records import Executions
from switchroom.records.model import Execution, ExecutionState
from switchroom.store import Blobs, Store

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLES = Path(__file__).parents[2] / "examples"
WAVS = [EXAMPLES / f"caller-{name}.wav" for name in ("1-invoice", "2-order-number", "3-operator")]
FLOW = "support"
SHORT = "short"
RULES = Rules(lines=1)


class House:
    """A store, a flow, media processes, and the one HTTP route that a caller needs."""

    def __init__(self, store: Store, parts: SpeechParts | None, blobs: Blobs, settings: MediaSettings) -> None:
        self.store, self.blobs, self.settings = store, blobs, settings
        self.parts = parts
        self.feed = Feed(store)
        self.queue = Queue(store)
        self.signal = SignalClient(store)
        self.executions = Executions(store, blobs)
        self.url = ""
        self.flow_id = SHORT
        self._media: list[tuple[asyncio.Task[None], asyncio.Event]] = []

    async def start_media(self) -> asyncio.Task[None]:
        stop = asyncio.Event()
        worker = MediaWorker(self.store, blobs=self.blobs, settings=self.settings, parts=self.parts, feed=self.feed)
        task = asyncio.create_task(worker.run(stop))
        known = {process.id for process in await self.signal.media()}
        while not {process.id for process in await self.signal.media()} - known:
            assert not task.done(), task
            await asyncio.sleep(0.05)
        self._media.append((task, stop))
        return task

    async def stop_media(self) -> None:
        for _, stop in self._media:
            stop.set()
        await asyncio.gather(*(task for task, _ in self._media), return_exceptions=True)
        self._media.clear()

    async def enqueue(self, caller: str = "+38641656457", *, flow_id: str = SHORT) -> str:
        self.flow_id = flow_id
        form = {"ID": caller, "ticket": "T-17"}
        accepted = await self.queue.enqueue(flow_id, NewCall(form=form, state={"crm": {"tier": "gold"}}), RULES)
        return accepted.task_id

    async def until(self, task_id: str, *states: State, timeout_s: float = 30) -> State:
        async with asyncio.timeout(timeout_s):
            while True:
                call = await self.queue.get(self.flow_id, task_id)
                assert call is not None
                if call.state in states:
                    return call.state
                await asyncio.sleep(0.05)

    async def row(self, task_id: str) -> Execution:
        rows = await self.executions.find(self.flow_id, task_id)
        assert len(rows) == 1
        return rows[0]

    def call(self, task_id: str, wavs: list[Path], record: Path | None = None, **options: Any) -> Awaitable[CallReport]:
        return place_call(self.url, self.flow_id, task_id, wavs, record, loopback=True, **options)


@contextlib.asynccontextmanager
async def open_house(house: House, canvases: dict[str, dict[str, Any]]) -> AsyncIterator[House]:
    """The flows are there and the route is served; media processes are started by the test."""
    for flow_id, drawn in canvases.items():
        await FlowStore(house.store).save(drawn, flow_id=flow_id)
        await house.queue.configure(flow_id, RULES)

    async def offer(request: web.Request) -> web.Response:
        try:
            answer = await house.signal.offer(request.match_info["flow"], request.query["taskId"], await request.text())
        except SwitchroomError as error:
            return web.json_response({"detail": error.detail, "code": error.code}, status=error.status)
        location = {"Location": f"{request.path}/{answer.call_id}"}
        return web.Response(status=201, text=answer.sdp, content_type="application/sdp", headers=location)

    async def hang_up(request: web.Request) -> web.Response:
        await house.signal.hang_up(request.match_info["call"])
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/api/v1/openai-realtime/{flow}/calls", offer)
    app.router.add_delete("/api/v1/openai-realtime/{flow}/calls/{call}", hang_up)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    house.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield house
    finally:
        await house.stop_media()
        await house.feed.close()
        await runner.cleanup()


@pytest_asyncio.fixture(loop_scope="module")
async def house(
    room_store: Store,
    parts: SpeechParts,
    blobs: Blobs,
    settings: MediaSettings,
    canvas: dict[str, Any],
    short_canvas: dict[str, Any],
) -> AsyncIterator[House]:
    async with open_house(House(room_store, parts, blobs, settings), {FLOW: canvas, SHORT: short_canvas}) as house:
        yield house


def sides(path: Path) -> tuple[Any, Any, int]:
    """A stereo file (a caller's WAV, the server's Ogg Opus) as both its sides and their rate."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="s16p", layout="stereo", rate=RATE)
        planes = [piece.to_ndarray() for frame in container.decode(audio=0) for piece in resampler.resample(frame)]
    left, right = np.concatenate(planes, axis=1)
    return left, right, RATE


def as_tree(spans: Sequence[ReadableSpan]) -> dict[str, list[ReadableSpan]]:
    """Spans by the name of the one that they are in."""
    names = {span.context.span_id: span.name for span in spans if span.context is not None}
    tree: dict[str, list[ReadableSpan]] = {}
    for span in spans:
        tree.setdefault(names[span.parent.span_id] if span.parent is not None else "", []).append(span)
    return tree


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(provider)
    yield exporter
    tracing.use(None)


async def test_a_whole_call(house: House, data_dir: Path, spans: InMemorySpanExporter) -> None:
    await house.start_media()
    task_id = await house.enqueue(flow_id=FLOW)
    heard_live: list[dict[str, Any]] = []
    report = await house.call(task_id, WAVS[1:], data_dir / "call.wav", on_event=heard_live.append)

    assert report.greeted
    assert report.ended_by == "agent" and report.end_reason == "completed"
    caller = " ".join(line["text"] for line in report.transcript if line["role"] == "caller").lower()
    agent = " ".join(line["text"] for line in report.transcript if line["role"] == "agent").lower()
    assert "order number" in caller and "operator" in caller
    assert "request t-17" in agent  # the form reached the greeting
    assert "thank you" in agent  # the route of the first utterance
    assert all(turn.answer_after_ms is not None for turn in report.turns)
    assert report.heard_dbfs > -40
    assert {"state", "speaking", "transcript", "turn", "ended"} <= {event["type"] for event in heard_live}

    await house.until(task_id, State.ENDED)
    call = await house.queue.get(house.flow_id, task_id)
    assert call is not None and call.end_reason is EndReason.COMPLETED and call.attempt == 1

    row = await house.row(task_id)
    assert row.state is ExecutionState.FINISHED and row.end_reason == "completed"
    assert row.form["ticket"] == "T-17" and row.memory == {"crm": {"tier": "gold"}}
    assert row.caller_id == "+38641656457" and row.graph_hash.startswith("sha256:")
    assert [line.text for line in row.transcript] == [line["text"] for line in report.transcript]
    assert len(row.timings) == 3 and row.nodes
    assert (row.final_state["topic"], row.final_state["order"]) == ("OPERATOR", "4172")
    for timing in row.timings[1:]:
        assert timing.first_audio_ms is not None and timing.endpoint_ms is not None
        assert timing.speech_end_ms is not None and timing.first_audio_made_ms is not None
        assert 0 < timing.endpoint_ms < timing.first_audio_made_ms <= timing.first_audio_ms

    tree = as_tree(spans.get_finished_spans())
    (traced,) = tree[""]
    assert traced.name == "call" and dict(traced.attributes or {}) == {
        "switchroom.flow_id": FLOW,
        "switchroom.task_id": task_id,
        "switchroom.execution_id": row.id,
        "switchroom.attempt": 1,
        "switchroom.end_reason": "completed",
    }
    assert [span.name for span in tree["call"]] == ["turn"] * 3
    stages = ["endpoint", "transcript", "first_token", "first_audio"]
    assert [span.name for span in tree["turn"]] == stages * 2  # nobody waited for the opening
    for timing, turn, last in zip(row.timings[1:], tree["call"][1:], tree["turn"][3::4], strict=True):
        assert turn.start_time is not None and last.end_time is not None and timing.first_audio_ms is not None
        assert (last.end_time - turn.start_time) / 1e6 == pytest.approx(timing.first_audio_ms, abs=1)

    assert row.recording is not None
    left, right, rate = await asyncio.to_thread(sides, house.blobs.path(row.recording.blob))
    assert row.recording.duration_ms == pytest.approx(report.seconds * 1000, abs=2500)
    for line in row.transcript:
        side = left if line.role == "caller" else right
        spoken = side[line.start_ms * rate // 1000 : line.end_ms * rate // 1000].astype(np.float32)
        assert np.sqrt(np.mean(spoken**2)) > 300, line.text
    said, heard, _ = await asyncio.to_thread(sides, data_dir / "call.wav")
    assert np.abs(said).max() > 3000 and np.abs(heard).max() > 3000


async def test_the_caller_hangs_up(house: House) -> None:
    await house.start_media()
    task_id = await house.enqueue()
    report = await house.call(task_id, WAVS[:1], hang_up_after_s=0.2)
    assert report.ended_by == "caller" and report.end_reason == "completed"
    await house.until(task_id, State.ENDED)
    row = await house.row(task_id)
    assert row.state is ExecutionState.FINISHED and "hung up" in row.detail


async def test_cancel_ends_a_live_call(house: House) -> None:
    await house.start_media()
    task_id = await house.enqueue()
    placed = asyncio.ensure_future(house.call(task_id, WAVS))
    await house.until(task_id, State.LIVE)
    await house.queue.cancel(SHORT, task_id, "the customer wrote instead")
    began = time.monotonic()
    report = await placed
    assert report.end_reason == "cancelled" and report.ended_by == "agent"
    assert time.monotonic() - began < 15
    await house.until(task_id, State.ENDED)
    assert (await house.row(task_id)).end_reason == "cancelled"


async def test_a_second_caller_waits_for_the_line(house: House) -> None:
    await house.start_media()
    first, second = await house.enqueue("1001"), await house.enqueue("1002")
    places: list[int] = []

    def note(event: dict[str, Any]) -> None:
        if event.get("state") == "waiting" and "place" in event:
            places.append(event["place"])

    one = asyncio.ensure_future(house.call(first, WAVS[:1], hang_up_after_s=0.1))
    await house.until(first, State.LIVE)
    two = asyncio.ensure_future(house.call(second, [], on_event=note, hang_up_after_s=0.1))
    await asyncio.sleep(1.5)
    waiting = await house.queue.get(house.flow_id, second)
    assert waiting is not None and waiting.state is State.PENDING
    await one
    report = await two
    assert places and places[0] == 1
    assert report.greeted
    await house.until(second, State.ENDED)


async def test_the_newest_leg_takes_over(house: House) -> None:
    await house.start_media()
    task_id = await house.enqueue()
    old = asyncio.ensure_future(house.call(task_id, [], hang_up_after_s=30))
    await house.until(task_id, State.LIVE)
    new = await house.call(task_id, WAVS[:1], hang_up_after_s=0.1)
    replaced = await old
    assert replaced.end_reason == "replaced"
    assert new.turns[0].answer_after_ms is not None
    await house.until(task_id, State.ENDED)
    row = await house.row(task_id)  # one attempt, one record
    assert row.attempt == 1 and any(line.role == "caller" for line in row.transcript)


_VICTIM = """
import asyncio, sys
from switchroom.realtime.client import place_call
async def main():
    await place_call(sys.argv[1], sys.argv[2], sys.argv[3], [], loopback=True, hang_up_after_s=60,
                     on_event=lambda event: print(event, flush=True) if event["type"] == "turn" else None)
asyncio.run(main())
"""


async def test_a_killed_caller_is_noticed_and_may_come_back(house: House) -> None:
    await house.start_media()
    task_id = await house.enqueue()
    victim = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _VICTIM, house.url, SHORT, task_id, stdout=asyncio.subprocess.PIPE
    )
    assert victim.stdout is not None
    async with asyncio.timeout(30):
        assert b"turn" in await victim.stdout.readline()  # the greeting was heard
    victim.kill()
    await victim.wait()
    await asyncio.sleep(house.settings.dead_peer_s + 0.8)
    phases: list[str] = []
    back = await house.call(
        task_id,
        WAVS[:1],
        hang_up_after_s=0.1,
        on_event=lambda event: phases.append(event["state"]) if event["type"] == "state" else None,
    )
    assert phases == ["lost", "live"]  # it was seen to be gone, and the same conversation goes on
    assert back.turns[0].answer_after_ms is not None
    await house.until(task_id, State.ENDED)
    row = await house.row(task_id)
    assert row.attempt == 1 and row.end_reason == "completed"
    assert [line.role for line in row.transcript] == ["agent", "caller", "agent"]


async def test_a_caller_that_never_comes_back_times_out(house: House) -> None:
    house.settings = house.settings.model_copy(update={"reconnect_grace_s": 0.5, "dead_peer_s": 1.5})
    await house.start_media()
    task_id = await house.enqueue()
    victim = await asyncio.create_subprocess_exec(sys.executable, "-c", _VICTIM, house.url, SHORT, task_id)
    await house.until(task_id, State.LIVE)
    victim.kill()
    await victim.wait()
    await house.until(task_id, State.ENDED)
    row = await house.row(task_id)
    assert row.state is ExecutionState.TIMEOUT and row.end_reason == "timeout"


async def test_a_drained_process_hands_its_call_back(house: House) -> None:
    await house.start_media()
    task_id = await house.enqueue()
    placed = asyncio.ensure_future(house.call(task_id, [], hang_up_after_s=30))
    await house.until(task_id, State.LIVE)
    await house.stop_media()
    report = await placed
    assert report.end_reason == "handed_back"
    call = await house.queue.get(house.flow_id, task_id)
    assert call is not None and call.state is State.PENDING
    assert (await house.row(task_id)).state is ExecutionState.STOPPED
    assert await house.signal.media() == []


async def test_refusals(house: House) -> None:
    task_id = await house.enqueue()
    with pytest.raises(NotFound):
        await house.signal.offer(SHORT, "flowise-nobody", "v=0")
    with pytest.raises(Unavailable) as none:
        await house.signal.offer(SHORT, task_id, "v=0")
    assert none.value.retry_after_s is not None
    await house.start_media()
    with pytest.raises(SwitchroomError) as bad:
        await house.signal.offer(SHORT, task_id, "this is no SDP")
    assert (bad.value.status, bad.value.code) == (400, "bad_sdp")
    pending = await house.queue.get(house.flow_id, task_id)
    assert pending is not None and pending.state is State.PENDING  # a bad offer holds nothing
    await house.queue.remove(SHORT, task_id)
    with pytest.raises(Conflict) as ended:
        await house.signal.offer(SHORT, task_id, "v=0")
    assert ended.value.extra["endReason"] == "removed"
    with pytest.raises(NotFound):
        await house.signal.hang_up("00000000-0000-0000-0000-000000000000")
