"""`openai` from PyPI against our `/v1/realtime`: a spoken conversation on real audio, in which every event of the server
passes the strict types of the package."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from .conftest import Speech
from .house import KEY, ServedHouse

pytestmark = pytest.mark.asyncio(loop_scope="module")
STRICT: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
INTERLEAVED = ("response.output_audio_transcript.delta", "response.output_audio.delta")
SPOKEN = [
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


class Sdk:
    """The vendor's client; each event must pass its strict types too, since its own parser lets anything through."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.seen: list[Any] = []

    async def until(self, kind: str) -> Any:
        async with asyncio.timeout(20):
            while True:
                event = STRICT.validate_json(await self.connection.recv_bytes())
                self.seen.append(event)
                if event.type == kind:
                    return event
                assert event.type != "error", event

    def kinds(self, since: int = 0) -> list[str]:
        """Types in order, a run of the same one once; words and sound interleaved as they like are left out."""
        kinds = [event.type for event in self.seen[since:]]
        once = [kind for at, kind in enumerate(kinds) if at == 0 or kinds[at - 1] != kind]
        return [kind for kind in once if kind not in INTERLEAVED]

    async def speak(self, pcm: bytes, *, step: int = 9_600) -> None:
        for at in range(0, len(pcm), step):
            piece = base64.b64encode(pcm[at : at + step]).decode()
            await self.connection.input_audio_buffer.append(audio=piece)


@pytest_asyncio.fixture(loop_scope="module")
async def sdk(house: ServedHouse) -> AsyncIterator[Sdk]:
    client = AsyncOpenAI(api_key=KEY, base_url=f"{house.url}/v1", max_retries=0)
    async with client.realtime.connect(model="support") as connection:
        sdk = Sdk(connection)
        await sdk.until("session.created")
        yield sdk
    await client.close()


async def test_a_spoken_conversation(sdk: Sdk, house: ServedHouse, speech: Speech) -> None:
    await sdk.connection.session.update(
        session={
            "type": "realtime",
            "audio": {
                "input": {"transcription": {"model": "whisper-1"}, "turn_detection": {"silence_duration_ms": 400}}
            },
        }
    )
    updated = (await sdk.until("session.updated")).session
    assert updated.audio.input.turn_detection.silence_duration_ms == 400
    assert updated.audio.input.turn_detection.prefix_padding_ms == 300  # what was left out stays
    assert updated.audio.output.voice == "marin" and updated.model == "support"

    await sdk.connection.response.create(response={"metadata": {"why": "greeting"}})
    began = len(sdk.seen)
    done = await sdk.until("response.done")
    assert sdk.kinds(began) == SPOKEN
    assert done.response.status == "completed" and done.response.metadata == {"why": "greeting"}
    assert done.response.output[0].content[0].transcript == "Hello, this is the support line."

    began = len(sdk.seen)
    await sdk.speak(speech("invoice"))
    words = await sdk.until("conversation.item.input_audio_transcription.completed")
    assert "invoice" in words.transcript.lower() and words.usage.seconds > 1
    assert sdk.kinds(began) == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
    ]
    began = len(sdk.seen)
    done = await sdk.until("response.done")
    assert sdk.kinds(began) == SPOKEN
    assert "order number" in done.response.output[0].content[0].transcript
    audio = b"".join(
        base64.b64decode(one.delta) for one in sdk.seen[began:] if one.type == "response.output_audio.delta"
    )
    assert np.abs(np.frombuffer(audio, dtype="<i2")).max() > 3000  # it is speech
