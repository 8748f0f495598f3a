"""Our leg as a server for the bench: each caller hears himself.

The way: socket → order → Opus → playout → Opus → socket."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from typing import Any

import uvloop
from aiohttp import web

from switchroom.realtime.audio import SILENCE, Samples
from switchroom.realtime.playout import Playout
from switchroom.realtime.settings import MediaSettings
from switchroom.realtime.webrtc import WebRtcLeg

SETTINGS = MediaSettings(media_loopback=True, max_legs=200)
KEPT = 3
"""Frames that may wait to be said: two clocks never run alike."""


class Echo:
    def __init__(self) -> None:
        self._frames: deque[Samples] = deque(maxlen=KEPT)

    def on_frame(self, frame: Samples) -> None:
        self._frames.append(frame)

    def next(self) -> Samples:
        return self._frames.popleft() if self._frames else SILENCE

    def on_dtmf(self, digit: str) -> None: ...
    def on_message(self, message: dict[str, Any]) -> None: ...


async def offer(request: web.Request) -> web.Response:
    leg, echo, playout = WebRtcLeg(SETTINGS), Echo(), Playout()
    playout.hold(echo.next)
    answer = await leg.answer(await request.text())
    leg.start(playout, echo)
    request.app["legs"].append(leg)
    return web.Response(text=answer, content_type="application/sdp")


async def main() -> None:
    app = web.Application()
    app["legs"] = []
    app.router.add_post("/offer", offer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(sys.argv[1])).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


uvloop.run(main())
