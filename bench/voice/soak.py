"""Callers that come and go: is memory flat, and is no task, thread or socket left?

    python bench/voice/soak.py [--minutes 60] [--at-once 8] [--out soak.svg]

Legs and callers share this process, so that a leak of either shows. A third of the callers hang up, a third close their
peer without a word, a third just fall silent until they are noticed to be dead. A whole server: `soak_serve.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import uvloop
from aiortc import RTCSessionDescription

sys.path.insert(0, str(Path(__file__).parent))
from plot import draw

from switchroom.realtime.audio import SILENCE, Samples
from switchroom.realtime.media_path import MediaPath
from switchroom.realtime.peer import SilentTrack, close_peer, new_peer, prepare
from switchroom.realtime.playout import Playout
from switchroom.realtime.settings import MediaSettings
from switchroom.realtime.webrtc import WebRtcLeg

SETTINGS = MediaSettings(media_loopback=True, dead_peer_s=1.0)
TALK_S = 1.5


class Nobody:
    def on_frame(self, frame: Samples) -> None: ...
    def on_dtmf(self, digit: str) -> None: ...
    def on_message(self, message: dict[str, Any]) -> None: ...


async def visit(number: int) -> None:
    leg, peer = WebRtcLeg(SETTINGS), new_peer()
    heard: list[Samples] = []
    path = MediaPath(lambda: SILENCE + 1, heard.append)
    peer.addTrack(SilentTrack())
    path.attach(peer)
    peer.createDataChannel("events")
    await peer.setLocalDescription(await peer.createOffer())
    prepare(peer, loopback=True)
    answer = await leg.answer(peer.localDescription.sdp)
    leg.start(Playout(), Nobody())
    await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    await asyncio.wait_for(leg.connected.wait(), 10)
    await asyncio.sleep(TALK_S)
    assert heard and leg.frames_received > 20, "no audio"
    if number % 3 == 0:
        await leg.close()
    elif number % 3 == 1:
        await close_peer(peer)
        await asyncio.wait_for(leg.gone.wait(), 10)
    else:
        path.close()
        await asyncio.wait_for(leg.gone.wait(), 10)
    await leg.close()
    await close_peer(peer)
    path.close()


def state() -> tuple[float, int, int, int]:
    """MB resident, tasks, threads but those of the loop's own pool, open files."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    megabytes = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    return megabytes, len(asyncio.all_tasks()), _threads(), len(os.listdir("/proc/self/fd"))


def _threads() -> int:
    return sum(not thread.name.startswith("asyncio_") for thread in threading.enumerate())


async def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--minutes", type=float, default=60)
    options.add_argument("--at-once", type=int, default=8)
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    began, visits, shown, rows = time.monotonic(), 0, 0.0, list[tuple[float, float]]()
    for _ in range(2):  # pools, codecs, caches: what is made once
        await asyncio.gather(*(visit(number) for number in range(given.at_once)))
    before = state()
    print(f"begin: {before[0]:.1f} MB, {before[1]} tasks, {before[2]} threads, {before[3]} files", flush=True)
    while time.monotonic() - began < given.minutes * 60:
        await asyncio.gather(*(visit(visits + number) for number in range(given.at_once)))
        visits += given.at_once
        rows.append((time.monotonic() - began, state()[0]))
        if time.monotonic() - shown > 30:
            shown = time.monotonic()
            memory, tasks, threads, files = state()
            print(
                f"{shown - began:6.0f} s  {visits:5} visits  {memory:.1f} MB  "
                f"{tasks} tasks, {threads} threads, {files} files",
                flush=True,
            )
    after = state()
    print(f"end: {after[0]:.1f} MB, {after[1]} tasks, {after[2]} threads, {after[3]} files after {visits} visits")
    if given.out:
        title = f"{visits} callers in {given.minutes:g} minutes, legs and callers in one process"
        draw(title, "MB", {"resident": rows}, given.out)
    assert after[1:] == before[1:], "something is left"


uvloop.run(main())
