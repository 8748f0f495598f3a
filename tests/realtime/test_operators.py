"""Operators at a live call, over real WebRTC: they hear both sides, whisper, talk in the agent's place, leave again."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import pytest_asyncio
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack

from switchroom.errors import Conflict, NotFound
from switchroom.queue import EndReason, State
from switchroom.realtime import MediaSettings
from switchroom.realtime import operators as host
from switchroom.realtime.audio import FRAME, RATE, SILENCE, Samples, level_dbfs
from switchroom.realtime.client import load_audio
from switchroom.realtime.desk import Mode
from switchroom.realtime.ears import SpeechParts
from switchroom.realtime.operators import Asked, LiveCall
from switchroom.realtime.peer import close_peer, new_peer, prepare
from switchroom.store import Blobs, Store

from ..media.paced_track import PacedTrack, mono_of  # noqa: TID252 - one track for the rooms
from .test_call import SHORT, WAVS, House, open_house, sides

TONE: Samples = (np.sin(2 * np.pi * 480 / RATE * np.arange(FRAME)) * 8000).astype(np.int16)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def house(
    room_store: Store, parts: SpeechParts, blobs: Blobs, settings: MediaSettings, short_canvas: dict[str, Any]
) -> AsyncIterator[House]:
    patient = settings.model_copy(update={"silence_s": 60.0})
    async with open_house(House(room_store, parts, blobs, patient), {SHORT: short_canvas}) as house:
        await house.start_media()
        yield house


class Operator:
    """An operator's client: hears, and says what it is given."""

    def __init__(self, house: House, task_id: str, name: str) -> None:
        self._house, self._task_id, self.name = house, task_id, name
        self._peer: RTCPeerConnection = new_peer()
        self._mouth: list[Samples] = []
        self._receiving: asyncio.Task[None] | None = None
        self.heard: list[Samples] = []
        self.events: list[dict[str, Any]] = []
        self.id = ""

    async def listen(self) -> None:
        self._peer.addTrack(PacedTrack(lambda: self._mouth.pop(0) if self._mouth else SILENCE))
        channel = self._peer.createDataChannel("events")
        channel.on("message", lambda text: self.events.append(msgspec.json.decode(text)))
        self._peer.on("track", self._on_track)
        offer = await self._peer.createOffer()
        prepare(self._peer, loopback=True)
        await self._peer.setLocalDescription(offer)
        reply = await self._ask(host.LISTEN, Asked(operator=self.name), sdp=self._peer.localDescription.sdp)
        self.id = reply.call_id
        await self._peer.setRemoteDescription(RTCSessionDescription(sdp=reply.sdp, type="answer"))

    def _on_track(self, track: MediaStreamTrack) -> None:
        async def receive() -> None:
            while True:
                self.heard.append(mono_of(await track.recv()))

        self._receiving = asyncio.create_task(receive())

    async def _ask(self, kind: str, asked: Asked, sdp: str = "") -> Any:
        data = host.encode(asked)
        return await self._house.signal.at_call(kind, SHORT, self._task_id, call_id=self.id, sdp=sdp, data=data)

    async def ask(self, kind: str, **members: Any) -> LiveCall:
        return host.decode_live((await self._ask(kind, Asked(**members))).data)

    async def say(self, samples: Samples) -> None:
        self._mouth = [samples[i : i + FRAME] for i in range(0, samples.size - FRAME, FRAME)]
        async with asyncio.timeout(30):
            while self._mouth:
                await asyncio.sleep(0.05)

    async def hears(self, *, above: float = -45.0, timeout_s: float = 30) -> None:
        """Until somebody speaks."""
        begin = len(self.heard)
        async with asyncio.timeout(timeout_s):
            while not any(level_dbfs(frame) > above for frame in self.heard[begin:]):
                await asyncio.sleep(0.05)

    async def close(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            await asyncio.gather(self._receiving, return_exceptions=True)
        await close_peer(self._peer)


async def until(what: Any, timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while not what():
            await asyncio.sleep(0.05)


def spoken(name: Path) -> Samples:
    return load_audio(name)


async def test_an_operator_listens_talks_and_gives_the_call_back(house: House, data_dir: Path) -> None:
    task_id = await house.enqueue()
    told: list[dict[str, Any]] = []
    call = asyncio.ensure_future(
        house.call(task_id, [WAVS[0]], data_dir / "caller.wav", hang_up_after_s=60, on_event=told.append)
    )
    await house.until(task_id, State.LIVE)
    ann, ben = Operator(house, task_id, "ann"), Operator(house, task_id, "ben")
    await ann.listen()
    await ann.hears()  # the agent's greeting or the caller's question
    await until(lambda: any(one["type"] == "transcript" and one["role"] == "caller" for one in ann.events))
    await until(lambda: sum(one["type"] == "turn" for one in ann.events) >= 1)  # the agent has answered

    words = await asyncio.to_thread(spoken, WAVS[2])
    ann._mouth = [TONE] * 25  # said to nobody
    live = await ann.ask(host.WHISPER, operator="ann", text="Offer her a refund.")
    assert live.talks == "agent"
    assert (await ann.ask(host.SET_MODE, mode=Mode.TALK)).talks == "ann"
    await ann.say(words)
    await until(lambda: any(one["type"] == "transcript" and one["role"] == "operator" for one in told))

    await ben.listen()
    assert (await ann.ask(host.TRANSFER, operator="ann", to_operator="ben")).talks == "ann"
    assert (await ben.ask(host.SET_MODE, mode=Mode.TALK)).talks == "ben"
    live = await ben.ask(host.SET_MODE, mode=Mode.LISTEN, say="I am back.")
    assert live.talks == "agent" and {one.operator: one.mode for one in live.operators} == {
        "ann": Mode.LISTEN,
        "ben": Mode.LISTEN,
    }
    await until(lambda: any("back" in one.get("text", "") and one.get("final") for one in told))
    await ann.ask(host.LEAVE)
    with pytest.raises(NotFound):
        await ann.ask(host.SET_MODE, mode=Mode.TALK)
    await ben.ask(host.TRANSFER, operator="ben", to_number="+38615550100")
    report = await call
    await house.until(task_id, State.ENDED)
    with pytest.raises(Conflict):
        await ben.ask(host.SHOW)
    await asyncio.gather(ann.close(), ben.close())

    assert report.end_reason == "transferred"
    assert [one["number"] for one in told if one["type"] == "transfer"] == ["+38615550100"]
    assert [one["action"] for one in told if one["type"] == "operator"] == [
        "taken_over",
        "transferred_to_operator",
        "given_back",
    ]
    ended = await house.queue.get(SHORT, task_id)
    assert ended is not None and ended.end_reason is EndReason.TRANSFERRED
    row = await house.row(task_id)
    assert row.end_reason == "transferred" and "+38615550100" in row.detail
    actions = [(one.action, one.operator) for one in row.operators]
    assert actions == [
        ("operator_joined", "ann"),
        ("whispered", "ann"),
        ("taken_over", "ann"),
        ("operator_joined", "ben"),
        ("transfer_offered", "ann"),
        ("transferred_to_operator", "ben"),
        ("given_back", "ben"),
        ("operator_left", "ann"),
        ("transfer_started", "ben"),
    ]
    # the queue's stream (console, webhooks) has the same in the same order, without the words of a whisper
    detail = await house.queue.detail(SHORT, task_id)
    assert detail is not None
    history = detail.history
    assert [one.cause for one in history if one.cause in {name for name, _ in actions}] == [name for name, _ in actions]
    assert not any("refund" in one.detail for one in history)
    assert row.operators[1].detail == "Offer her a refund."

    said = [line for line in row.transcript if line.role == "operator"]
    assert said and re.search("operator|to talk", " ".join(line.text for line in said), re.IGNORECASE)
    assert row.recording is not None
    _, heard_of_us, rate = await asyncio.to_thread(sides, house.blobs.path(row.recording.blob))
    line = said[0]
    loud = heard_of_us[line.start_ms * rate // 1000 : line.end_ms * rate // 1000].astype(np.float32)
    assert np.sqrt(np.mean(loud**2)) > 300  # the recording has the operator where the agent was
