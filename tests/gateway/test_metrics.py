"""`/metrics`: one page over all processes that a Prometheus can read, its labels bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp.test_utils import TestClient
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from switchroom import metrics, snapshots
from switchroom.access import Scope
from switchroom.gateway import metrics as dialect
from switchroom.gateway.app import build_gateway
from switchroom.gateway.services import Services
from switchroom.queue import NewCall, Rules
from switchroom.realtime.call_log import observe
from switchroom.records import TurnTiming
from switchroom.store import keys

Page = dict[str, dict[frozenset[tuple[str, str]], float]]


async def scraped(client: TestClient, **headers: str) -> Page:
    reply = await client.get("/metrics", headers=headers)
    assert reply.status == 200 and reply.content_type == "text/plain"
    text = await reply.text()
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names)), "a family stands in one place"
    found: Page = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return found


def value(page: Page, name: str, **labels: str) -> float:
    (match,) = [number for given, number in page[name].items() if set(labels.items()) <= given]
    return match


async def test_queues_store_and_requests(parts: Services, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialect, "MAX_FLOWS", 2)
    for flow, count in (("a", 3), ("b", 1), ("c", 2), ("d", 1)):
        for number in range(count):
            await parts.queue.enqueue(flow, NewCall(form={"ID": str(number)}), Rules(lines=2))
    await parts.queue.claim("a", "holder", answered=True)
    await client.get("/healthz")
    page = await scraped(client)
    assert value(page, metrics.QUEUE_CALLS, flow="a", state="live") == 1
    assert value(page, metrics.QUEUE_CALLS, flow="a", state="pending") == 2
    assert value(page, metrics.QUEUE_CALLS, flow="c", state="pending") == 2
    assert value(page, metrics.QUEUE_CALLS, flow="(other)", state="pending") == 2  # b and d: no label of their own
    assert value(page, metrics.QUEUE_ENDED + "_total", flow="a", what="answered") == 1
    assert value(page, metrics.QUEUE_LONGEST, flow="a") > 0
    assert value(page, metrics.STORE_UP) == 1 and value(page, metrics.STORE_MEMORY) > 0
    assert value(page, "switchroom_http_request_seconds_count", method="GET", route="/healthz", status="200") >= 1
    assert value(page, "switchroom_process_resident_memory_bytes", process=metrics.process_name("api")) > 0
    assert value(page, "switchroom_process_tasks", process=metrics.process_name("api")) > 1
    assert value(page, "switchroom_process_threads", process=metrics.process_name("api")) >= 1


async def test_figures_of_other_processes(parts: Services, client: TestClient) -> None:
    leaving = asyncio.create_task(snapshots.leave_snapshots(parts.store, "media"))
    name = metrics.process_name("media")
    async with asyncio.timeout(30):
        while await parts.store.call("GET", keys.metric_snapshot(name)) is None:
            await asyncio.sleep(0.02)
    await parts.store.call("SADD", keys.metric_processes(), "media-of-yesterday")
    page = await scraped(client)
    memory = page["switchroom_process_resident_memory_bytes"]
    assert {dict(labels)["process"] for labels in memory} == {name, metrics.process_name("api")}
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    page = await scraped(client)
    assert len(page["switchroom_process_resident_memory_bytes"]) == 1
    assert await parts.store.call("SMEMBERS", keys.metric_processes()) == []


async def test_turns_are_counted_by_stage(client: TestClient) -> None:
    def counts(page: Page) -> tuple[float, float, float]:
        seconds = "switchroom_turn_seconds_count"
        return (
            sum(n for labels, n in page.get(seconds, {}).items() if ("stage", "first_audio") in labels),
            sum(n for labels, n in page.get(seconds, {}).items() if ("stage", "first_token") in labels),
            sum(n for labels, n in page.get("switchroom_turns_total", {}).items() if ("interrupted", "true") in labels),
        )

    before = counts(await scraped(client))
    observe(TurnTiming(turn=1, first_audio_ms=900.0))  # an opening: nobody waited
    observe(TurnTiming(turn=2, speech_end_ms=4000, first_token_ms=300.0, first_audio_ms=480.0))
    observe(TurnTiming(turn=3, speech_end_ms=9000, first_token_ms=200.0, interrupted=True))
    after = counts(await scraped(client))
    assert tuple(b - a for a, b in zip(before, after, strict=True)) == (1, 2, 1)


async def test_a_scraper_needs_its_scope(
    make_services: Callable[..., Services], aiohttp_client: Callable[..., Awaitable[TestClient]]
) -> None:
    parts = make_services(configured=(SecretStr("a-key-of-all-scopes"),))
    client = await aiohttp_client(build_gateway(parts))
    assert (await client.get("/metrics")).status == 401
    for scope, status in ((Scope.QUEUE_READ, 403), (Scope.METRICS_READ, 200)):
        key, _ = await parts.access.create("prometheus", (scope,))
        assert (await client.get("/metrics", headers={"Authorization": f"Bearer {key}"})).status == status
