"""A telephone line as a provider carries it: Media Streams from the provider's side, and its buffer."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections import deque
from typing import Any

import aiohttp
import numpy as np

from switchroom.realtime.audio import Decimator, Samples, level_dbfs
from switchroom.realtime.client import load_audio
from switchroom.realtime.g711 import decode, encode

CHUNK = 160
_SILENCE = b"\xff" * CHUNK
_VOICE_DBFS = -45.0


class PhoneLine:
    """Says what it is told to, plays what it gets, sends marks back when what came before them was played."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, parameters: dict[str, str]) -> None:
        self._socket = socket
        self._parameters = parameters
        self._mouth = b""
        self._spoken = asyncio.Event()
        self._buffer: deque[bytes | str] = deque()
        self._tasks: list[asyncio.Task[None]] = []
        self.played: list[Samples] = []
        self.cleared_at: float | None = None
        self.longest_buffer_ms = 0
        self.closed = asyncio.Event()

    async def begin(self) -> None:
        await self._send(event="connected", protocol="Call", version="1.0.0")
        start = {
            "accountSid": "AC0",
            "streamSid": "MZ0",
            "callSid": "CA0",
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": self._parameters,
        }
        await self._send(event="start", sequenceNumber="1", start=start, streamSid="MZ0")
        self._tasks = [asyncio.create_task(self._line()), asyncio.create_task(self._receive())]

    async def say(self, samples: Samples) -> None:
        """48 kHz audio, in real time; returns when it is said."""
        self._spoken.clear()
        self._mouth = encode(Decimator(8000).feed(samples), "ulaw")
        await self._spoken.wait()

    async def press(self, digit: str) -> None:
        await self._send(event="dtmf", streamSid="MZ0", dtmf={"track": "inbound_track", "digit": digit})

    async def hang_up(self) -> None:
        await self._send(event="stop", streamSid="MZ0", stop={"accountSid": "AC0", "callSid": "CA0"})
        await self.drop()

    async def drop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._socket.close()

    async def until_voice(self, timeout_s: float = 30) -> None:
        """Until the far side speaks."""
        began = len(self.played)
        async with asyncio.timeout(timeout_s):
            while not any(level_dbfs(piece) > _VOICE_DBFS for piece in self.played[began:]):
                await asyncio.sleep(0.02)

    async def until_quiet(self, seconds: float = 0.7) -> None:
        async with asyncio.timeout(20):
            while any(level_dbfs(piece) > _VOICE_DBFS for piece in self.played[-int(seconds / 0.02) :]):
                await asyncio.sleep(0.02)

    async def _line(self) -> None:
        due, number = time.monotonic(), 0
        while True:
            chunk, self._mouth = self._mouth[:CHUNK].ljust(CHUNK, b"\xff"), self._mouth[CHUNK:]
            if not self._mouth:
                self._spoken.set()
            number += 1
            payload = base64.b64encode(chunk).decode()
            media = {"track": "inbound", "chunk": str(number), "timestamp": str(number * 20), "payload": payload}
            await self._send(event="media", sequenceNumber=str(number + 1), media=media, streamSid="MZ0")
            self.played.append(decode(await self._play(), "ulaw"))
            due += 0.02
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _play(self) -> bytes:
        audio = sum(isinstance(item, bytes) for item in self._buffer)
        self.longest_buffer_ms = max(self.longest_buffer_ms, audio * 20)
        piece = _SILENCE
        if self._buffer and isinstance(item := self._buffer.popleft(), bytes):
            piece = item
        while self._buffer and isinstance(self._buffer[0], str):
            await self._mark(str(self._buffer.popleft()))
        return piece

    async def _receive(self) -> None:
        async for message in self._socket:
            frame: dict[str, Any] = json.loads(message.data)
            assert frame["streamSid"] == "MZ0"
            if frame["event"] == "media":
                audio = base64.b64decode(frame["media"]["payload"])
                assert len(audio) == CHUNK
                self._buffer.append(audio)
            elif frame["event"] == "mark":
                self._buffer.append(frame["mark"]["name"])
            else:
                assert frame["event"] == "clear"
                self.cleared_at = time.monotonic()
                names = [item for item in self._buffer if isinstance(item, str)]
                self._buffer.clear()
                for name in names:
                    await self._mark(name)
        self.closed.set()

    async def _mark(self, name: str) -> None:
        await self._send(event="mark", sequenceNumber="4", streamSid="MZ0", mark={"name": name})

    async def _send(self, **frame: Any) -> None:
        if not self._socket.closed:
            await self._socket.send_str(json.dumps(frame))


async def speech_of(path: Any) -> Samples:
    """A recording as 48 kHz mono with a little silence after it."""
    samples = await asyncio.to_thread(load_audio, path)
    return np.concatenate((samples, np.zeros(2400, dtype=np.int16)))
