"""Real parts for the room's tests: blobs in a folder, speech models loaded once."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from switchroom.realtime.ears import SpeechParts
from switchroom.realtime.settings import MediaSettings
from switchroom.store import Blobs, Store


@pytest.fixture
def blobs(data_dir: Path) -> Blobs:
    return Blobs(data_dir / "blobs")


@pytest.fixture(scope="module")
def settings() -> MediaSettings:
    # A busy machine's lag turns nobody away here.
    return MediaSettings(media_loopback=True, drain_s=2.0, reconnect_grace_s=4.0, max_loop_lag_ms=60_000)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def parts(settings: MediaSettings, no_prompts: dict[str, Any]) -> AsyncIterator[SpeechParts]:
    """The speech models, loaded once a file: its tests share one event loop."""
    parts = await SpeechParts.load(settings.model_copy(update=no_prompts))
    yield parts
    await parts.close()


@pytest_asyncio.fixture(loop_scope="module")
async def room_store(server_url: str) -> AsyncIterator[Store]:
    """As `store`, on the file's event loop."""
    store = await Store.connect(server_url)
    await store.call("FLUSHALL")
    yield store
    await store.close()


EXAMPLES = Path(__file__).parents[2] / "examples"


def support_line(*, greeting: str | None = None) -> dict[str, Any]:
    """The example canvas; with its greeting and replies short where a test is about something else."""
    canvas: dict[str, Any] = json.loads((EXAMPLES / "support-line.json").read_text())
    if greeting is None:
        return canvas
    for node in canvas["nodes"]:
        inputs = node["data"].get("inputs") or {}
        if "agentGreeting" in inputs:
            inputs["agentGreeting"] = greeting
            for intent in inputs["agentIntents"]:
                if intent["intent"] == "INVOICE":
                    intent["reply"] = "Your order number?"
    return canvas


@pytest.fixture
def canvas() -> dict[str, Any]:
    return support_line()


@pytest.fixture
def short_canvas() -> dict[str, Any]:
    return support_line(greeting="Hello.")
