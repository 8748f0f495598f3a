"""The WebSocket to a Realtime service: one session after another for as long as a call lasts, a response at a time.

A lost connection is opened again, a bounded number of times in a row, after a wait with jitter. Then the configuration,
what was said and heard so far, and the caller's audio that was not yet understood go out anew.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import aiohttp
import msgspec

from switchroom.engine.session import Message
from switchroom.errors import SwitchroomError, Unavailable
from switchroom.realtime import openai_wire as wire
from switchroom.realtime.audio import Samples
from switchroom.realtime.openai_ears import Hearer, WireEars
from switchroom.realtime.openai_wire import FunctionCall, ServerEvent, Tool, Wanted
from switchroom.realtime.settings import MediaSettings

log = logging.getLogger(__name__)

_CONNECT_S = 10.0
_PING_S = 10.0
_CLOSE_S = 1.0
_STALL_S = 8.0
"""So long without a sign of a response that was asked for: it will not come."""
_CANCEL_S = 2.0
_STEADY_S = 20.0
"""A session that lived so long was a good one: the count of failures begins anew."""
_WAIT_FIRST_S, _WAIT_MOST_S = 0.25, 4.0
_BEFORE_END_S = 60.0
"""So long before the end that the service announces, its session is old."""
_LIFE_LEAST_S = 1.0
_QUIET_LOOK_S = 0.05
_MAX_MESSAGE = 16 << 20
_OUT = 1_200
_CONTROL = 200
"""Places in the outgoing queue that audio does not take."""
_REFUSED = {401: "invalid_api_key", 403: "forbidden", 404: "model_not_found"}


class Refused(SwitchroomError):
    """The service will not do it, however often it is asked."""

    code = "voice_service_refused"
    status = 502
    title = "Voice service refused"


class Lost(Exception):
    """The connection ended in the middle of a response."""


class Listener(Hearer, Protocol):
    """Who is told. All are called on the loop and must not block."""

    def said_so_far(self) -> Sequence[Message]:
        """What both said and heard, for a new session."""
        ...

    def resting(self) -> bool:
        """No turn is on its way: a good moment for another session."""
        ...

    def used(self, what: str, usage: dict[str, Any]) -> None:
        """`what` is `responses` or `transcriptions`."""
        ...


class Sink(Protocol):
    """Takes what is to be heard of a response, by the item that it belongs to."""

    def audio(self, item_id: str, session: int, samples: Samples) -> None: ...
    def words(self, item_id: str, session: int, text: str) -> None: ...


class Reply:
    """A response on its way: pieces of its text and calls of functions, in order; its sound goes to the `sink`."""

    def __init__(self, session: int, sink: Sink | None) -> None:
        self.session = session
        """Number of the session it belongs to."""
        self.sink = sink
        self.create_id = ""
        self.id = ""
        self.over = asyncio.Event()
        self.alive = time.monotonic()
        """When the service last sent a part of it."""
        self._pieces: asyncio.Queue[str | FunctionCall | Exception | None] = asyncio.Queue()

    def put(self, piece: str | FunctionCall) -> None:
        self._pieces.put_nowait(piece)

    def end(self, error: Exception | None = None) -> None:
        if not self.over.is_set():
            self.over.set()
            self._pieces.put_nowait(error)

    async def pieces(self) -> AsyncIterator[str | FunctionCall]:
        """Raises `Lost`, `Refused`, or `Unavailable` when the service failed or fell silent."""
        while True:
            try:
                async with asyncio.timeout(max(0.0, self.alive + _STALL_S - time.monotonic())):
                    piece = await self._pieces.get()
            except TimeoutError:
                if time.monotonic() < self.alive + _STALL_S:
                    continue  # its audio goes on, its words were all there
                raise Unavailable(f"the voice service said nothing for {_STALL_S:g} s", code="voice_stalled") from None
            if piece is None:
                return
            if isinstance(piece, Exception):
                raise piece
            yield piece


class Link:
    """See the module. `run` keeps it up; everything else may be called while it runs."""

    _is_greeted = True
    """The service speaks first."""

    def __init__(self, settings: MediaSettings, listener: Listener) -> None:
        self._settings = settings
        self._listener = listener
        self._ears = WireEars(listener, self._audio_out, hangover_ms=settings.hangover_ms)
        self._out: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_OUT)
        self._up = asyncio.Event()
        self._failed: SwitchroomError | None = None
        self._instructions = ""
        self._tools: Sequence[Tool] = ()
        self._floor = asyncio.Lock()
        self._renewed = False
        """The session is left for a new one."""
        self._reply: Reply | None = None
        self.session = 0
        """Grows with every session: items belong to the one they were made in."""
        self.refused = ""
        """The code with which the service refused for good."""
        self.frames_dropped = 0

    # --- what the engine does ------------------------------------------------------------------------------------

    def hear(self, frame: Samples) -> None:
        """20 ms of the caller at 48 kHz."""
        self._ears.hear(frame, up=self._up.is_set())

    def configure(self, instructions: str, tools: Sequence[Tool]) -> None:
        """What the model is from now on."""
        if instructions == self._instructions and list(tools) == list(self._tools):
            return
        self._instructions, self._tools = instructions, tools
        if self._up.is_set():
            self._send(wire.session_node(instructions=instructions, tools=tools))

    @asynccontextmanager
    async def respond(self, wanted: Wanted, sink: Sink | None) -> AsyncIterator[Reply]:
        """Ask for a response. Leaving the context before its end cancels it."""
        async with self._floor:
            await self.ready()
            last = self._reply
            if last is not None and not last.over.is_set():
                # It was cancelled; until the server says so it is the active one.
                try:
                    async with asyncio.timeout(_CANCEL_S):
                        await last.over.wait()
                except TimeoutError:
                    log.warning("the voice service did not end a cancelled response")
                await self.ready()
            reply = self._reply = Reply(self.session, sink)
            reply.create_id = self._send(wire.response(wanted))
            try:
                yield reply
            finally:
                reply.sink = None
                if not reply.over.is_set() and reply.session == self.session and self._up.is_set():
                    self._send(wire.cancel(reply.id))

    def add(self, said: Message) -> None:
        """Words that the session does not know of."""
        if self._up.is_set():
            self._send(wire.message(said))

    def answer_function(self, call: FunctionCall, output: dict[str, Any] | str) -> bool:
        """What the function gave. False: the session that called it is gone, and no other knows of the call."""
        known = call.session == self.session and self._up.is_set()
        if known:
            self._send(wire.function_output(call.call_id, output))
        return known

    def cut(self, item_id: str, heard_ms: int, session: int) -> None:
        """Of this item only so much was heard; of none at all, it was never said."""
        if session == self.session and self._up.is_set():
            self._send(wire.truncate(item_id, heard_ms) if heard_ms else wire.delete(item_id))

    @property
    def answering(self) -> bool:
        """A response is asked for and not over."""
        return self._floor.locked()

    async def ready(self) -> None:
        """Until a session is up. Raises what `run` raised when there will be none."""
        await self._up.wait()
        if self._failed is not None:
            raise self._failed

    # --- sessions ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep a session up until cancelled. Raises `Refused`, or `Unavailable` when no try got through."""
        try:
            await self._keep_up()
        except SwitchroomError as error:
            self._failed = error
            self._up.set()  # whoever waits for it learns that it will not come
            if self._reply is not None:
                self._reply.end(error)
            raise

    async def _keep_up(self) -> None:
        failures = 0
        async with aiohttp.ClientSession() as http:
            while True:
                began = time.monotonic()
                try:
                    cause = await self._one_session(http)
                except aiohttp.WSServerHandshakeError as error:
                    if error.status in _REFUSED:
                        raise self._refusal(_REFUSED[error.status], f"HTTP {error.status}") from None
                    cause = f"HTTP {error.status}"
                except (aiohttp.ClientError, OSError) as error:
                    cause = f"{type(error).__name__}: {error}"
                except TimeoutError:
                    cause = f"no answer within {_CONNECT_S:g} s"
                if self._renewed:
                    self._renewed = False
                    failures = 0
                    continue
                failures = 1 if time.monotonic() - began > _STEADY_S else failures + 1
                if failures > self._settings.openai_tries:
                    raise Unavailable(
                        f"the voice service was lost {failures} times in a row: {cause}", code="voice_service_lost"
                    )
                wait_s = min(_WAIT_MOST_S, _WAIT_FIRST_S * 2 ** (failures - 1)) * random.uniform(0.5, 1.0)  # noqa: S311
                log.warning("the voice service was lost", extra={"cause": cause, "again_in_s": round(wait_s, 2)})
                await asyncio.sleep(wait_s)

    async def _one_session(self, http: aiohttp.ClientSession) -> str:
        """One session to its end; why it ended."""
        settings = self._settings
        headers = {}
        if settings.openai_api_key is not None:
            headers["Authorization"] = f"Bearer {settings.openai_api_key.get_secret_value()}"
        async with asyncio.timeout(_CONNECT_S):
            socket = await http.ws_connect(
                settings.openai_url,
                params=self._where(),
                headers=headers,
                heartbeat=_PING_S,
                compress=0,
                max_msg_size=_MAX_MESSAGE,
                timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_S),
            )
        writer = renewal = None
        try:
            writer = None if self._is_greeted else self._begin(socket)
            while True:
                async with asyncio.timeout(None if writer else _CONNECT_S):
                    got = await socket.receive()
                if got.type is aiohttp.WSMsgType.TEXT:
                    event = _decoded(got.data)
                    if event is not None and event.type == "session.created":
                        if writer is None:
                            writer = self._begin(socket)
                            renewal = asyncio.create_task(self._renew(socket, self._life_s(event)))
                    elif event is not None:
                        self._take(event)
                elif got.type is not aiohttp.WSMsgType.BINARY:
                    return self._why(socket, got)
        except _Expired:
            return wire.EXPIRED
        finally:
            self._down()
            tasks = [task for task in (writer, renewal) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await socket.close()

    def _where(self) -> dict[str, str]:
        """What the service is asked for."""
        return {"model": self._settings.openai_model}

    def _life_s(self, created: ServerEvent) -> float:
        """How long a session is used: less than the service lets it live."""
        most = self._settings.openai_session_s
        expires = (created.session or {}).get("expires_at")
        if isinstance(expires, (int, float)) and expires > time.time():
            most = min(most, expires - time.time() - _BEFORE_END_S)
        return max(_LIFE_LEAST_S, most)

    async def _renew(self, socket: aiohttp.ClientWebSocketResponse, life_s: float) -> None:
        """Goes on in a new session when this one is old and nobody speaks: nothing is lost then. What the caller says
        meanwhile is kept for the new one. Where they never pause the service ends it, and that is a loss as any."""
        await asyncio.sleep(life_s)
        while True:
            async with self._floor:  # nobody answers now
                if self._listener.resting() and not self._ears.hearing:
                    log.info("the voice service's session is renewed", extra={"session": self.session})
                    self._renewed = True
                    self._down()
                    await socket.close()
                    return
            await asyncio.sleep(_QUIET_LOOK_S)

    def _begin(self, socket: aiohttp.ClientWebSocketResponse) -> asyncio.Task[None]:
        self._open()
        return asyncio.get_running_loop().create_task(self._write(socket), name="voice-service-out")

    async def _write(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            event = await self._out.get()
            try:
                await socket.send_str(msgspec.json.encode(event).decode())
            except (aiohttp.ClientError, OSError):
                return  # the reader sees the same end and says why

    def _open(self) -> None:
        """A session is there: tell it everything before anybody else may speak to it."""
        settings = self._settings
        self.session += 1
        self._out = asyncio.Queue(_OUT)
        self._send(
            wire.session_opening(
                instructions=self._instructions,
                tools=self._tools,
                voice=settings.openai_voice,
                transcriber=settings.openai_transcriber,
                hangover_ms=settings.hangover_ms,
            )
        )
        for said in self._listener.said_so_far():
            self._send(wire.message(said))
        self._ears.begin()
        self._up.set()
        log.info("voice service connected", extra={"session": self.session, "model": settings.openai_model})

    def _down(self) -> None:
        if not self._up.is_set():
            return
        self._up.clear()
        self._ears.lost()
        if self._reply is not None:
            self._reply.end(Lost())

    def _why(self, socket: aiohttp.ClientWebSocketResponse, last: aiohttp.WSMessage) -> str:
        if last.type is aiohttp.WSMsgType.ERROR:
            return f"{type(last.data).__name__}: {last.data}"
        reason = str(last.extra or "") if last.type is aiohttp.WSMsgType.CLOSE else ""
        for code in wire.FATAL_CODES:
            if code in reason:
                raise self._refusal(code, reason)
        return self._redacted(f"closed by the other side ({socket.close_code}) {reason}".strip())

    def _send(self, event: dict[str, Any]) -> str:
        event_id = f"event_{uuid.uuid4().hex}"
        try:
            self._out.put_nowait({"event_id": event_id, **event})
        except asyncio.QueueFull:
            # The other side has taken nothing for seconds; the ping will end this connection.
            log.error("an event for the voice service was dropped")
        return event_id

    def _audio_out(self, samples: Samples) -> bool:
        if self._out.qsize() > _OUT - _CONTROL:
            self.frames_dropped += 1
            return False
        self._send(wire.caller_audio(samples))
        return True

    # --- what comes ----------------------------------------------------------------------------------------------

    def _take(self, event: ServerEvent) -> None:
        reply = self._reply
        match event.type:
            case "input_audio_buffer.speech_started":
                self._ears.started(event.item_id, event.audio_start_ms)
            case "input_audio_buffer.speech_stopped":
                self._ears.stopped(event.item_id, event.audio_end_ms)
            case "conversation.item.input_audio_transcription.delta":
                self._ears.guess(event.item_id, event.delta or "")
            case "conversation.item.input_audio_transcription.completed":
                self._ears.understood(event.item_id, (event.transcript or "").strip())
                self._listener.used("transcriptions", event.usage or {})
            case "conversation.item.input_audio_transcription.failed":
                log.warning(
                    "the voice service could not transcribe", extra={"code": event.error.cause if event.error else ""}
                )
                self._ears.understood(event.item_id, "")
            case "response.created" if event.response is not None and reply is not None and not reply.id:
                reply.id = event.response.id or ""
            case "response.output_audio.delta" | "response.output_audio_transcript.delta" | "response.output_item.done":
                if reply is not None and event.response_id == reply.id and not reply.over.is_set():
                    self._part(reply, event)
            case "response.done":
                self._response_done(event)
            case "error":
                self._error(event)
            case _:
                pass  # the protocol has more than a call needs

    def _part(self, reply: Reply, event: ServerEvent) -> None:
        """A part of the response that was asked for."""
        reply.alive = time.monotonic()
        item = event.item
        if item is not None:
            if item.type == "function_call":
                call = FunctionCall(
                    name=item.name or "",
                    arguments=item.arguments or "",
                    call_id=item.call_id or "",
                    session=reply.session,
                )
                reply.put(call)
        elif event.type == "response.output_audio.delta":
            try:
                samples = wire.agent_audio(event.delta or "")
            except ValueError:
                log.warning("the voice service sent audio that is none")
                return
            if reply.sink is not None:
                reply.sink.audio(event.item_id, reply.session, samples)
        elif event.delta:
            if reply.sink is not None:
                reply.sink.words(event.item_id, reply.session, event.delta)
            reply.put(event.delta)

    def _response_done(self, event: ServerEvent) -> None:
        done, reply = event.response, self._reply
        if done is None:
            return
        if done.usage:
            self._listener.used("responses", done.usage)
        if reply is None or reply.id != done.id:
            return
        details = done.status_details
        if done.status == "failed":
            fault = (details.error if details else None) or wire.Fault()
            if fault.cause in wire.FATAL_CODES:
                raise self._refusal(fault.cause, fault.message)
            reply.end(Unavailable(f"the voice service failed: {fault.cause}", code="voice_response_failed"))
            return
        if done.status == "incomplete":
            log.warning("the voice service cut a response", extra={"cause": details.reason if details else None})
        reply.end()

    def _error(self, event: ServerEvent) -> None:
        fault = event.error or wire.Fault()
        code = fault.cause
        if code in wire.FATAL_CODES:
            raise self._refusal(code, fault.message)
        if code == wire.EXPIRED:
            raise _Expired
        if code == wire.NOT_ACTIVE:
            return  # it had ended before our cancel came
        log.warning("the voice service found fault", extra={"code": code, "fault": self._redacted(fault.message)})
        reply = self._reply
        if reply is not None and fault.event_id == reply.create_id:
            reply.end(Unavailable(f"the voice service made no response: {code}", code="voice_response_failed"))

    def _refusal(self, code: str, message: str | None) -> Refused:
        """Its words are given on, except about keys: they quote a part of it."""
        self.refused = code
        told = "" if code == "invalid_api_key" else self._redacted(message).strip()
        return Refused(f"the voice service refused ({code})" + (f": {told}" if told else ""), code=code)

    def _redacted(self, text: str | None) -> str:
        key = self._settings.openai_api_key
        return (text or "").replace(key.get_secret_value(), "…") if key is not None else text or ""


class _Expired(Exception):
    """The session's longest time is over."""


def _decoded(data: str) -> ServerEvent | None:
    try:
        return wire.server_event(data)
    except msgspec.DecodeError as error:
        log.warning("the voice service sent what is no event", extra={"error": str(error)})
        return None
