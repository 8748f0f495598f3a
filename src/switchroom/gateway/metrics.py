"""`GET /metrics`: figures over all rooms and processes for Prometheus. Names stand in `switchroom.metrics`."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from switchroom import metrics
from switchroom.access import Scope
from switchroom.errors import SwitchroomError
from switchroom.gateway.operation import operation
from switchroom.gateway.services import Services, services
from switchroom.queue import State
from switchroom.store import keys

MAX_FLOWS = 50
"""Flows that are named, those with the most waiting calls first; the others are one, `(other)`: a label per flow of a
server with thousands would cost every scrape."""
OTHER = "(other)"
STORE_S = 2.0


def routes() -> list[web.RouteDef]:
    return [web.get("/metrics", show)]


def install_metrics(app: web.Application) -> None:
    """Times every request that is answered whole."""
    app.middlewares.insert(0, _timed)


@web.middleware
async def _timed(request: web.Request, handler: Handler) -> web.StreamResponse:
    began = time.perf_counter()
    reply = await handler(request)
    # What streams, waits for news or was upgraded says nothing about how fast we answer.
    if isinstance(reply, web.Response) and "wait" not in request.query:
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "(none)"
        labels = metrics.HTTP_SECONDS.labels(request.method, route, str(reply.status))
        labels.observe(time.perf_counter() - began)
    return reply


@operation(
    Scope.METRICS_READ,
    "Figures for Prometheus: calls, turns, queues, media, store, crawl",
    tag="health",
    replies={200: "text/plain"},
)
async def show(request: web.Request) -> web.Response:
    """With a store that does not answer only this process's own figures and `switchroom_store_up` 0."""
    parts = services(request)
    own = await metrics.own_figures()
    by_process = {metrics.process_name("api"): own}
    shared: list[Metric] = []
    up = GaugeMetricFamily(metrics.STORE_UP, "Whether the store answers")
    try:
        async with asyncio.timeout(STORE_S):
            shared += await _store(parts)
            by_process |= await _others(parts)
            shared += await _queues(parts)
            shared += await _media(parts)
        up.add_metric([], 1)
    except (SwitchroomError, TimeoutError):
        up.add_metric([], 0)
    body = await asyncio.to_thread(metrics.page, by_process, [*shared, up])
    return web.Response(body=body, headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_PLAIN_0_0_4})


async def _others(parts: Services) -> dict[str, str]:
    """What media and crawl processes left; the names of dead ones are forgotten on the way."""
    found: dict[str, str] = {}
    for raw in await parts.store.call("SMEMBERS", keys.metric_processes()):
        text = await parts.store.call("GET", keys.metric_snapshot(raw.decode()))
        if text is None:
            await parts.store.call("SREM", keys.metric_processes(), raw)
        else:
            found[raw.decode()] = text.decode()
    return found


async def _store(parts: Services) -> list[Metric]:
    began = time.perf_counter()
    await parts.store.call("PING")
    ping_s = time.perf_counter() - began
    text = (await parts.store.call("INFO")).decode()
    info = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    wrote = info.get("aof_last_write_status", "ok") == "ok" and info.get("aof_last_bgrewrite_status", "ok") == "ok"
    return [
        GaugeMetricFamily(metrics.STORE_PING, "One round trip to the store", ping_s),
        GaugeMetricFamily(metrics.STORE_MEMORY, "Memory of the store", float(info.get("used_memory", 0))),
        GaugeMetricFamily(metrics.STORE_CLIENTS, "Connections to the store", float(info.get("connected_clients", 0))),
        GaugeMetricFamily(metrics.STORE_WRITES_OK, "Whether the store's last write to its file worked", float(wrote)),
    ]


async def _queues(parts: Services) -> list[Metric]:
    flows = await parts.queue.flows()
    statuses = dict(
        zip(flows, await asyncio.gather(*(parts.queue.status(flow, limit=1) for flow in flows)), strict=True)
    )
    ranked = sorted(flows, key=lambda flow: (-statuses[flow].pending_count, flow))
    named = set(ranked[:MAX_FLOWS])
    today = datetime.now(UTC).date()
    figures = dict(
        zip(
            flows,
            await asyncio.gather(*(parts.queue.statistics(flow, first=today, last=today) for flow in flows)),
            strict=True,
        )
    )
    calls: dict[tuple[str, str], float] = {}
    ended: dict[tuple[str, str], float] = {}
    longest: dict[str, float] = {}
    free: dict[str, float] = {}
    for flow in flows:
        name, now, ever = flow if flow in named else OTHER, statuses[flow], figures[flow].ever
        held = [row.state for row in now.active]
        counts = {
            "scheduled": now.scheduled_count,
            "pending": now.pending_count,
            "dead": now.dead_count,
            **{str(state): held.count(state) for state in (State.OFFERED, State.LIVE, State.WRAPUP)},
        }
        for state, count in counts.items():
            calls[name, state] = calls.get((name, state), 0) + count
        outcomes = {
            "answered": ever.answered,
            "answered_in_service_level": ever.in_sl,
            "abandoned": ever.abandoned,
            "failed": ever.failed,
            "ended": ever.ended,
        }
        for what, count in outcomes.items():
            ended[name, what] = ended.get((name, what), 0) + count
        longest[name] = max(longest.get(name, 0.0), figures[flow].longest_waiting_ms / 1000)
        free[name] = free.get(name, 0) + now.free
    depth = GaugeMetricFamily(metrics.QUEUE_CALLS, "Calls of a flow by state, now", labels=["flow", "state"])
    over = CounterMetricFamily(
        metrics.QUEUE_ENDED, "Calls of a flow ever, by what became of them", labels=["flow", "what"]
    )
    wait = GaugeMetricFamily(metrics.QUEUE_LONGEST, "How long the call waits that waits longest", labels=["flow"])
    idle = GaugeMetricFamily(metrics.QUEUE_FREE, "Idle lines of a flow", labels=["flow"])
    for labels, number in calls.items():
        depth.add_metric(labels, number)
    for labels, number in ended.items():
        over.add_metric(labels, number)
    for flow in longest:
        wait.add_metric([flow], longest[flow])
        idle.add_metric([flow], free[flow])
    return [depth, over, wait, idle]


async def _media(parts: Services) -> list[Metric]:
    legs = GaugeMetricFamily(metrics.MEDIA_LEGS, "Live legs of a media process", labels=["media"])
    room = GaugeMetricFamily(
        metrics.MEDIA_ROOM, "Legs that a media process takes; 0 while it takes none", labels=["media"]
    )
    lag = GaugeMetricFamily(metrics.MEDIA_LAG, "Worst lag of its event loop in two seconds", labels=["media"])
    for process in await parts.signals.media():
        name = [process.id[:8]]
        legs.add_metric(name, process.legs)
        room.add_metric(name, 0 if process.draining or process.overloaded else process.max_legs)
        lag.add_metric(name, process.loop_lag_ms / 1000)
    return [legs, room, lag]
