"""The sidecar's HTTP application: cookies in, crawl jobs, health."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator
from zoneinfo import ZoneInfo

from aiohttp import web
from aiohttp.typedefs import Handler

from switchroom.crawler.output import Output
from switchroom.crawler.render import BrowserPool, find_chromium
from switchroom.crawler.tools import Tools
from switchroom.errors import Forbidden, Unavailable
from switchroom.http_problems import install_problems
from switchroom.net import GuardedClient
from switchroom.sidecar import cookie_routes, fresh_routes, job_routes, site_routes
from switchroom.sidecar.alerts import Alerts
from switchroom.sidecar.context import COOKIES, FRESHNESS, JOBS, SETTINGS, STREAMS, TOOLS
from switchroom.sidecar.cookies import CookieFile
from switchroom.sidecar.freshness import Freshness, time_of_day
from switchroom.sidecar.jobs import Jobs
from switchroom.sidecar.settings import SidecarSettings
from switchroom.store import Store

log = logging.getLogger(__name__)

SECRET_HEADER = "X-Ingest-Secret"  # noqa: S105 (a header's name)
DAY_MS = 86_400_000
_OPEN_PATHS = frozenset({"/healthz", "/readyz"})


def build_sidecar(settings: SidecarSettings, store: Store) -> web.Application:
    """The application on `store`, which stays the caller's to close. Jobs run from its start-up to its clean-up."""
    app = web.Application(client_max_size=settings.max_cookie_bytes)
    install_problems(app)
    app.middlewares.append(_secret_middleware(settings))
    app[SETTINGS] = settings
    app[STREAMS] = set()
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/readyz", _readyz)
    app.add_routes(cookie_routes.routes())
    app.add_routes(job_routes.routes())
    app.add_routes(site_routes.routes())
    app.add_routes(fresh_routes.routes())

    async def lifetime(app: web.Application) -> AsyncIterator[None]:
        key = settings.encryption_key.get_secret_value() if settings.encryption_key else None
        cookies = await CookieFile.open(settings.data_dir, key)
        client = GuardedClient(settings.allow_private, connections_per_host=max(settings.per_host, 4))
        tools = Tools(
            store=store,
            client=client,
            browsers=BrowserPool(client.guard, executable=settings.chromium, pages=settings.browser_pages),
            cookies=cookies,
            output=Output(settings.data_dir / "sites"),
            workers=settings.workers,
            per_host=settings.per_host,
            delay_s=settings.delay_s,
            grace_ms=int(settings.gone_days * DAY_MS),
            verify_ms=int(settings.verify_days * DAY_MS),
        )
        secret = settings.webhook_secret.get_secret_value() if settings.webhook_secret else None
        alerts = Alerts(store, client, key=key, secret=secret)
        jobs = Jobs(tools, cookies, alerts, at_once=settings.jobs, keep_ms=int(settings.job_days * DAY_MS))
        at = time_of_day(settings.fresh_at) if settings.fresh_at else None
        zone = ZoneInfo(settings.fresh_zone) if settings.fresh_zone else None
        freshness = Freshness(tools, jobs, at=at, zone=zone)
        app[COOKIES], app[TOOLS], app[JOBS], app[FRESHNESS] = cookies, tools, jobs, freshness
        await jobs.start()
        freshness.start()
        if settings.ingest_secret is None:
            log.warning("no ingest secret is set: cookies and jobs are accepted without X-Ingest-Secret")
        yield
        await freshness.stop()
        await jobs.stop()
        await alerts.close()
        await tools.browsers.close()
        await client.close()

    app.cleanup_ctx.append(lifetime)
    app.on_shutdown.append(_end_streams)
    return app


def _secret_middleware(settings: SidecarSettings) -> web.middleware:  # type: ignore[valid-type]
    secret = settings.ingest_secret.get_secret_value().encode() if settings.ingest_secret else None

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if secret is not None and request.path not in _OPEN_PATHS:
            given = request.headers.get(SECRET_HEADER, "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(given, secret):
                raise Forbidden(f"The header {SECRET_HEADER} is missing or wrong.", code="wrong_secret")
        return await handler(request)

    return check


async def _end_streams(app: web.Application) -> None:
    streams = app[STREAMS]
    for task in tuple(streams):
        task.cancel()


async def _healthz(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


async def _readyz(request: web.Request) -> web.Response:
    """Ready when the store answers; says whether a browser and readable cookies are there."""
    try:
        await request.app[TOOLS].store.call("PING")
    except OSError as error:
        raise Unavailable("The store does not answer.", code="store_unavailable") from error
    browser = await asyncio.to_thread(find_chromium, request.app[SETTINGS].chromium)
    try:
        cookies = len((await request.app[COOKIES].read()).cookies)
    except Unavailable as error:
        return web.json_response({"status": "ready", "browser": browser is not None, "cookies": error.code})
    return web.json_response({"status": "ready", "browser": browser is not None, "cookies": cookies})
