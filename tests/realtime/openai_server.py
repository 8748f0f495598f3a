"""A scripted server of the GA Realtime protocol, for the one part that cannot be had here: the paid service.

It speaks the documented events in the documented order, with ids, real speech as audio, and errors for what a client
does wrong; what it hears and answers comes from a script. Both directions are validated by the types of the vendor's
own package: `faults` holds whatever does not fit, and `refusals` each error that it had to answer with.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from aiohttp import WSMsgType, web
from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent
from pydantic import BaseModel, TypeAdapter, ValidationError

from switchroom.realtime.audio import read_wav, resample

RATE = 24_000
CHARS_A_SECOND = 25
KEY = "sk-test-0123456789abcdef"
VERBATIM = "Say exactly the following text"
_CLIENT: TypeAdapter[Any] = TypeAdapter(RealtimeClientEvent)
_SERVER: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
_VOICE_DBFS = -45.0
_ONSET_MS = 60
_DELTA_MS = 200
_ADDED_BY_SERVER = {".session.id", ".session.object"}
"""The service sends them, though the types of its package do not have them."""


@dataclass
class Says:
    """What the model does when it is asked: speaks `text`, calls functions, or both."""

    text: str = ""
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    fails: str = ""
    hangs: bool = False


@dataclass
class Script:
    """`hears`: the words of each utterance of the caller, in order. `says`: the model's answers, in order; texts that
    it is told to say word for word it says. `drop`: break the connection in the n-th spoken response (from 0), after so
    many ms of it were sent. `refuse`: HTTP status for the first n connections; `error`: an error event at the opening.
    """

    hears: list[str] = field(default_factory=list)
    says: list[Says] = field(default_factory=list)
    drop: dict[int, int] = field(default_factory=dict)
    refuse: list[int] = field(default_factory=list)
    error: str = ""
    speed: float = 5.0
    """Audio is sent so many times faster than it sounds."""


class RealtimeServer:
    """Serves `ws://…/v1/realtime`. `sessions` are in the order in which they came."""

    def __init__(self, script: Script, voice: Path) -> None:
        self.script = script
        self.sessions: list[Session] = []
        self.faults: list[str] = []
        self.refusals: list[str] = []
        self.spoken = itertools.count()
        self._voice_file = voice
        self._voice = np.zeros(0, dtype=np.int16)
        self._hears = iter(script.hears)
        self._says = iter(script.says)
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/realtime"

    async def start(self) -> None:
        samples, rate = await asyncio.to_thread(read_wav, self._voice_file)
        self._voice = await asyncio.to_thread(resample, samples, rate, RATE)
        app = web.Application()
        app.router.add_get("/v1/realtime", self._connect)
        self._runner = web.AppRunner(app, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        for session in self.sessions:
            session.drop()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        if self.script.refuse:
            return web.Response(status=self.script.refuse.pop(0))
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return web.Response(status=401)
        if not request.query.get("model"):
            return web.Response(status=400)
        socket = web.WebSocketResponse(max_msg_size=16 << 20)
        await socket.prepare(request)
        session = Session(self, socket, request.query["model"])
        self.sessions.append(session)
        await session.run()
        return socket

    def speech(self, text: str) -> Any:
        """Real speech that lasts as long as the text takes somebody who speaks fast."""
        need = max(1, len(text)) * RATE // CHARS_A_SECOND
        return np.resize(self._voice, need)

    def next_words(self) -> str:
        return next(self._hears, "")

    def next_answer(self) -> Says:
        return next(self._says, Says(text="I have nothing more to say."))

    def check(self, adapter: TypeAdapter[Any], raw: bytes | str, who: str) -> None:
        try:
            event = adapter.validate_json(raw)
        except ValidationError as error:
            self.faults.append(f"{who}: {error}")
            return
        unknown = set(_unknown(event, "")) - _ADDED_BY_SERVER
        self.faults += [f"{who} {event.type}: unknown member {name}" for name in sorted(unknown)]


def _unknown(model: BaseModel, at: str) -> Iterator[str]:
    """Members that the vendor's types do not know, which they accept silently."""
    for name in model.model_extra or {}:
        yield f"{at}.{name}"
    for name in type(model).model_fields:
        value = getattr(model, name)
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, BaseModel):
                yield from _unknown(one, f"{at}.{name}")


class Session:
    """One connection."""

    def __init__(self, server: RealtimeServer, socket: web.WebSocketResponse, model: str) -> None:
        self.server = server
        self.model = model
        self.received: list[dict[str, Any]] = []
        """What the client sent, its audio left out."""
        self.sent: list[dict[str, Any]] = []
        """What was sent, audio left out."""
        self.items: dict[str, dict[str, Any]] = {}
        self.heard_samples = 0
        self.config: dict[str, Any] = {
            "type": "realtime",
            "object": "realtime.session",
            "model": model,
            "output_modalities": ["audio"],
            "audio": {
                "input": {
                    "turn_detection": {"type": "server_vad", "silence_duration_ms": 500, "prefix_padding_ms": 300}
                },
                "output": {"voice": "marin"},
            },
        }
        self._socket = socket
        self._ids = itertools.count(1)
        self._active: asyncio.Task[None] | None = None
        self._active_id = ""
        self._cancelled = ""
        self._loud_ms = self._quiet_ms = 0.0
        self._speech_item = ""
        self._tasks: set[asyncio.Task[None]] = set()

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.received if event["type"] == kind]

    def drop(self) -> None:
        """The connection breaks: no close frame, no word."""
        transport = self._socket._req.transport if self._socket._req is not None else None
        if transport is not None:
            transport.abort()

    def _id(self, kind: str) -> str:
        return f"{kind}_{len(self.server.sessions)}x{next(self._ids):05d}"

    async def _send(self, kind: str, **members: Any) -> None:
        event = {"event_id": self._id("event"), "type": kind, **members}
        raw = msgspec.json.encode(event)
        self.server.check(_SERVER, raw, "server")
        if kind == "error":
            self.server.refusals.append(f"{members['error'].get('code')}: {members['error']['message']}")
        if kind != "response.output_audio.delta":
            self.sent.append(event)
        if not self._socket.closed:
            await self._socket.send_str(raw.decode())

    async def _error(self, cause: dict[str, Any], code: str, message: str) -> None:
        error = {"type": "invalid_request_error", "code": code, "message": message, "event_id": cause.get("event_id")}
        await self._send("error", error=error)

    async def run(self) -> None:
        await self._send("session.created", session={**self.config, "id": self._id("sess")})
        if self.server.script.error:
            code = self.server.script.error
            await self._send("error", error={"type": "error", "code": code, "message": f"scripted: {code} {KEY}"})
        try:
            async for message in self._socket:
                if message.type is WSMsgType.TEXT:
                    await self._take(message.data)
        except ConnectionError:
            pass
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, raw: str) -> None:
        self.server.check(_CLIENT, raw, "client")
        event = msgspec.json.decode(raw)
        if event["type"] == "input_audio_buffer.append":
            await self._listen(base64.b64decode(event["audio"]))
            return
        self.received.append(event)
        match event["type"]:
            case "session.update":
                _merge(self.config, event["session"])
                await self._send("session.updated", session=copy.deepcopy(self.config))
            case "conversation.item.create":
                await self._create(event)
            case "conversation.item.truncate":
                await self._truncate(event)
            case "conversation.item.delete":
                if self.items.pop(event["item_id"], None) is None:
                    await self._error(event, "item_delete_invalid_item_id", f"no item {event['item_id']}")
                else:
                    await self._send("conversation.item.deleted", item_id=event["item_id"])
            case "response.create":
                if self._active is not None and not self._active.done():
                    await self._error(event, "conversation_already_has_active_response", "a response is active")
                else:
                    self._respond(event.get("response") or {})
            case "response.cancel":
                if self._active is None or self._active.done():
                    await self._error(event, "response_cancel_not_active", "no response is active")
                else:
                    self._cancelled = "client_cancelled"
            case kind:
                await self._error(event, "unknown_event", f"the script has no {kind}")

    # --- the caller ----------------------------------------------------------------------------------------------

    async def _listen(self, data: bytes) -> None:
        samples = np.frombuffer(data, dtype="<i2").astype(np.float64)
        self.heard_samples += samples.size
        piece_ms = samples.size * 1000 / RATE
        now_ms = self.heard_samples * 1000 // RATE
        level = 20 * np.log10(np.sqrt(np.mean(samples**2)) / 32768 + 1e-9)
        if level > _VOICE_DBFS:
            self._loud_ms, self._quiet_ms = self._loud_ms + piece_ms, 0.0
        else:
            self._quiet_ms += piece_ms
            if not self._speech_item:
                self._loud_ms = 0.0
        vad = self.config["audio"]["input"]["turn_detection"]
        if not self._speech_item and self._loud_ms >= _ONSET_MS:
            self._speech_item = self._id("item")
            start = max(0, int(now_ms - self._loud_ms) - vad["prefix_padding_ms"])
            await self._send("input_audio_buffer.speech_started", item_id=self._speech_item, audio_start_ms=start)
            if vad.get("interrupt_response", True) and self._active is not None:
                self._cancelled = "turn_detected"
        elif self._speech_item and self._quiet_ms >= vad["silence_duration_ms"]:
            item_id, self._speech_item, self._loud_ms = self._speech_item, "", 0.0
            await self._send("input_audio_buffer.speech_stopped", item_id=item_id, audio_end_ms=now_ms)
            await self._commit(item_id, create=vad.get("create_response", True))

    async def _commit(self, item_id: str, *, create: bool) -> None:
        words = self.server.next_words()
        previous = self._last_item()
        await self._send("input_audio_buffer.committed", item_id=item_id, previous_item_id=previous)
        part = {"type": "input_audio", "transcript": None}
        await self._add({"id": item_id, "type": "message", "role": "user", "content": [part]}, previous)
        kind = "conversation.item.input_audio_transcription"
        await asyncio.sleep(0.05)
        for word in words.split():
            await self._send(f"{kind}.delta", item_id=item_id, content_index=0, delta=f"{word} ")
        usage = {"type": "duration", "seconds": 2.0}
        await self._send(f"{kind}.completed", item_id=item_id, content_index=0, transcript=words, usage=usage)
        if create:
            self._respond({})

    # --- items ---------------------------------------------------------------------------------------------------

    def _last_item(self) -> str | None:
        return next(reversed(self.items), None)

    async def _add(self, item: dict[str, Any], previous: str | None, *, done: bool = True) -> None:
        item = {"object": "realtime.item", "status": "completed" if done else "in_progress", **item}
        self.items[item["id"]] = item
        await self._send("conversation.item.added", previous_item_id=previous, item=item)
        if done:
            await self._send("conversation.item.done", previous_item_id=previous, item=item)

    async def _create(self, event: dict[str, Any]) -> None:
        item = {"id": self._id("item"), **event["item"]}
        if item["id"] in self.items:
            await self._error(event, "item_create_duplicate_item_id", f"there is an item {item['id']}")
            return
        if item["type"] == "function_call_output":
            calls = [one.get("call_id") for one in self.items.values() if one["type"] == "function_call"]
            if item["call_id"] not in calls:
                await self._error(event, "invalid_tool_call_id", f"no call {item['call_id']}")
                return
        await self._add(item, self._last_item())

    async def _truncate(self, event: dict[str, Any]) -> None:
        item = self.items.get(event["item_id"])
        if item is None or item.get("role") != "assistant" or "ms" not in item:
            await self._error(event, "item_truncate_invalid_item_id", f"no audio item {event['item_id']}")
            return
        if event["audio_end_ms"] > item["ms"]:
            await self._error(
                event, "invalid_value", f"audio content of {item['ms']} ms is shorter than {event['audio_end_ms']} ms"
            )
            return
        item["ms"], item["content"] = event["audio_end_ms"], [{"type": "output_audio", "transcript": ""}]
        members = {name: event[name] for name in ("item_id", "content_index", "audio_end_ms")}
        await self._send("conversation.item.truncated", **members)

    # --- responses -----------------------------------------------------------------------------------------------

    def _respond(self, wanted: dict[str, Any]) -> None:
        self._cancelled = ""
        task = asyncio.create_task(self._response(wanted))
        self._active = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _response(self, wanted: dict[str, Any]) -> None:
        aside = wanted.get("conversation") == "none"
        told = wanted.get("instructions", "")
        verbatim = told.startswith(VERBATIM)
        answer = Says(text=told.split("\n\n", 1)[1]) if verbatim else self.server.next_answer()
        response: dict[str, Any] = {
            "object": "realtime.response",
            "id": self._id("resp"),
            "status": "in_progress",
            "output": [],
            "conversation_id": None if aside else "conv_1",
            "output_modalities": wanted.get("output_modalities", ["audio"]),
            "metadata": wanted.get("metadata"),
            "usage": None,
        }
        await self._send("response.created", response=copy.deepcopy(response))
        await self._send(
            "rate_limits.updated",
            rate_limits=[{"name": "tokens", "limit": 40_000, "remaining": 39_000, "reset_seconds": 1.5}],
        )
        output: list[dict[str, Any]] = []
        while answer.hangs and not self._cancelled:
            await asyncio.sleep(0.02)
        if answer.text and not answer.fails:
            output.append(await self._speak(response["id"], answer.text, aside=aside))
        for name, arguments in answer.calls:
            if not self._cancelled:
                output.append(await self._call(response["id"], len(output), name, arguments, aside=aside))
        status: dict[str, Any] = {"status": "completed"}
        if answer.fails:
            error = {"type": "server_error", "code": answer.fails}
            status = {"status": "failed", "status_details": {"type": "failed", "error": error}}
        elif self._cancelled:
            details = {"type": "cancelled", "reason": self._cancelled}
            status = {"status": "cancelled", "status_details": details}
        usage = {
            "total_tokens": 130,
            "input_tokens": 100,
            "output_tokens": 30,
            "input_token_details": {"text_tokens": 60, "audio_tokens": 40, "cached_tokens": 0},
            "output_token_details": {"text_tokens": 10, "audio_tokens": 20},
        }
        # The next response may be asked for as soon as this event is there.
        self._active = None
        await self._send("response.done", response={**response, **status, "output": output, "usage": usage})

    async def _speak(self, response_id: str, text: str, *, aside: bool) -> dict[str, Any]:
        turn = next(self.server.spoken)
        drop_ms = self.server.script.drop.pop(turn, None)
        item: dict[str, Any] = {"id": self._id("item"), "type": "message", "role": "assistant", "content": []}
        common: dict[str, Any] = {"response_id": response_id, "output_index": 0}
        part = {**common, "item_id": item["id"], "content_index": 0}
        previous = self._last_item()
        opened = {"object": "realtime.item", "status": "in_progress", **item}
        await self._send("response.output_item.added", **common, item=opened)
        if not aside:
            await self._add(item, previous, done=False)
        await self._send("response.content_part.added", **part, part={"type": "audio", "transcript": ""})
        speech = self.server.speech(text)
        step = RATE * _DELTA_MS // 1000
        pieces = [speech[at : at + step] for at in range(0, speech.size, step)]
        words = text.split(" ")
        given = 0
        sent_ms = 0
        for number, piece in enumerate(pieces, 1):
            if self._cancelled:
                break
            upto = -(-len(words) * number // len(pieces))
            if upto > given:
                delta = " ".join(words[given:upto]) + (" " if upto < len(words) else "")
                await self._send("response.output_audio_transcript.delta", **part, delta=delta)
                given = upto
            data = base64.b64encode(piece.astype("<i2").tobytes()).decode()
            await self._send("response.output_audio.delta", **part, delta=data)
            sent_ms += piece.size * 1000 // RATE
            self.items.get(item["id"], {})["ms"] = sent_ms
            if drop_ms is not None and sent_ms >= drop_ms:
                self.drop()
                await asyncio.sleep(60)
            await asyncio.sleep(piece.size / RATE / self.server.script.speed)
        transcript = " ".join(words[:given])
        await self._send("response.output_audio.done", **part)
        await self._send("response.output_audio_transcript.done", **part, transcript=transcript)
        await self._send("response.content_part.done", **part, part={"type": "audio", "transcript": transcript})
        done = {
            **opened,
            "status": "incomplete" if self._cancelled else "completed",
            "content": [{"type": "output_audio", "transcript": transcript}],
        }
        if not aside:
            self.items.get(item["id"], {}).update(done)
            await self._send("conversation.item.done", previous_item_id=previous, item=done)
        await self._send("response.output_item.done", **common, item=done)
        return done

    async def _call(
        self, response_id: str, index: int, name: str, arguments: dict[str, Any], *, aside: bool
    ) -> dict[str, Any]:
        item: dict[str, Any] = {
            "id": self._id("item"),
            "type": "function_call",
            "name": name,
            "call_id": self._id("call"),
            "arguments": "",
        }
        common: dict[str, Any] = {"response_id": response_id, "output_index": index}
        part = {**common, "item_id": item["id"], "call_id": item["call_id"]}
        previous = self._last_item()
        opened = {"object": "realtime.item", "status": "in_progress", **item}
        await self._send("response.output_item.added", **common, item=opened)
        if not aside:
            await self._add(item, previous, done=False)
        text = msgspec.json.encode(arguments).decode()
        await self._send("response.function_call_arguments.delta", **part, delta=text)
        await self._send("response.function_call_arguments.done", **part, name=name, arguments=text)
        done = {**opened, "status": "completed", "arguments": text}
        if not aside:
            self.items[item["id"]].update(done)
            await self._send("conversation.item.done", previous_item_id=previous, item=done)
        await self._send("response.output_item.done", **common, item=done)
        return done


def _merge(into: dict[str, Any], given: dict[str, Any]) -> None:
    """As the service does: what is given replaces, level by level; what is left out stays."""
    for key, value in given.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
