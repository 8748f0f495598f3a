"""Answers of text turns read aloud, as Flowise's chat widget plays them: `tts_start`, `tts_data` with MP3 in base64,
`tts_end`. The voice is that of the local engine: a program of its own, started when the first answer is read."""

from __future__ import annotations

import asyncio
import base64
import importlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from switchroom.access import Scope
from switchroom.errors import Conflict, SwitchroomError
from switchroom.gateway.operation import operation
from switchroom.gateway.public import chat_flow, take_turn
from switchroom.gateway.reply import begin_events, json_reply, read_as
from switchroom.gateway.services import services

if TYPE_CHECKING:
    from switchroom.realtime.tts import Voice

__all__ = ["SPEECH", "Speech", "read_aloud", "routes"]

log = logging.getLogger(__name__)

_RATE = 48_000
_BIT_RATE = 64_000
_LONGEST = 5_000
"""Characters of an answer that are read."""
Send = Callable[[str, Any], Awaitable[None]]


class Speech:
    """The voice of one process, made when it is first wanted."""

    def __init__(self) -> None:
        self._voice: Voice | None = None
        self._making = asyncio.Lock()

    async def ready(self) -> None:
        """Raises `Unavailable` where no voice is installed."""
        await self._warm()

    async def read(self, text: str) -> AsyncGenerator[bytes, None]:
        """The text as MP3, clause by clause. Raises `Unavailable` where no voice is installed, `TimedOut`."""
        voice = await self._warm()
        clauses = await asyncio.to_thread(_clauses, text[:_LONGEST])
        encoder = await asyncio.to_thread(_Mp3)
        for clause in clauses:
            samples = await voice.say(clause)
            if piece := await asyncio.to_thread(encoder.encode, samples):
                yield piece
        if piece := await asyncio.to_thread(encoder.end):
            yield piece

    async def close(self) -> None:
        if self._voice is not None:
            await self._voice.close()

    async def _warm(self) -> Voice:
        async with self._making:
            if self._voice is None:
                # What plays and encodes sound is loaded only where an answer is read.
                tts = await asyncio.to_thread(importlib.import_module, "switchroom.realtime.tts")
                self._voice = await tts.load_voice()
        assert self._voice is not None
        return self._voice


class _Mp3:
    """One stream of MP3, mono."""

    def __init__(self) -> None:
        import av

        self._av = av
        self._codec: Any = av.CodecContext.create("libmp3lame", "w")
        self._codec.sample_rate, self._codec.bit_rate = _RATE, _BIT_RATE
        self._codec.layout, self._codec.format = "mono", "s16p"
        self._at = 0

    def encode(self, samples: Any) -> bytes:
        """Of 48 kHz mono samples, 16 bits."""
        if not len(samples):
            return b""
        frame = self._av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16p", layout="mono")
        frame.sample_rate, frame.pts = _RATE, self._at
        self._at += len(samples)
        return b"".join(bytes(packet) for packet in self._codec.encode(frame))

    def end(self) -> bytes:
        return b"".join(bytes(packet) for packet in self._codec.encode(None)) if self._at else b""


SPEECH = web.AppKey("speech", Speech)


def _clauses(text: str) -> list[str]:
    from switchroom.realtime.clauses import ClauseSplitter

    splitter = ClauseSplitter()
    return [clause for clause in (*splitter.feed(text), splitter.flush()) if clause]


async def read_aloud(speech: Speech, text: str, message_id: str, send: Send) -> None:
    """Sends the sound of a message. A voice that fails ends it with `tts_abort`: the words are there in any case."""
    begun = False
    try:
        async with aclosing(speech.read(text)) as pieces:
            async for piece in pieces:
                if not begun:
                    begun = True
                    await send("tts_start", {"chatMessageId": message_id, "format": "mp3"})
                chunk = base64.b64encode(piece).decode()
                await send("tts_data", {"chatMessageId": message_id, "audioChunk": chunk})
    except SwitchroomError as error:
        log.warning("an answer could not be read aloud", extra={"cause": error.detail})
        if begun:
            await send("tts_abort", {"chatMessageId": message_id})
        return
    if begun:
        await send("tts_end", {"chatMessageId": message_id})


class SpeechBody(msgspec.Struct, rename="camel", kw_only=True):
    """`text` is what is read, to its first 5,000 characters; `chatId` and `chatMessageId` come back in the events."""

    chatflow_id: str
    text: str
    chat_id: str = ""
    chat_message_id: str = ""


class SpeechPlace(msgspec.Struct, rename="camel", kw_only=True):
    chatflow_id: str
    chat_id: str = ""
    chat_message_id: str = ""


class Stopped(msgspec.Struct):
    message: str


def routes() -> list[web.RouteDef]:
    base = "/api/v1/text-to-speech"
    return [web.post(base + "/generate", generate), web.post(base + "/abort", abort)]


@operation(
    Scope.RUN,
    "Read a message aloud: server-sent events `tts_start`, `tts_data` (MP3 in base64), `tts_end`",
    tag="chat clients",
    body=SpeechBody,
    replies={200: "text/event-stream"},
    errors=(400, 404, 409, 413, 429, 503),
    public_flows=True,
)
async def generate(request: web.Request) -> web.StreamResponse:
    body = await read_as(request, SpeechBody, services(request).max_body_bytes)
    flow = await chat_flow(request, body.chatflow_id)
    if flow.settings.chat.speech == "off":
        raise Conflict("This flow's answers are not read aloud: its setting `chat.speech` is off.", code="speech_off")
    await take_turn(request, flow)
    speech = request.app[SPEECH]
    await speech.ready()
    reply = await begin_events(request)

    async def send(event: str, data: Any) -> None:
        frame = msgspec.json.encode({"event": event, "data": data})
        await reply.write(f"event: {event}\ndata: ".encode() + frame + b"\n\n")

    await read_aloud(speech, body.text, body.chat_message_id, send)
    await reply.write_eof()
    return reply


@operation(
    Scope.RUN,
    "What the chat widget says before it closes such a stream, whose end is all that it takes",
    tag="chat clients",
    body=SpeechPlace,
    replies={200: Stopped},
    errors=(400, 404, 413),
    public_flows=True,
)
async def abort(request: web.Request) -> web.Response:
    body = await read_as(request, SpeechPlace, services(request).max_body_bytes)
    await chat_flow(request, body.chatflow_id)
    return json_reply(Stopped("A closed stream is read no further."))
