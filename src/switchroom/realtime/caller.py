"""One leg from the caller's side: dials, speaks, listens, hangs up."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

import aiohttp
import numpy as np
from aiortc import RTCDataChannel, RTCSessionDescription

from switchroom.errors import SwitchroomError, TimedOut, Unavailable
from switchroom.realtime import opus
from switchroom.realtime.audio import FRAME, NOTHING, RATE, SILENCE, Samples, level_dbfs
from switchroom.realtime.media_path import MediaPath
from switchroom.realtime.peer import SilentTrack, close_peer, new_peer, prepare
from switchroom.realtime.report import CallReport, HeardTurn

log = logging.getLogger(__name__)

_VOICE_DBFS = -48.0
"""A frame above this is somebody's voice, not line noise."""
_QUIET_S = 0.9
"""So much silence ends the other side's turn: longer than the gap between two clauses."""
_GREETING_S = 1.5
"""Without an event channel: whoever has not begun to speak by then waits for us."""
_TOLD_GREETING_S = 10.0
"""With one the server says when its first turn is over; this only bounds a server that says nothing."""
_ANSWER_S = 20.0
_DEAD_S = 4.0
_HTTP_S = 15.0
_CONNECT_S = 15.0
_PING_S = 1.0

OnEvent = Callable[[dict[str, Any]], None]


class Caller:
    """One leg, from our side."""

    def __init__(self, flow_id: str, task_id: str, on_event: OnEvent | None, *, loopback: bool) -> None:
        self.report = CallReport(flow_id=flow_id, task_id=task_id)
        self._on_event = on_event
        self._loopback = loopback
        self._peer = new_peer()
        self._path = MediaPath(self._next_frame, self._hear)
        self._channel: RTCDataChannel | None = None
        self._mouth: Samples = NOTHING
        self._spoken = asyncio.Event()
        self._said: list[Samples] = []
        self._heard: list[Samples] = []
        self._pending: list[Samples] = []
        self._connected = asyncio.Event()
        self._over = asyncio.Event()
        self._live = asyncio.Event()
        self._agent_speaking: bool | None = None
        self._voice_at: float | None = None
        self._voice_frames = 0
        self._voice_power = 0.0
        self._began = time.monotonic()
        self._location: str | None = None
        self._headers: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._hung_up = False
        self._waiting = False
        self._resumed = False
        self._last_voice_at = 0.0

    # --- signalling ----------------------------------------------------------------------------------------------

    async def dial(self, server_url: str, api_key: str | None) -> None:
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        await asyncio.to_thread(opus.load)
        self._peer.addTrack(SilentTrack())
        self._path.attach(self._peer)
        channel = self._channel = self._peer.createDataChannel("events")
        channel.on("message", self._on_message)
        self._peer.on("connectionstatechange", self._on_state)
        offer = await self._peer.createOffer()
        prepare(self._peer, loopback=self._loopback)
        await self._peer.setLocalDescription(offer)
        path = f"/api/v1/openai-realtime/{quote(self.report.flow_id)}/calls?taskId={quote(self.report.task_id)}"
        began = time.monotonic()
        answer = await self._post(server_url.rstrip("/") + path, self._peer.localDescription.sdp)
        await self._peer.setRemoteDescription(RTCSessionDescription(sdp=answer, type="answer"))
        try:
            async with asyncio.timeout(_CONNECT_S):
                await self._connected.wait()
        except TimeoutError:
            raise TimedOut("the server answered, but no media came through") from None
        self.report.connected_ms = round((time.monotonic() - began) * 1000, 1)
        self._began = time.monotonic()

        async def ping() -> None:
            while channel.readyState in ("connecting", "open"):
                if channel.readyState == "open":
                    channel.send('{"type":"ping"}')
                quiet_s = time.monotonic() - max(self._began, self._path.last_packet_s)
                if quiet_s > _DEAD_S and not self._over.is_set():
                    self.report.ended_by = "lost"
                    self._over.set()
                    return
                await asyncio.sleep(_PING_S)

        self._spawn(ping(), "ping")

    async def _post(self, url: str, sdp: str) -> str:
        headers = {**self._headers, "Content-Type": "application/sdp", "Accept": "application/sdp"}
        timeout = aiohttp.ClientTimeout(total=_HTTP_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as http,
                http.post(url, data=sdp, headers=headers) as reply,
            ):
                body = await reply.text()
                if reply.status != 201:
                    raise _refused(reply.status, body)
                self._location = urljoin(url, reply.headers.get("Location", ""))
                self.report.call_id = self._location.rstrip("/").rsplit("/", 1)[-1]
                return body
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"the server cannot be reached: {error}") from error

    async def hang_up(self) -> None:
        """Leave. Best effort towards the server: our side closes anyway."""
        if self._hung_up:
            return
        self._hung_up = True
        self.report.seconds = round(time.monotonic() - self._began, 2)
        if self._location is not None and not self._over.is_set():
            self.report.ended_by = self.report.ended_by or "caller"
            try:
                timeout = aiohttp.ClientTimeout(total=5)
                async with (
                    aiohttp.ClientSession(timeout=timeout) as http,
                    http.delete(self._location, headers=self._headers) as reply,
                ):
                    if reply.status < 300:
                        await self._wait_over(3.0)
            except (aiohttp.ClientError, TimeoutError) as error:
                log.warning("the server did not take our hang-up", extra={"error": str(error)})
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await close_peer(self._peer)
        self._path.close()

    async def _wait_over(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._over.wait()
        except TimeoutError:
            return

    # --- the talk ------------------------------------------------------------------------------------------------

    async def converse(self, utterances: list[tuple[str, Samples]], hang_up_after_s: float) -> None:
        await self._until_live()
        told = self._live.is_set() and not self._resumed
        self.report.greeted = await self._listen(_TOLD_GREETING_S if told else _GREETING_S)
        for name, samples in utterances:
            if self._over.is_set():
                return
            turn = HeardTurn(wav=name)
            self.report.turns.append(turn)
            finished = await self._speak(samples)
            heard_before = self._voice_frames
            self._voice_at = None
            first = await self._first_voice(_ANSWER_S)
            if first is not None:
                turn.answer_after_ms = round((first - finished) * 1000, 1)
                await self._until_quiet()
                turn.answer_s = round((self._voice_frames - heard_before) * FRAME / RATE, 2)
        await self._wait_over(hang_up_after_s)

    async def _until_live(self) -> None:
        """While we wait for a line there is a tone; the talk begins after it. Without an event channel: at once."""
        live = asyncio.ensure_future(self._live.wait())
        over = asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait({live, over}, timeout=_GREETING_S, return_when=asyncio.FIRST_COMPLETED)
            if self._waiting:
                await asyncio.wait({live, over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            live.cancel()
            over.cancel()

    async def _listen(self, patience_s: float) -> bool:
        """Hear the other side out, if it begins within `patience_s`."""
        if await self._first_voice(patience_s) is None:
            return False
        await self._until_quiet()
        return True

    async def _first_voice(self, patience_s: float) -> float | None:
        deadline = time.monotonic() + patience_s
        while not self._over.is_set() and time.monotonic() < deadline:
            if self._voice_at is not None:
                return self._voice_at
            if self.report.server_turns and not self.report.turns:
                return None  # the server's opening turn is over, without a word
            await asyncio.sleep(FRAME / RATE)
        return self._voice_at

    async def _until_quiet(self) -> None:
        while not self._over.is_set():
            quiet_s = time.monotonic() - self._last_voice_at
            if quiet_s > _QUIET_S and not (self._agent_speaking and quiet_s < 3 * _QUIET_S):
                return
            await asyncio.sleep(FRAME / RATE)

    async def _speak(self, samples: Samples) -> float:
        """Say it in real time; returns when the last sample left."""
        self._spoken.clear()
        self._mouth = samples
        over = asyncio.ensure_future(self._over.wait())
        spoken = asyncio.ensure_future(self._spoken.wait())
        try:
            await asyncio.wait({over, spoken}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
            spoken.cancel()
        return time.monotonic()

    def _next_frame(self) -> Samples:
        frame = SILENCE
        if self._mouth.size:
            frame, self._mouth = self._mouth[:FRAME], self._mouth[FRAME:]
            if frame.size < FRAME:
                frame = np.concatenate((frame, SILENCE[frame.size :]))
            if not self._mouth.size:
                self._spoken.set()
        self._said.append(frame)
        self._heard.append(self._pending.pop(0) if self._pending else SILENCE)
        del self._pending[:-10]  # a burst: keep the two sides of the recording aligned
        return frame

    # --- what comes in -------------------------------------------------------------------------------------------

    def _hear(self, frame: Samples) -> None:
        self._pending.append(frame)
        level = level_dbfs(frame)
        if level > _VOICE_DBFS:
            now = time.monotonic()
            self._last_voice_at = now
            self._voice_at = self._voice_at or now
            self._voice_frames += 1
            self._voice_power += 10 ** (level / 10)

    def _on_state(self) -> None:
        state = self._peer.connectionState
        if state == "connected":
            self._connected.set()
        elif state in ("closed", "failed"):
            self.report.ended_by = self.report.ended_by or ("lost" if state == "failed" else "agent")
            self._over.set()

    def _on_message(self, message: str | bytes) -> None:
        try:
            event = json.loads(message)
        except ValueError:
            return
        if not isinstance(event, dict):
            return
        match event.get("type"):
            case "state":
                self._waiting = event.get("state") == "waiting"
                self._resumed = self._resumed or bool(event.get("resumed"))
                if event.get("state") == "live":
                    self._voice_at = None  # what sounded before was the hold tone
                    self._live.set()
            case "speaking" if event.get("role") == "agent":
                self._agent_speaking = bool(event.get("active"))
            case "transcript" if event.get("final"):
                self.report.transcript.append({key: event[key] for key in event if key not in ("type", "final")})
            case "turn":
                self.report.server_turns.append({key: event[key] for key in event if key != "type"})
            case "ended":
                self.report.end_reason = str(event.get("reason", ""))
                if not self._hung_up:
                    self.report.ended_by = "agent"
                self._over.set()
            case _:
                pass
        if self._on_event is not None:
            self._on_event(event)

    def _spawn(self, coroutine: Any, name: str) -> None:
        task = asyncio.get_running_loop().create_task(coroutine, name=f"caller-{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def save(self, record: Path | None) -> None:
        self.report.heard_s = round(self._voice_frames * FRAME / RATE, 2)
        if self._voice_frames:
            self.report.heard_dbfs = round(10 * float(np.log10(self._voice_power / self._voice_frames)), 1)
        if record is None or not self._said:
            return
        await asyncio.to_thread(self._write, record)
        self.report.recording = str(record)

    def _write(self, record: Path) -> None:
        stereo = np.empty(len(self._said) * FRAME * 2, dtype="<i2")
        stereo[0::2] = np.concatenate(self._said)
        stereo[1::2] = np.concatenate(self._heard)
        with wave.open(str(record), "wb") as wav:
            wav.setnchannels(2)
            wav.setsampwidth(2)
            wav.setframerate(RATE)
            wav.writeframes(stereo.tobytes())


def _refused(status: int, body: str) -> SwitchroomError:
    """The server's problem details as one of our errors."""
    from switchroom.realtime.registry import Refusal, error_of

    detail, code = body[:200], "refused"
    try:
        problem = json.loads(body)
        if isinstance(problem, dict):
            detail = str(problem.get("detail") or problem.get("title") or detail)
            code = str(problem.get("code") or code)
    except ValueError:
        pass
    return error_of(Refusal(status=status, code=code, detail=detail or f"HTTP {status}"))
