"""The API's composition."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from aiohttp import web
from pydantic import SecretStr

from switchroom.access import Access
from switchroom.app import Ready, kept_up, serve_http
from switchroom.app_engine import EngineParts, open_engine
from switchroom.dispatch import Dispatcher
from switchroom.engine import Bounds
from switchroom.engine.takeover import Takeover
from switchroom.gateway.app import build_gateway
from switchroom.gateway.enqueue_lane import EnqueueLane
from switchroom.gateway.services import SERVICES, Services
from switchroom.housekeeping import Housekeeping
from switchroom.knowledge import Embedding
from switchroom.net import Guard
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
    if not settings.api_keys:
        log.warning(
            "no API key is configured: requests are accepted without one until a key is created",
            extra={"host": settings.host},
        )
    blobs = await asyncio.to_thread(Blobs, settings.data / "recordings")
    async with open_engine(settings, store, Bounds(deadline_s=settings.turn_timeout_s)) as parts:
        services = _services(settings, store, parts, blobs)
        try:
            await _serve(settings, services, parts, stop, ready)
        finally:
            await services.queue.close()
            await services.feed.close()
            await services.webhooks.close()


async def _serve(settings: Settings, services: Services, parts: EngineParts, stop: asyncio.Event, ready: Ready) -> None:
    """Answers requests until `stop`; meanwhile the work goes on that nobody asks for."""
    store, queue, executions, webhooks = services.store, services.queue, services.executions, services.webhooks
    keeper = Housekeeping(
        store,
        queue,
        executions,
        call_hours=settings.call_hours,
        record_days=settings.record_days,
        recording_days=settings.recording_days,
    )
    dispatcher = Dispatcher(store, queue, parts.flows, webhooks.endpoints, parts.out)
    works = {
        "housekeeping": keeper.run,
        "webhook-feed": WebhookFeed(store, queue, webhooks).run,
        "takeover": Takeover(store, parts.engine, executions).run,
        "knowledge": parts.knowledge.follow,
    }
    if parts.embeddings is not None:
        works["embedding"] = Embedding(store, parts.embeddings).run
    background = [asyncio.create_task(kept_up(work), name=name) for name, work in works.items()]

    def up(url: str) -> None:
        dispatcher.base_url = (settings.public_url or url).rstrip("/")
        background.append(asyncio.create_task(kept_up(dispatcher.run), name="dispatch"))
        ready(url)

    try:
        await serve_http(build_gateway(services), settings.host, settings.port, stop, up, _lane)
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)


def _services(settings: Settings, store: Store, parts: EngineParts, blobs: Blobs) -> Services:
    secrets_key = _text(settings.secrets_key)
    return Services(
        store=store,
        queue=Queue(store),
        feed=Feed(store),
        flows=parts.flows,
        engine=parts.engine,
        executions=Executions(store, blobs),
        access=Access(store, settings.api_keys, allow_open=settings.allow_open or is_loopback(settings.host)),
        audio=AudioFiles(blobs, key=secrets_key),
        signals=SignalClient(store),
        knowledge=parts.knowledge,
        guard=Guard(settings.outbound_allow),
        cc_hosts=Guard(settings.cc_hosts) if settings.cc_hosts else None,
        webhooks=Webhooks(store, parts.out, secrets_key=secrets_key),
        max_body_bytes=settings.max_body_bytes,
        turn_timeout_s=settings.turn_timeout_s,
        max_bulk_lines=settings.max_bulk_lines,
        notify_secret=_text(settings.notify_secret),
        notify_open=settings.notify_open,
        public_url=settings.public_url,
        ice_servers=settings.media.ice_servers,
        twilio_token=_text(settings.twilio_auth_token),
    )


def _text(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None


def _lane(app: web.Application, application: Callable[[], asyncio.Protocol]) -> EnqueueLane:
    return EnqueueLane(app[SERVICES], application)
