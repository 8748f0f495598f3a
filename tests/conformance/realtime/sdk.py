"""The vendor's client `openai`, reading strictly."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

STRICT: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
INTERLEAVED = ("response.output_audio_transcript.delta", "response.output_audio.delta")


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

    async def drain(self) -> None:
        """Read on, or the client's own buffer would stand in the way of its close."""
        while True:
            await self.connection.recv_bytes()

    async def error(self) -> Any:
        """The next error."""
        async with asyncio.timeout(20):
            while True:
                event = STRICT.validate_json(await self.connection.recv_bytes())
                self.seen.append(event)
                if event.type == "error":
                    return event.error

    def kinds(self, since: int = 0) -> list[str]:
        """Types in order, a run of the same one once; words and sound interleaved as they like are left out."""
        kinds = [event.type for event in self.seen[since:]]
        once = [kind for at, kind in enumerate(kinds) if at == 0 or kinds[at - 1] != kind]
        return [kind for kind in once if kind not in (*INTERLEAVED, "rate_limits.updated")]

    def sound(self, since: int = 0) -> bytes:
        deltas = (event.delta for event in self.seen[since:] if event.type == "response.output_audio.delta")
        return b"".join(base64.b64decode(delta) for delta in deltas)

    def seconds(self, since: int) -> float:
        return len(self.sound(since)) / 2 / 24_000

    async def speak(self, pcm: bytes, *, step: int = 9_600) -> None:
        for at in range(0, len(pcm), step):
            piece = base64.b64encode(pcm[at : at + step]).decode()
            await self.connection.input_audio_buffer.append(audio=piece)
