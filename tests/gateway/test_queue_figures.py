"""Statistics, dead letters, opening hours and the caller who left, over HTTP."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from switchroom.gateway.services import Services
from switchroom.queue import EndReason

FLOWS = "/api/v1/chatflows"
BASE = "/api/v1/openai-realtime/line/queue"


@pytest.fixture
async def line(client: TestClient, echo_canvas: dict[str, Any]) -> TestClient:
    reply = await client.post(FLOWS, json={"flowData": echo_canvas, "id": "line", "type": "REALTIME"})
    assert reply.status in (200, 201)
    return client


async def configure(line: TestClient, **settings: Any) -> dict[str, Any]:
    reply = await line.put(f"{FLOWS}/line", json={"settings": settings})
    body: dict[str, Any] = await reply.json()
    assert reply.status == 200, body
    return body


async def enqueue(line: TestClient, caller: str, **more: Any) -> dict[str, Any]:
    reply = await line.post(f"{BASE}/enqueue", json={"form": {"ID": caller}, **more})
    body: dict[str, Any] = await reply.json()
    assert reply.status == 202, body
    return body


async def test_a_dead_letter_is_seen_and_brought_back(line: TestClient, parts: Services) -> None:
    task = (await enqueue(line, "a", maxAttempts=1))["taskId"]
    await parts.queue.claim("line", "dead", lease_ms=10)
    await asyncio.sleep(0.02)
    body = await (await line.get(f"{BASE}/dead")).json()
    assert body["total"] == 1
    letter = body["data"][0]
    assert (letter["taskId"], letter["ID"], letter["endReason"], letter["attempts"]) == (task, "a", "failed", 1)
    assert (await (await line.get(f"{BASE}/status")).json())["deadCount"] == 1
    reply = await line.post(f"{BASE}/dead/requeue", json={"taskId": task})
    back = await reply.json()
    assert (reply.status, back["requeuedFrom"], back["state"]) == (202, task, "pending")
    again = await (await line.post(f"{BASE}/dead/requeue", json={"taskId": task})).json()
    assert again["taskId"] == back["taskId"]
    old = await (await line.get(f"{BASE}/status", params={"taskId": task})).json()
    new = await (await line.get(f"{BASE}/status", params={"taskId": back["taskId"]})).json()
    assert (old["state"], old["requeuedAs"], new["requeuedFrom"], new["position"]) == ("ended", back["taskId"], task, 1)
    assert (await (await line.get(f"{BASE}/dead")).json()) == {"data": [], "total": 0}


@pytest.mark.parametrize(("body", "status"), [({}, 400), ({"taskId": 7}, 400), ({"taskId": "x"}, 404), ([], 400)])
async def test_a_wrong_requeue_is_refused(line: TestClient, body: Any, status: int) -> None:
    reply = await line.post(f"{BASE}/dead/requeue", json=body)
    assert reply.status == status
    assert reply.content_type == "application/problem+json"


async def test_figures_by_day_and_window(line: TestClient, parts: Services) -> None:
    await enqueue(line, "a")
    (held,) = await parts.queue.claim("line", "w", answered=True)
    await parts.queue.finish(held, EndReason.COMPLETED)
    left = (await enqueue(line, "b"))["taskId"]
    reply = await line.post(f"{BASE}/cancel", json={"taskId": left, "reason": "caller_hung_up"})
    assert (await reply.json())["endReason"] == "abandoned"
    today = datetime.now(UTC).date()
    query = {"from": (today - timedelta(days=1)).isoformat(), "to": (today + timedelta(days=1)).isoformat()}
    body = await (await line.get(f"{BASE}/stats", params=query)).json()
    assert [day["answered"] for day in body["days"]] == [1]
    for part in (body["window"], body["ever"], body["days"][0]):
        assert (part["answered"], part["abandoned"], part["shortAbandoned"], part["ended"]) == (1, 1, 1, 2)
        assert part["serviceLevel"] == {"thresholdSeconds": 20, "ratio": 1.0}
    assert (await (await line.get(f"{BASE}/stats")).json())["days"] == body["days"]


@pytest.mark.parametrize(
    "query",
    [
        {"from": "yesterday"},
        {"to": "2026-13-01"},
        {"from": "2026-02-01", "to": "2026-01-01"},
        {"from": "2020-01-01", "to": "2026-01-01"},
        {"window": "0"},
        {"from": "20260101"},
        {"from": "0001-01-01"},
        {"to": "9999-12-31"},
    ],
)
async def test_a_wrong_span_of_days_is_refused(line: TestClient, query: dict[str, str]) -> None:
    reply = await line.get(f"{BASE}/stats", params=query)
    assert reply.status == 400
    assert (await reply.json())["errors"][0]["pointer"].startswith("/query/")


async def test_opening_hours_are_set_shown_and_kept_to(line: TestClient) -> None:
    hours = {"timezone": "Europe/Ljubljana", "weekly": {}, "closed": ["2026-12-25"]}
    assert (await configure(line, openingHours=hours))["settings"]["openingHours"] == hours
    await enqueue(line, "a")
    status = await (await line.get(f"{BASE}/status")).json()
    assert (status["open"], status["opensAt"], status["pendingCount"]) == (False, None, 1)
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).strftime("%a").lower()
    hours["weekly"] = {tomorrow: [["08:00", "16:00"]]}
    await configure(line, openingHours=hours)
    status = await (await line.get(f"{BASE}/status")).json()
    assert status["open"] is False and status["opensAt"] > datetime.now(UTC).isoformat()
    await configure(line, openingHours=None)
    assert (await (await line.get(f"{BASE}/status")).json())["open"] is True


@pytest.mark.parametrize(
    "settings",
    [
        {"openingHours": {"timezone": "Nowhere/City"}},
        {"openingHours": {"timezone": "UTC", "weekly": {"monday": []}}},
        {"openingHours": {"timezone": "UTC", "weekly": {"mon": [["8", "9"]]}}},
        {"relaxAfterS": [0]},
        {"retryDelayS": -1},
        {"maxWaitS": -1},
        {"wrapupS": "soon"},
    ],
)
async def test_wrong_settings_are_refused(line: TestClient, settings: dict[str, Any]) -> None:
    reply = await line.put(f"{FLOWS}/line", json={"settings": settings})
    assert reply.status == 400, await reply.text()


async def test_a_caller_who_is_overtaken_is_told(line: TestClient) -> None:
    first = await enqueue(line, "a")
    assert "overtaken" not in first
    await enqueue(line, "urgent", priority=5)
    again = await enqueue(line, "a")
    assert (again["position"], again["overtaken"], again["duplicate"]) == (2, True, True)
    task = await (await line.get(f"{BASE}/status", params={"taskId": first["taskId"]})).json()
    assert (task["position"], task["overtaken"]) == (2, True)


@pytest.mark.parametrize("skill", ["@cc", "a\x1fb", " "])
async def test_a_skill_that_the_queue_keeps_for_itself_is_refused(line: TestClient, skill: str) -> None:
    reply = await line.post(f"{BASE}/enqueue", json={"form": {"ID": "a"}, "skills": [skill]})
    assert reply.status == 400
    assert (await reply.json())["errors"][0]["pointer"] == "/skills"


async def test_who_is_there(line: TestClient, parts: Services) -> None:
    async def there() -> dict[str, Any]:
        reply = await line.get(f"{BASE}/holders")
        assert reply.status == 200
        return dict(await reply.json())

    assert await there() == {"waiting": [], "resting": [], "holding": []}
    await configure(line, wrapupS=60)
    waits = [asyncio.create_task(parts.queue.wait_claim("anna", "line", skills=("sl", "en"), rests=True, timeout_s=20))]
    while len((await there())["waiting"]) < 1:
        await asyncio.sleep(0.01)
    waits.append(asyncio.create_task(parts.queue.wait_claim("ben", "line", timeout_s=20)))
    while len((await there())["waiting"]) < 2:
        await asyncio.sleep(0.01)
    assert [(one["holder"], one["skills"]) for one in (await there())["waiting"]] == [
        ("anna", ["en", "sl"]),
        ("ben", []),
    ]
    task = (await enqueue(line, "a"))["taskId"]
    (held,) = await waits[0]
    now = await there()
    assert [one["holder"] for one in now["waiting"]] == ["ben"]
    (anna,) = now["holding"]
    (taken,) = anna["calls"]
    assert (anna["holder"], taken["taskId"], taken["ID"], taken["state"]) == ("anna", task, "a", "offered")
    await parts.queue.answer(held)
    await parts.queue.finish(held, EndReason.COMPLETED)
    now = await there()
    assert ([one["holder"] for one in now["resting"]], now["holding"]) == (["anna"], [])
    waits[1].cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    assert (await there())["waiting"] == []
