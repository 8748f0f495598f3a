"""Composition: builds the rooms and connects them, one function a role. Each runs until `stop` is set."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Literal

from aiohttp import web

from switchroom.access import Access
from switchroom.dispatch import Dispatcher
from switchroom.engine import Bounds, Engine, FlowStore
from switchroom.engine.providers import Models
from switchroom.engine.providers.embeddings import Embeddings
from switchroom.engine.retriever import KnowledgeRetriever
from switchroom.engine.takeover import Takeover
from switchroom.gateway.app import build_gateway
from switchroom.gateway.enqueue_lane import EnqueueLane
from switchroom.gateway.services import SERVICES, Services
from switchroom.housekeeping import Housekeeping
from switchroom.knowledge import Embedding, Knowledge
from switchroom.net import Guard, GuardedClient
from switchroom.queue import Feed, Queue
from switchroom.realtime.signalling import SignalClient
from switchroom.records import Executions
from switchroom.records.audio_files import AudioFiles
from switchroom.settings import Settings, is_loopback
from switchroom.snapshots import leave_snapshots
from switchroom.store import Blobs, Store
from switchroom.webhook_feed import WebhookFeed
from switchroom.webhooks import Webhooks

log = logging.getLogger(__name__)

Role = Literal["api", "media", "crawl"]
Ready = Callable[[str], None]
"""Called once with the role's URL ('' for one that has none) when it can serve."""

RESTART_S = 1.0
"""Pause before background work that broke starts again."""
SHUTDOWN_S = 10.0
"""How long requests under way may take after a stop."""
BACKLOG = 1_024
"""Connections that may wait to be accepted: a campaign opens many at once."""


async def run_api(settings: Settings, store: Store, stop: asyncio.Event, ready: Ready) -> None:
    """An API node: HTTP, and the housekeeping of the queues."""
    blobs = await asyncio.to_thread(Blobs, settings.data / "recordings")
    queue, feed, flows = Queue(store), Feed(store), FlowStore(store)
    executions = Executions(store, blobs)
    out = GuardedClient(settings.outbound_allow)
    models = Models(settings.providers)
    bounds = Bounds(deadline_s=settings.turn_timeout_s)
    knowledge, embeddings = _knowledge(settings, store)
    engine = Engine(
        flows,
        responder=models,
        variables=settings.variables,
        client=out,
        bounds=bounds,
        retriever=KnowledgeRetriever(knowledge),
    )
    secrets_key = settings.secrets_key.get_secret_value() if settings.secrets_key else None
    webhooks = Webhooks(store, out, secrets_key=secrets_key)
    app = build_gateway(
        Services(
            store=store,
            queue=queue,
            feed=feed,
            flows=flows,
            engine=engine,
            executions=executions,
            access=Access(store, settings.api_keys, allow_open=settings.allow_open or is_loopback(settings.host)),
            audio=AudioFiles(blobs, key=secrets_key),
            signals=SignalClient(store),
            knowledge=knowledge,
            guard=Guard(settings.outbound_allow),
            cc_hosts=Guard(settings.cc_hosts) if settings.cc_hosts else None,
            webhooks=webhooks,
            max_body_bytes=settings.max_body_bytes,
            turn_timeout_s=settings.turn_timeout_s,
            max_bulk_lines=settings.max_bulk_lines,
            notify_secret=settings.notify_secret.get_secret_value() if settings.notify_secret else None,
            notify_open=settings.notify_open,
            public_url=settings.public_url,
            ice_servers=settings.media.ice_servers,
            twilio_token=settings.twilio_auth_token.get_secret_value() if settings.twilio_auth_token else None,
        )
    )
    if not settings.api_keys:
        log.warning(
            "no API key is configured: requests are accepted without one until a key is created",
            extra={"host": settings.host},
        )
    keeper = Housekeeping(
        store,
        queue,
        executions,
        call_hours=settings.call_hours,
        record_days=settings.record_days,
        recording_days=settings.recording_days,
    )
    hooks = WebhookFeed(store, queue, webhooks)
    dispatcher = Dispatcher(store, queue, flows, webhooks.endpoints, out)

    def up(url: str) -> None:
        dispatcher.base_url = (settings.public_url or url).rstrip("/")
        background.append(asyncio.create_task(_kept_up(dispatcher.run), name="dispatch"))
        ready(url)

    background = [
        asyncio.create_task(_kept_up(keeper.run), name="housekeeping"),
        asyncio.create_task(_kept_up(hooks.run), name="webhook-feed"),
        asyncio.create_task(_kept_up(Takeover(store, engine, executions).run), name="takeover"),
        asyncio.create_task(_kept_up(knowledge.follow), name="knowledge"),
    ]
    if embeddings is not None:
        background.append(asyncio.create_task(_kept_up(Embedding(store, embeddings).run), name="embedding"))
    try:
        await _serve(app, settings.host, settings.port, stop, up, EnqueueLane)
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await queue.close()
        await feed.close()
        await webhooks.close()
        await models.close()
        await knowledge.close()
        if embeddings is not None:
            await embeddings.close()
        await out.close()


async def _kept_up(work: Callable[[], Awaitable[None]]) -> None:
    """Background work until cancelled: what breaks it is logged, and it starts again."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("background work broke; it starts again", extra={"work": getattr(work, "__qualname__", "")})
        await asyncio.sleep(RESTART_S)


def _knowledge(settings: Settings, store: Store) -> tuple[Knowledge, Embeddings | None]:
    """What flows search, and the service of its vectors where one is set. Both are the caller's to close."""
    embeddings = Embeddings(settings.embeddings) if settings.embeddings is not None else None
    return Knowledge(store, settings.data / "knowledge", embedder=embeddings), embeddings


async def run_media_role(settings: Settings, store: Store, stop: asyncio.Event, ready: Ready) -> None:
    """A media process: carries live calls."""
    from switchroom.realtime.worker import run_media

    blobs = await asyncio.to_thread(Blobs, settings.data / "recordings")
    media = settings.media.model_copy(update={"drain_s": settings.drain_s})
    models, out = Models(settings.providers), GuardedClient(settings.outbound_allow)
    knowledge, embeddings = _knowledge(settings, store)
    engine = Engine(
        FlowStore(store),
        responder=models,
        variables=settings.variables,
        client=out,
        retriever=KnowledgeRetriever(knowledge),
    )
    try:
        async with _figures(store, "media"):
            await run_media(
                store,
                blobs=blobs,
                settings=media,
                stop=stop,
                on_ready=lambda: ready(""),
                engine=engine,
                recordings_key=settings.secrets_key.get_secret_value() if settings.secrets_key else None,
            )
    finally:
        await models.close()
        await knowledge.close()
        if embeddings is not None:
            await embeddings.close()
        await out.close()


async def run_sidecar(settings: Settings, store: Store, stop: asyncio.Event, ready: Ready) -> None:
    """The crawl host."""
    from switchroom.sidecar.app import build_sidecar
    from switchroom.sidecar.figures import count_crawl
    from switchroom.sidecar.settings import SidecarSettings

    sidecar = SidecarSettings(
        data_dir=settings.data / "crawl", ingest_secret=settings.ingest_secret, **settings.crawl.model_dump()
    )
    app = await asyncio.to_thread(build_sidecar, sidecar, store)
    async with _figures(store, "crawl", lambda: count_crawl(store)):
        await _serve(app, settings.sidecar_host, settings.sidecar_port, stop, ready)


@contextlib.asynccontextmanager
async def _figures(
    store: Store, role: Role, before: Callable[[], Awaitable[None]] | None = None
) -> AsyncIterator[None]:
    """Leaves this process's figures in the store meanwhile."""
    leaving = asyncio.create_task(_kept_up(lambda: leave_snapshots(store, role, before)), name="figures")
    try:
        yield
    finally:
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)


ROLES: dict[Role, Callable[[Settings, Store, asyncio.Event, Ready], Awaitable[None]]] = {
    "api": run_api,
    "media": run_media_role,
    "crawl": run_sidecar,
}


def store_folder(settings: Settings) -> Path:
    return settings.data / "store"


async def _serve(
    app: web.Application,
    host: str,
    port: int,
    stop: asyncio.Event,
    ready: Ready,
    lane: Callable[[Services, Callable[[], asyncio.Protocol]], EnqueueLane] | None = None,
) -> None:
    """Serves `app`, behind a lane where there is one, until `stop`; then lets requests under way end."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S, handler_cancellation=True)
    await runner.setup()
    assert runner.server is not None
    front = lane(app[SERVICES], runner.server) if lane else None
    try:
        server = await asyncio.get_running_loop().create_server(
            front or runner.server, host, port, reuse_address=True, backlog=BACKLOG
        )
        ready(_url(host, server))
        await stop.wait()
        server.close()
        if front is not None:
            await front.close(SHUTDOWN_S)
    finally:
        await runner.cleanup()


def _url(host: str, server: asyncio.Server) -> str:
    port = server.sockets[0].getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    if host in ("0.0.0.0", "::"):  # noqa: S104 - only shown
        shown = socket.gethostname()
    return f"http://{shown}:{port}"
