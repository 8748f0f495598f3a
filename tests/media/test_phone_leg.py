"""The telephone leg by itself, over a real WebSocket: keys, marks, a provider without them, silence on the line."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
from aiohttp import ClientWebSocketResponse, web
from aiohttp.test_utils import TestClient, TestServer

from switchroom.errors import BadInput
from switchroom.realtime.audio import FRAME, RATE, Samples
from switchroom.realtime.g711 import encode
from switchroom.realtime.media_stream import MediaStreamLeg, started
from switchroom.realtime.playout import Playout
from switchroom.realtime.settings import MediaSettings

TONE = (np.sin(np.arange(FRAME * 50) * 2 * np.pi * 440 / RATE) * 8000).astype(np.int16)


class Line:
    """The leg under test, and the provider's end of its socket."""

    def __init__(self) -> None:
        self.legs: asyncio.Queue[MediaStreamLeg] = asyncio.Queue()
        self.refused: list[str] = []
        self.numbers: list[str] = []
        self.heard: list[Samples] = []
        self.keys: list[str] = []

    def on_frame(self, frame: Samples) -> None:
        self.heard.append(frame)

    def on_dtmf(self, digit: str) -> None:
        self.keys.append(digit)

    def on_message(self, message: dict[str, Any]) -> None: ...

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        try:
            stream = await started(socket)
        except BadInput as error:
            self.refused.append(error.detail)
            return socket

        async def transfer(number: str) -> None:
            self.numbers.append(number)

        leg = MediaStreamLeg(MediaSettings(dead_peer_s=0.6), socket, stream, transfer)
        self.legs.put_nowait(leg)
        await leg.run()
        await leg.close()
        return socket


@pytest.fixture
async def line() -> AsyncIterator[tuple[Line, Callable[[], Any]]]:
    line = Line()
    app = web.Application()
    app.router.add_get("/", line.serve)
    async with TestClient(TestServer(app)) as client:
        yield line, lambda: client.ws_connect("/")


async def begin(socket: ClientWebSocketResponse, **format: Any) -> None:
    media = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1, **format}
    await socket.send_json({"event": "connected", "protocol": "Call", "version": "1.0.0"})
    await socket.send_json({"event": "start", "streamSid": "MZ", "start": {"streamSid": "MZ", "mediaFormat": media}})


async def frames(socket: ClientWebSocketResponse, event: str, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(30):
        while len(found) < count:
            frame = json.loads((await socket.receive()).data)
            found += [frame] if frame["event"] == event else []
    return found


async def test_keys_marks_and_clear(line: tuple[Line, Callable[[], Any]]) -> None:
    house, connect = line
    async with connect() as socket:
        await begin(socket)
        leg = await house.legs.get()
        playout = Playout()
        leg.start(playout, house)
        playout.say(TONE, " ".join(["word"] * 50), generation=0)
        payload = base64.b64encode(encode(TONE[: FRAME * 5 : 6], "ulaw")).decode()
        for body in (
            {"event": "dtmf", "dtmf": {"track": "inbound_track", "digit": "5"}},
            {"event": "dtmf", "dtmf": {"track": "inbound_track", "digit": "x"}},
            {"event": "media", "media": {"track": "inbound", "payload": payload}},
            {"event": "media", "media": {"track": "inbound", "payload": "%%%"}},
        ):
            await socket.send_json(body | {"streamSid": "MZ"})
        marks = await frames(socket, "mark", 3)
        assert house.keys == ["5"] and leg.frames_broken == 1
        assert len(house.heard) == 5 and np.abs(house.heard[2]).max() > 6000
        assert not playout.heard_any  # all that was sent still waits in the provider's buffer
        await socket.send_json({"event": "mark", "streamSid": "MZ", "mark": marks[0]["mark"]})
        async with asyncio.timeout(30):
            while not playout.heard_any:
                await asyncio.sleep(0.01)
        playout.clear()
        assert len(playout.take_heard().split()) == int(marks[0]["mark"]["name"])  # a word a frame
        await frames(socket, "clear", 1)
        leg.send_event({"type": "transfer", "number": "+38615550001"})
        await leg.close()
        assert house.numbers == ["+38615550001"]  # before the socket closes: then the provider asks


async def test_a_silent_line_is_dead_and_a_stop_is_a_hang_up(line: tuple[Line, Callable[[], Any]]) -> None:
    house, connect = line
    async with connect() as socket:
        await begin(socket)
        leg = await house.legs.get()
        async with asyncio.timeout(30):
            await leg.gone.wait()
        assert leg.gone_cause == "dead"
    async with connect() as socket:
        await begin(socket)
        leg = await house.legs.get()
        await socket.send_json({"event": "stop", "streamSid": "MZ", "stop": {}})
        async with asyncio.timeout(30):
            await leg.gone.wait()
        assert leg.gone_cause == "hung_up"


async def test_what_is_no_stream_of_ours(line: tuple[Line, Callable[[], Any]]) -> None:
    house, connect = line
    async with connect() as socket:
        await begin(socket, sampleRate=16000)
        await socket.receive()
    async with connect() as socket:
        await socket.send_json({"event": "media"})
        await socket.receive()
    assert "16000 Hz" in house.refused[0] and "begins with" in house.refused[1]
