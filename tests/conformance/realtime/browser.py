"""A browser's half of a Realtime call over WebRTC: aiortc as it is, a data channel `oai-events`, one audio track."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import numpy as np
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from switchroom.realtime.audio import FRAME, SILENCE, Samples, level_dbfs
from switchroom.realtime.peer import close_peer, new_peer, prepare

from ...media.paced_track import PacedTrack, mono_of  # noqa: TID252 - one track for the rooms


class Browser:
    """`offer`, then `answered`; `speak` puts 48 kHz samples on the line."""

    def __init__(self) -> None:
        self.peer: RTCPeerConnection = new_peer()
        self.events: list[dict[str, Any]] = []
        self.heard_at: list[float] = []
        """When a frame of the agent's voice came."""
        self._mouth: Samples = np.zeros(0, dtype=np.int16)
        self._channel: Any = None
        self._tasks: list[asyncio.Task[None]] = []

    async def offer(self) -> str:
        self.peer.addTrack(PacedTrack(self._next))
        self._channel = self.peer.createDataChannel("oai-events")
        self._channel.on("message", lambda text: self.events.append(json.loads(text)))
        self.peer.on("track", self._on_track)
        offer = await self.peer.createOffer()
        prepare(self.peer, loopback=True)
        await self.peer.setLocalDescription(offer)
        return str(self.peer.localDescription.sdp)

    async def answered(self, sdp: str) -> None:
        await self.peer.setRemoteDescription(RTCSessionDescription(sdp=sdp, type="answer"))

    def send(self, event: dict[str, Any]) -> None:
        self._channel.send(json.dumps(event))

    def speak(self, samples: Samples) -> None:
        self._mouth = samples

    def kinds(self) -> list[str]:
        return [event["type"] for event in self.events]

    async def until(self, kind: str, since: int = 0) -> dict[str, Any]:
        """The first event of a kind from the `since`-th on."""
        async with asyncio.timeout(20):
            while True:
                for event in self.events[since:]:
                    assert event["type"] != "error", event
                    if event["type"] == kind:
                        return event
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await close_peer(self.peer)

    def _next(self) -> Samples:
        frame, self._mouth = self._mouth[:FRAME], self._mouth[FRAME:]
        return frame if frame.size == FRAME else SILENCE

    def _on_track(self, track: MediaStreamTrack) -> None:
        self._tasks.append(asyncio.create_task(self._listen(track)))

    async def _listen(self, track: MediaStreamTrack) -> None:
        while True:
            try:
                frame: Any = await track.recv()
            except MediaStreamError:
                return
            if level_dbfs(mono_of(frame)) > -48:
                self.heard_at.append(time.monotonic())
