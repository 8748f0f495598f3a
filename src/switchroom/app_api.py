"""The API's composition."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from aiohttp import web

from switchroom.access import Access
from switchroom.app import Ready, kept_up, serve_http
from switchroom.app_knowledge import open_knowledge
from switchroom.dispatch import Dispatcher
from switchroom.engine import Bounds, Engine, FlowStore
from switchroom.engine.providers import Models
from switchroom.engine.retriever import KnowledgeRetriever
from switchroom.engine.takeover import Takeover
from switchroom.gateway.app import build_gateway
from switchroom.gateway.enqueue_lane import EnqueueLane
from switchroom.gateway.services import SERVICES, Services
from switchroom.housekeeping import Housekeeping
from switchroom.knowledge import Embedding
from switchroom.net import Guard, GuardedClient
from switchroom.queue import Feed, Queue
from switchroom.realtime.signalling import SignalClient
from switchroom.records import Executions
from switchroom.records.audio_files import AudioFiles
from switchroom.settings import Settings, is_loopback
from switchroom.store import Blobs, Store
from switchroom.webhook_feed import WebhookFeed
from switchroom.webhooks import Webhooks

log = logging.getLogger(__name__)


async def run_api(settings: Settings, store: Store, stop: asyncio.Event, ready: Ready) -> None:
    """An API node: HTTP, and the housekeeping of the queues."""
    blobs = await asyncio.to_thread(Blobs, settings.data / "recordings")
    queue, feed, flows = Queue(store), Feed(store), FlowStore(store)
    executions = Executions(store, blobs)
    out = GuardedClient(settings.outbound_allow)
    models = Models(settings.providers)
    bounds = Bounds(deadline_s=settings.turn_timeout_s)
    knowledge, embeddings = open_knowledge(settings, store)
    engine = Engine(
        flows,
        responder=models,
        variables=settings.variables,
        client=out,
        bounds=bounds,
        retriever=KnowledgeRetriever(knowledge),
        programs=settings.mcp_programs,
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
        background.append(asyncio.create_task(kept_up(dispatcher.run), name="dispatch"))
        ready(url)

    background = [
        asyncio.create_task(kept_up(keeper.run), name="housekeeping"),
        asyncio.create_task(kept_up(hooks.run), name="webhook-feed"),
        asyncio.create_task(kept_up(Takeover(store, engine, executions).run), name="takeover"),
        asyncio.create_task(kept_up(knowledge.follow), name="knowledge"),
    ]
    if embeddings is not None:
        background.append(asyncio.create_task(kept_up(Embedding(store, embeddings).run), name="embedding"))
    try:
        await serve_http(
            app, settings.host, settings.port, stop, up, lambda app, server: EnqueueLane(app[SERVICES], server)
        )
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


def _lane(app: web.Application, application: Callable[[], asyncio.Protocol]) -> EnqueueLane:
    return EnqueueLane(app[SERVICES], application)
