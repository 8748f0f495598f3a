"""The flow host's HTTP application: each dialect's routes, problem details, access, health."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from switchroom import __version__
from switchroom.access import presented_key
from switchroom.errors import SwitchroomError
from switchroom.gateway import (
    api_page,
    apikeys,
    asyncapi,
    bulk,
    calls,
    chat_clients,
    chatflows,
    compact,
    direct_calls,
    executions,
    holding,
    kiosk,
    knowledge,
    metrics,
    notify,
    openapi,
    operators,
    palette,
    prediction,
    queue,
    queue_change,
    queue_events,
    queue_figures,
    queue_holders,
    realtime_v1,
    realtime_v1_calls,
    softphone_page,
    speech,
    twilio,
    versions,
    webhooks,
)
from switchroom.gateway.broadcast import BROADCAST, Broadcast
from switchroom.gateway.lingering import install_lingering
from switchroom.gateway.notify import HUB, NotifyHub
from switchroom.gateway.operation import operation, operation_of
from switchroom.gateway.passage import install_passage
from switchroom.gateway.public import install_origins
from switchroom.gateway.reply import json_reply
from switchroom.gateway.services import PRINCIPAL, SERVICES, Services, services
from switchroom.gateway.speech import SPEECH, Speech
from switchroom.gateway.turns import TURNS, Turns
from switchroom.http_problems import install_problems
from switchroom.http_tracing import install_tracing

log = logging.getLogger(__name__)

READY_TIMEOUT_S = 3.0


def build_gateway(parts: Services) -> web.Application:
    """The application over `parts`. Raises `TypeError` for a route whose handler declares no operation.

    To be served with `handler_cancellation=True`: a client that leaves then ends its turn or its long poll at once.
    """
    app = web.Application(middlewares=[_access], client_max_size=parts.max_canvas_bytes)
    install_problems(app)
    install_lingering(app)
    kiosk.install_kiosks(app)
    app.on_response_prepare.append(_challenge)
    app[SERVICES] = parts
    app[BROADCAST] = Broadcast(parts.store)
    app[TURNS] = Turns(parts, app[BROADCAST])
    app[HUB] = NotifyHub(app[BROADCAST])
    app[SPEECH] = Speech()
    app.on_shutdown.append(_close_hub)
    install_origins(app)
    metrics.install_metrics(app)
    install_passage(app)
    twilio.install_twilio(app)
    install_tracing(app)
    app.cleanup_ctx.append(_background)
    voice = (
        queue,
        queue_change,
        queue_events,
        holding,
        kiosk,
        queue_figures,
        queue_holders,
        bulk,
        calls,
        twilio,
        webhooks,
        realtime_v1,
        direct_calls,
        realtime_v1_calls,
        operators,
    )
    for dialect in (
        *voice,
        compact,
        chatflows,
        versions,
        palette,
        prediction,
        chat_clients,
        speech,
        notify,
        executions,
        knowledge,
        apikeys,
        openapi,
        asyncapi,
        api_page,
        softphone_page,
        metrics,
    ):
        app.router.add_routes(dialect.routes())
    app.router.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz)])
    for route in app.router.routes():
        if operation_of(route.handler) is None:
            raise TypeError(f"{route.method} {route.resource} declares no operation, so nobody knows who may call it")
    return app


async def _close_hub(app: web.Application) -> None:
    # Before aiohttp waits for the requests under way: a socket would hold it up.
    app[HUB].close()


async def _background(app: web.Application) -> AsyncIterator[None]:
    """What one process's gateway does beside its requests."""
    await app[BROADCAST].start()
    hearing = asyncio.create_task(app[BROADCAST].run(), name="broadcast")
    yield
    hearing.cancel()
    await asyncio.gather(hearing, return_exceptions=True)
    await app[TURNS].close()
    await app[SPEECH].close()


@web.middleware
async def _access(request: web.Request, handler: Handler) -> web.StreamResponse:
    # An unknown path or method has no declaration and goes on to aiohttp's own 404 or 405.
    declared = operation_of(request.match_info.handler)
    if declared is not None and declared.scope is not None and not (declared.public_flows or declared.own_check):
        request[PRINCIPAL] = await services(request).access.check(presented_key(request.headers), declared.scope)
    return await handler(request)


async def _challenge(request: web.Request, response: web.StreamResponse) -> None:
    # A 401 says how to answer it (RFC 9110 §11.6.1).
    if response.status == 401:
        response.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"


@operation(None, "The process is up", tag="health", replies={200: dict[str, str]})
async def healthz(request: web.Request) -> web.Response:
    return json_reply({"status": "ok", "version": __version__})


@operation(None, "It can serve: the store answers; how many media processes can take calls", tag="health")
async def readyz(request: web.Request) -> web.Response:
    """503 while the store does not answer. No media process is said, not an error: calls wait in the queue."""
    parts = services(request)
    checks: dict[str, object] = {}
    ready = True
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            await parts.store.call("PING")
            checks["store"] = "ok"
            checks["media"] = await parts.signals.media()
    except (SwitchroomError, TimeoutError) as error:
        log.warning("not ready", extra={"cause": str(error)})
        ready = False
        checks.setdefault("store", "does not answer")
    reply = json_reply({"status": "ready" if ready else "unavailable", **checks}, status=200 if ready else 503)
    reply.headers[hdrs.CACHE_CONTROL] = "no-store"
    return reply
