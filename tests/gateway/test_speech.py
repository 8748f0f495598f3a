"""Answers read aloud, as the chat widget plays them: by the real voice, decoded by FFmpeg."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from typing import Any

import av
import numpy as np
import pytest
from aiohttp.test_utils import TestClient

from switchroom.realtime import models


def told(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line.partition("data:")[2]) for line in body.decode().splitlines() if line.startswith("data:")]


def sound(events: list[dict[str, Any]]) -> tuple[float, int]:
    """Seconds and the loudest sample of the MP3 in the `tts_data`."""
    mp3 = b"".join(base64.b64decode(one["data"]["audioChunk"]) for one in events if one["event"] == "tts_data")
    with av.open(io.BytesIO(mp3), format="mp3") as container:
        samples = np.concatenate([frame.to_ndarray().ravel() for frame in container.decode(audio=0)])
    loudest = np.abs(samples).max()
    return len(samples) / 48_000, int(loudest if loudest > 1 else loudest * 32_767)


async def speaking(client: TestClient, canvas: dict[str, Any], speech: str) -> None:
    body = {"id": "reads", "flowData": canvas, "settings": {"chat": {"speech": speech}}}
    assert (await client.post("/api/v1/chatflows", json=body)).status == 200


async def test_an_answer_brings_its_sound(client: TestClient, echo_canvas: dict[str, Any]) -> None:
    if not await asyncio.to_thread(models.piper_available):
        pytest.skip("no voice is installed")
    await speaking(client, echo_canvas, "always")
    assert (await (await client.get("/api/v1/public-chatbotConfig/reads")).json())["isTTSEnabled"] is True
    answer = await client.post("/api/v1/prediction/reads", json={"question": "hello there", "streaming": True})
    events = told(await answer.read())
    names = list(dict.fromkeys(one["event"] for one in events))
    assert names[-5:] == ["metadata", "tts_start", "tts_data", "tts_end", "end"]
    by_name = {one["event"]: one["data"] for one in events}
    assert by_name["tts_start"] == {"chatMessageId": by_name["metadata"]["chatMessageId"], "format": "mp3"}
    seconds, loudest = sound(events)
    assert 0.5 < seconds < 6 and loudest > 3_000

    # The widget's button.
    body = {"chatflowId": "reads", "chatId": "c", "chatMessageId": "m-1", "text": "One **moment**, please."}
    answer = await client.post("/api/v1/text-to-speech/generate", json=body)
    text = await answer.read()
    assert text.startswith(b"event: tts_start\ndata: {")
    assert sound(told(text))[1] > 3_000 and told(text)[-1] == {"event": "tts_end", "data": {"chatMessageId": "m-1"}}
    assert (await client.post("/api/v1/text-to-speech/abort", json={**body, "text": ""})).status == 200


async def test_without_a_voice_the_words_are_there(
    client: TestClient, echo_canvas: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "piper_available", lambda: False)
    monkeypatch.setattr(models, "flite_program", lambda: None)
    await speaking(client, echo_canvas, "always")
    answer = await client.post("/api/v1/prediction/reads", json={"question": "hello", "streaming": True})
    names = [one["event"] for one in told(await answer.read())]
    assert names[-2:] == ["metadata", "end"] and not any(name.startswith("tts") for name in names)
    body = {"chatflowId": "reads", "text": "Hello."}
    answer = await client.post("/api/v1/text-to-speech/generate", json=body)
    assert (answer.status, "no voice is installed" in (await answer.json())["detail"]) == (503, True)
    await speaking(client, echo_canvas, "off")
    answer = await client.post("/api/v1/text-to-speech/generate", json=body)
    assert (answer.status, (await answer.json())["code"]) == (409, "speech_off")
    answer = await client.post("/api/v1/text-to-speech/generate", json={"text": "x"})
    assert (answer.status, (await answer.json())["errors"]) == (
        400,
        [{"detail": "is required", "pointer": "/chatflowId"}],
    )
