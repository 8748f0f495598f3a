"""Callers for the bench: they send speech that was encoded before and note when each packet comes back. One of them is
the probe: a click every half second, and when it is heard.

`load.py URL LABEL LEGS SECONDS` prints `window` when all legs talk, and at the end a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import numpy as np
import uvloop
from aiortc import RTCSessionDescription

from switchroom.realtime import opus
from switchroom.realtime.audio import FRAME, FRAME_S, RATE, SILENCE, Samples
from switchroom.realtime.client import load_audio
from switchroom.realtime.jitter import Slot
from switchroom.realtime.media_path import Codec, MediaPath, OpusCodec
from switchroom.realtime.peer import SilentTrack, new_peer, prepare

EXAMPLES = Path(__file__).parents[2] / "examples"
LATE_S = 0.04
CLICK_EVERY = 25
_CLICK = (np.sin(np.arange(FRAME) * 2 * np.pi * 1000 / RATE) * 20_000).astype(np.int16)


class Canned:
    """A codec without its cost: packets of speech made before; what comes is not decoded."""

    rate = RATE

    def __init__(self, packets: list[bytes], begin: int) -> None:
        self._packets, self._at = packets, begin
        self.samples_of = opus.samples_of

    def encode(self, frame: Samples) -> bytes:
        self._at = (self._at + 1) % len(self._packets)
        return self._packets[self._at]

    def decode(self, slot: Slot) -> Samples:
        return SILENCE if slot.packet is not None else SILENCE[:0]

    def expect_loss(self, percent: int) -> None: ...
    def close(self) -> None: ...


class CannedPath(MediaPath):
    def __init__(self, codec: Codec, sink: Callable[[Samples], None]) -> None:
        super().__init__(lambda: _CLICK, sink)
        self._canned = codec

    def _codec_of(self, mime_type: str) -> Codec:
        return self._canned


class Caller:
    """A leg that counts."""

    def __init__(self, packets: list[bytes], begin: int) -> None:
        self.arrivals: list[float] = []
        self.path: MediaPath = CannedPath(Canned(packets, begin), self._came)

    def _came(self, frame: Samples) -> None:
        self.arrivals.append(time.monotonic())

    async def dial(self, http: aiohttp.ClientSession, url: str, label: str) -> None:
        peer = self._peer = new_peer()
        peer.addTrack(SilentTrack())
        self.path.attach(peer)
        channel = peer.createDataChannel(label)
        await peer.setLocalDescription(await peer.createOffer())
        prepare(peer, loopback=True)
        async with http.post(url, data=peer.localDescription.sdp) as reply:
            answer = await reply.text()
            assert reply.status == 200, answer
        await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))

        async def ping() -> None:
            while True:
                await asyncio.sleep(1)
                if channel.readyState == "open":
                    channel.send("ping" if label != "events" else '{"type":"ping"}')

        self._ping = asyncio.create_task(ping())

    def figures(self, since: float, until: float) -> tuple[float, float, float]:
        """Frames a second, share of those later than 40 ms, the 99th percentile of lateness in ms."""
        at = np.array([one for one in self.arrivals if since <= one < until])
        if at.size < 2:
            return 0.0, 1.0, 1e6
        behind = at - np.arange(at.size) * FRAME_S
        late = behind - behind.min()
        return at.size / (until - since), float((late > LATE_S).mean()), float(np.percentile(late, 99)) * 1000


class Probe(Caller):
    """Says clicks and listens for them."""

    def __init__(self) -> None:
        super().__init__([b""], 0)
        self.path = MediaPath(self._say, self._listen)
        self._frames = 0
        self._said = 0.0
        self.round_trips_ms: list[float] = []

    def _say(self) -> Samples:
        self._frames += 1
        if self._frames % CLICK_EVERY:
            return SILENCE + 1  # not the silence that is sent for free
        self._said = time.monotonic()
        return _CLICK

    def _listen(self, frame: Samples) -> None:
        self._came(frame)
        if self._said and np.abs(frame).max() > 4_000:
            self.round_trips_ms.append((time.monotonic() - self._said) * 1000)
            self._said = 0.0


async def main() -> None:
    url, label, legs, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    samples = load_audio(EXAMPLES / "caller-1-invoice.wav")
    codec = OpusCodec()
    packets = [codec.encode(samples[at : at + FRAME]) for at in range(0, samples.size - FRAME, FRAME)]
    opus.load()
    probe = Probe()
    callers = [probe, *(Caller(packets, number * 7) for number in range(legs - 1))]
    async with aiohttp.ClientSession() as http:
        for caller in callers:
            await caller.dial(http, url, label)
            await asyncio.sleep(0.05)
    await asyncio.sleep(3)
    print("window", flush=True)
    began = time.monotonic()
    probe.round_trips_ms.clear()
    await asyncio.sleep(seconds)
    ended = time.monotonic()
    each = [caller.figures(began, ended) for caller in callers]
    rate, late, p99 = (np.array(column) for column in zip(*each, strict=True))
    result = {
        "fps_mean": round(float(rate.mean()), 1),
        "fps_min": round(float(rate.min()), 1),
        "late_percent": round(float(late.mean()) * 100, 2),
        "late_p99_ms": round(float(np.median(p99)), 1),
        "round_trip_p50_ms": round(float(np.median(probe.round_trips_ms)), 1) if probe.round_trips_ms else None,
    }
    print(json.dumps(result), flush=True)
    os._exit(0)  # the server is ended next: nothing is to be said about it


uvloop.run(main())
