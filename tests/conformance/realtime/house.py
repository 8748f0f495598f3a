"""The Realtime API as it is served: the gateway, a media process with the real speech models, a store, on a port."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web
from pydantic import SecretStr

from switchroom.access import Access
from switchroom.engine import Engine, FlowStore
from switchroom.gateway.app import build_gateway
from switchroom.gateway.enqueue import rules_of
from switchroom.gateway.services import Services
from switchroom.knowledge import Knowledge
from switchroom.net import Guard, GuardedClient
from switchroom.queue import Feed, Queue
from switchroom.realtime.ears import SpeechParts
from switchroom.realtime.settings import MediaSettings
from switchroom.realtime.signalling import SignalClient
from switchroom.realtime.worker import MediaWorker
from switchroom.records import ExecutionFilter, Executions
from switchroom.records.audio_files import AudioFiles
from switchroom.records.model import Execution
from switchroom.store import Blobs, Store
from switchroom.webhooks import Webhooks

KEY = "a-key-of-sixteen-characters"


class ServedHouse:
    """`url` is `http://…`, without a path."""

    def __init__(self, store: Store, blobs: Blobs) -> None:
        self.store = store
        self.queue = Queue(store)
        self.executions = Executions(store, blobs)
        self.signals = SignalClient(store)
        self.url = ""

    @property
    def socket_url(self) -> str:
        return self.url.replace("http", "ws", 1) + "/v1/realtime"

    async def record(self, flow_id: str, *, ended: bool = True, timeout_s: float = 30) -> Execution:
        """The newest record of a flow."""
        async with asyncio.timeout(timeout_s):
            while True:
                rows, _ = await self.executions.search(ExecutionFilter(flow_id=flow_id))
                if rows and (rows[0].stopped_ms or not ended):
                    return rows[0]
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def open_served(
    store: Store, folder: Path, canvases: Mapping[str, dict[str, Any]], parts: SpeechParts, settings: MediaSettings
) -> AsyncIterator[ServedHouse]:
    """The flows are there, one media process runs, and the API answers."""
    blobs = await asyncio.to_thread(Blobs, folder / "blobs")
    house = ServedHouse(store, blobs)
    flows, feed = FlowStore(store), Feed(store)
    for flow_id, canvas in canvases.items():
        flow = await flows.save(canvas, flow_id=flow_id, name=flow_id, settings={"lines": 8})
        await house.queue.configure(flow_id, rules_of(flow))
    app = build_gateway(
        Services(
            store=store,
            queue=house.queue,
            feed=feed,
            flows=flows,
            engine=Engine(flows),
            executions=house.executions,
            access=Access(store, (SecretStr(KEY),), allow_open=False),
            audio=AudioFiles(blobs, key="the key of the recordings"),
            signals=house.signals,
            knowledge=Knowledge(store, folder / "knowledge"),
            guard=Guard(),
            webhooks=Webhooks(store, GuardedClient()),
        )
    )
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    house.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    # To steer calls at a Realtime service: the one that is served here.
    settings = settings.model_copy(update={"openai_url": house.socket_url, "openai_api_key": SecretStr(KEY)})
    stop, ready = asyncio.Event(), asyncio.Event()
    worker = MediaWorker(store, blobs=blobs, settings=settings, parts=parts, feed=feed)
    media = asyncio.create_task(worker.run(stop, ready.set))
    try:
        await ready.wait()
        yield house
    finally:
        stop.set()
        await asyncio.gather(media, return_exceptions=True)
        await runner.cleanup()
        await feed.close()
