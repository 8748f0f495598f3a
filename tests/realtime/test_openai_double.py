"""The scripted server is what it says it is: the vendor's own client holds a conversation with it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai import AsyncOpenAI
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from switchroom.realtime.audio import read_wav, resample

from .openai_server import KEY, RATE, RealtimeServer, Says, Script

EXAMPLES = Path(__file__).parents[2] / "examples"
VOICE = EXAMPLES / "caller-3-operator.wav"
STRICT: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)


@pytest.fixture
async def server() -> AsyncIterator[RealtimeServer]:
    script = Script(
        hears=["I have a question about my invoice."],
        says=[Says(calls=[("INVOICE", {})]), Says(text="Please tell me your order number.")],
        speed=20,
    )
    server = RealtimeServer(script, VOICE)
    await server.start()
    yield server
    await server.stop()


class Sdk:
    """The vendor's client; each event must pass its strict types too, since its own parser lets anything through."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.seen: list[Any] = []

    async def until(self, kind: str) -> Any:
        while True:
            event = STRICT.validate_json(await self.connection.recv_bytes())
            self.seen.append(event)
            if event.type == kind:
                return event

    def kinds(self, since: int = 0) -> list[str]:
        """Types in order, a run of the same one once."""
        kinds = [event.type for event in self.seen[since:] if event.type != "rate_limits.updated"]
        return [kind for at, kind in enumerate(kinds) if at == 0 or kinds[at - 1] != kind]


async def test_the_vendors_client_holds_a_conversation(server: RealtimeServer) -> None:
    client = AsyncOpenAI(api_key=KEY, base_url=f"http://127.0.0.1:{server.port}/v1", max_retries=0)
    async with client.realtime.connect(model="gpt-realtime-2.1") as connection:
        sdk = Sdk(connection)
        created = await sdk.until("session.created")
        assert created.session.model == "gpt-realtime-2.1"
        await connection.session.update(
            session={
                "type": "realtime",
                "instructions": "You answer the phone.",
                "tools": [{"type": "function", "name": "INVOICE", "parameters": {"type": "object", "properties": {}}}],
                "audio": {
                    "input": {
                        "turn_detection": {
                            "type": "server_vad",
                            "silence_duration_ms": 400,
                            "create_response": False,
                            "interrupt_response": False,
                        }
                    }
                },
            }
        )
        updated = await sdk.until("session.updated")
        assert updated.session.instructions == "You answer the phone."
        assert updated.session.audio.input.turn_detection.silence_duration_ms == 400
        assert updated.session.audio.input.turn_detection.prefix_padding_ms == 300  # what was left out stays

        samples, rate = await asyncio.to_thread(read_wav, EXAMPLES / "caller-1-invoice.wav")
        speech = np.concatenate(
            (await asyncio.to_thread(resample, samples, rate, RATE), np.zeros(RATE, dtype=np.int16))
        )
        began = len(sdk.seen)
        for at in range(0, speech.size, 480):
            piece = base64.b64encode(speech[at : at + 480].astype("<i2").tobytes()).decode()
            await connection.input_audio_buffer.append(audio=piece)
        words = await sdk.until("conversation.item.input_audio_transcription.completed")
        assert words.transcript == "I have a question about my invoice."
        assert sdk.kinds(began) == [
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done",
            "conversation.item.input_audio_transcription.delta",
            "conversation.item.input_audio_transcription.completed",
        ]

        await connection.response.create()
        called = await sdk.until("response.function_call_arguments.done")
        assert called.name == "INVOICE"
        await sdk.until("response.done")
        output = {"type": "function_call_output", "call_id": called.call_id, "output": "{}"}
        await connection.conversation.item.create(item=output)
        await sdk.until("conversation.item.done")
        began = len(sdk.seen)
        await connection.response.create(response={"tool_choice": "none"})
        done = await sdk.until("response.done")
        assert done.response.status == "completed" and done.response.usage.total_tokens == 130
        assert [kind for kind in sdk.kinds(began) if kind not in _INTERLEAVED] == _ANSWER
        text = "".join(one.delta for one in sdk.seen if one.type == "response.output_audio_transcript.delta")
        assert text == "Please tell me your order number."
        audio = b"".join(base64.b64decode(one.delta) for one in sdk.seen if one.type == "response.output_audio.delta")
        assert np.abs(np.frombuffer(audio, dtype="<i2")).max() > 3000  # it is speech

        spoken = done.response.output[0].id
        await connection.conversation.item.truncate(item_id=spoken, content_index=0, audio_end_ms=500)
        assert (await sdk.until("conversation.item.truncated")).audio_end_ms == 500
        await connection.conversation.item.truncate(item_id=spoken, content_index=0, audio_end_ms=60_000)
        assert "shorter" in (await sdk.until("error")).error.message
        await connection.conversation.item.delete(item_id=spoken)
        await sdk.until("conversation.item.deleted")
        await connection.response.cancel()
        assert (await sdk.until("error")).error.code == "response_cancel_not_active"
    await client.close()
    assert server.faults == []


_INTERLEAVED = ("response.output_audio_transcript.delta", "response.output_audio.delta")
_ANSWER = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
]


async def test_a_response_that_the_client_cancels(server: RealtimeServer) -> None:
    server.script.speed = 1
    client = AsyncOpenAI(api_key=KEY, base_url=f"http://127.0.0.1:{server.port}/v1", max_retries=0)
    async with client.realtime.connect(model="gpt-realtime-2.1") as connection:
        sdk = Sdk(connection)
        text = "Say exactly the following text, word for word.\n\nOne two three four five six seven eight nine ten."
        await connection.response.create(response={"instructions": text})
        await sdk.until("response.output_audio.delta")
        await connection.response.cancel()
        done = await sdk.until("response.done")
        assert done.response.status == "cancelled"
        assert done.response.status_details.reason == "client_cancelled"
        assert [kind for kind in sdk.kinds(1) if kind not in _INTERLEAVED] == _ANSWER
    await client.close()
    assert server.faults == [] and server.refusals == []
