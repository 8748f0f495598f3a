"""A whole server for calls: the API as it is composed, a media process, speech models loaded once a file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest_asyncio
from pydantic import SecretStr

from switchroom.app_api import run_api
from switchroom.engine import FlowStore
from switchroom.queue import Feed, Queue
from switchroom.realtime import MediaSettings
from switchroom.realtime.ears import SpeechParts
from switchroom.realtime.worker import MediaWorker
from switchroom.records import Executions
from switchroom.settings import Settings
from switchroom.store import Blobs, Store

EXAMPLES = Path(__file__).parents[2] / "examples"
FLOW = "support"
PAGE = "https://shop.example"
"""A page whose scripts may call."""
TOKEN = "the-auth-token-of-the-account"
KEY = "a-key-of-the-settings"


class House(NamedTuple):
    """What a test works with. Calls are made at `url`."""

    url: str
    queue: Queue
    executions: Executions


def support_line() -> dict[str, Any]:
    """The example canvas with a short greeting and short last words."""
    canvas: dict[str, Any] = json.loads((EXAMPLES / "support-line.json").read_text())
    for node in canvas["nodes"]:
        inputs = node["data"].get("inputs") or {}
        if "agentGreeting" in inputs:
            inputs["agentGreeting"] = "Hello."
        if "operator" in (inputs.get("directReplyMessage") or ""):
            inputs["directReplyMessage"] = "One moment, please."
    return canvas


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def speech(no_prompts: dict[str, Any]) -> AsyncIterator[SpeechParts]:
    parts = await SpeechParts.load(MediaSettings().model_copy(update=no_prompts))
    yield parts
    await parts.close()


@pytest_asyncio.fixture(loop_scope="module")
async def house(server_url: str, speech: SpeechParts, data_dir: Path) -> AsyncIterator[House]:
    store = await Store.connect(server_url)
    await store.call("FLUSHALL")
    await FlowStore(store).save(support_line(), flow_id=FLOW, settings={"chat": {"allowedOrigins": [PAGE]}})
    settings = Settings(
        data=data_dir,
        port=0,
        api_keys=(SecretStr(KEY),),
        twilio_auth_token=SecretStr(TOKEN),
        media=MediaSettings(media_loopback=True, drain_s=1.0),
    )
    stop, ready = asyncio.Event(), asyncio.Event()
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    blobs, feed = await asyncio.to_thread(Blobs, data_dir / "recordings"), Feed(store)
    worker = MediaWorker(store, blobs=blobs, settings=settings.media, parts=speech, feed=feed)
    roles = [
        asyncio.create_task(run_api(settings, store, stop, url.set_result)),
        asyncio.create_task(worker.run(stop, ready.set)),
    ]
    await ready.wait()
    yield House(await url, Queue(store), Executions(store, blobs))
    stop.set()
    await asyncio.gather(*roles)
    await feed.close()
    await store.close()
