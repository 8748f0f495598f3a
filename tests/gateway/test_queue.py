"""The queue's dialect over HTTP: every answer of the contract, word for word."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from pydantic import SecretStr

from switchroom.errors import BadInput
from switchroom.gateway import enqueue_body
from switchroom.gateway.app import build_gateway
from switchroom.gateway.reply import rfc3339
from switchroom.gateway.services import Services
from switchroom.net import Guard
from switchroom.queue import EndReason

BASE = "/api/v1/openai-realtime/line/queue"
CALLER = "+38641656457"


@pytest.fixture
async def line(parts: Services, client: TestClient) -> TestClient:
    """A client of a gateway with one realtime flow, `line`, and one text flow, `text`."""
    start = {
        "id": "start_0",
        "type": "agentFlow",
        "position": {"x": 0, "y": 0},
        "data": {"id": "start_0", "name": "startRealtime", "label": "Start", "version": 1, "inputs": {}},
    }
    reply = {
        "id": "reply_0",
        "type": "agentFlow",
        "position": {"x": 9, "y": 0},
        "data": {
            "id": "reply_0",
            "name": "directReplyRealtime",
            "label": "Reply",
            "version": 1,
            "inputs": {"directReplyMessage": "Hello."},
        },
    }
    edge = {"id": "e", "source": "start_0", "sourceHandle": "start_0-output-0", "target": "reply_0"}
    canvas = {"nodes": [start, reply], "edges": [edge]}
    await parts.flows.save(canvas, flow_id="line", kind="realtime")
    await parts.flows.save(canvas, flow_id="text", kind="text")
    return client


async def enqueue(client: TestClient, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
    reply = await client.post(f"{BASE}/enqueue", json=body, headers=headers)
    return reply.status, await reply.json()


async def task_of(client: TestClient, caller: str = CALLER, **more: Any) -> str:
    status, body = await enqueue(client, {"form": {"ID": caller}, **more})
    assert status == 202, body
    return str(body["taskId"])


async def test_enqueue_answers_as_the_contract_says(line: TestClient) -> None:
    status, body = await enqueue(line, {"form": {"id": CALLER, "ticket": "T-17"}, "state": {"crm": {"tier": "gold"}}})
    assert status == 202
    assert (body["accepted"], body["pendingCount"]) == (True, 1)
    prefix, _, unique = body["taskId"].partition("-")
    assert prefix == "flowise"
    assert uuid.UUID(unique).version == 4
    assert (body["position"], body["estimatedWaitSeconds"]) == (1, 0)
    task = await (await line.get(f"{BASE}/status", params={"taskId": body["taskId"]})).json()
    assert task["form"] == {"ID": CALLER, "ticket": "T-17"}
    assert task["sessionState"] == {"crm": {"tier": "gold"}}
    assert (task["state"], task["status"], task["position"]) == ("pending", "pending", 1)
    assert [change["cause"] for change in task["history"]] == ["enqueued"]


@pytest.mark.parametrize("spelling", ["ID", "id", "Id", "iD"])
async def test_the_id_is_found_in_any_case_and_stored_as_ID(line: TestClient, spelling: str) -> None:
    task = await task_of_form(line, {spelling: " 77 "})
    assert task["form"] == {"ID": "77"}
    assert task["ID"] == "77"


@pytest.mark.parametrize(
    ("value", "text"),
    [(38641656457, "38641656457"), (12.0, "12"), (1e5, "100000"), (1.5, "1.5"), (-3, "-3"), (0, "0"), (-0.0, "0")],
)
async def test_a_number_becomes_its_decimal_string(line: TestClient, value: float, text: str) -> None:
    assert (await task_of_form(line, {"ID": value}))["ID"] == text


async def task_of_form(client: TestClient, form: dict[str, Any]) -> dict[str, Any]:
    status, body = await enqueue(client, {"form": form})
    assert status == 202, body
    reply = await client.get(f"{BASE}/status", params={"taskId": body["taskId"]})
    return dict(await reply.json())


async def test_two_spellings_with_one_value_are_one_id(line: TestClient) -> None:
    assert (await task_of_form(line, {"id": "5", "ID": 5}))["form"] == {"ID": "5"}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/form"),
        ({"form": None}, "/form"),
        ({"form": "x"}, "/form"),
        ({"form": []}, "/form"),
        ({"form": {}}, "/form/ID"),
        ({"form": {"ID": ""}}, "/form/ID"),
        ({"form": {"ID": "  \t"}}, "/form/ID"),
        ({"form": {"ID": None}}, "/form/ID"),
        ({"form": {"ID": True}}, "/form/ID"),
        ({"form": {"ID": ["1"]}}, "/form/ID"),
        ({"form": {"ID": {"a": 1}}}, "/form/ID"),
        ({"form": {"ID": "x" * 257}}, "/form/ID"),
        ({"form": {"ID": "a\u0000b"}}, "/form/ID"),
        ({"form": {"ID": "1", "id": "2"}}, "/form/ID"),
        ({"form": {"ID": "1", "question": 5}}, "/form/question"),
        ({"form": {"ID": "1"}, "state": []}, "/state"),
        ({"form": {"ID": "1"}, "state": "x"}, "/state"),
        ({"form": {"ID": "1"}, "priority": "1"}, "/priority"),
        ({"form": {"ID": "1"}, "priority": 1.5}, "/priority"),
        ({"form": {"ID": "1"}, "priority": True}, "/priority"),
        ({"form": {"ID": "1"}, "priority": 10**9}, "/priority"),
        ({"form": {"ID": "1"}, "notBefore": "tomorrow"}, "/notBefore"),
        ({"form": {"ID": "1"}, "notBefore": "2030-01-01T00:00:00"}, "/notBefore"),
        ({"form": {"ID": "1"}, "expiresAt": 5}, "/expiresAt"),
        (
            {"form": {"ID": "1"}, "notBefore": "2090-01-01T00:00:00Z", "expiresAt": "2089-01-01T00:00:00Z"},
            "/expiresAt",
        ),
        ({"form": {"ID": "1"}, "maxAttempts": 0}, "/maxAttempts"),
        ({"form": {"ID": "1"}, "skills": "a"}, "/skills"),
        ({"form": {"ID": "1"}, "skills": [1]}, "/skills"),
        ({"form": {"ID": "1"}, "skills": ["@cc"]}, "/skills"),
        ({"form": {"ID": "1"}, "skills": [" @cc"]}, "/skills"),
        ({"form": {"ID": "1"}, "notBefore": "2090-W01-1T00:00:00Z"}, "/notBefore"),
        ({"form": {"ID": "1"}, "ccBaseUrl": "http://127.1/"}, "/ccBaseUrl"),
        ({"form": {"ID": "1"}, "ccBaseUrl": "http://0x7f000001"}, "/ccBaseUrl"),
        ({"form": {"ID": "1"}, "ccBaseUrl": "http://2130706433"}, "/ccBaseUrl"),
        ({"form": {"ID": "1"}, "ccBaseUrl": "http://10.0.0.1."}, "/ccBaseUrl"),
        ({"form": {"ID": "1"}, "ccBaseUrl": "http://localhost./"}, "/ccBaseUrl"),
        ({"form": {"ID": "1"}, "ccBaseUrl": "ftp://x.example"}, "/ccBaseUrl"),
        ({"form": {"ID": "1"}, "ccBaseUrl": "unity.example"}, "/ccBaseUrl"),
        ({"form": {"ID": "1"}, "ccBaseUrl": "https://a:b@unity.example"}, "/ccBaseUrl"),
        ({"form": {"ID": "1"}, "ccBaseUrl": "http://10.0.0.7/"}, "/ccBaseUrl"),
        ({"form": {"ID": "1"}, "ccBaseUrl": "http://[::1]:80/"}, "/ccBaseUrl"),
        ({"form": {"ID": "1"}, "ccBaseUrl": "http://169.254.1.1"}, "/ccBaseUrl"),
        ({"form": {"ID": "1"}, "ccBaseUrl": "http://localhost:9/"}, "/ccBaseUrl"),
        ({"form": {"ID": "1"}, "callbackUrl": "http://127.0.0.1/"}, "/callbackUrl"),
        ({"form": {"ID": "1"}, "callbackUrl": 3}, "/callbackUrl"),
        ([], ""),
        ("x", ""),
    ],
)
async def test_bad_input_is_named_with_its_place_and_nothing_is_queued(
    line: TestClient, body: Any, pointer: str
) -> None:
    status, problem = await enqueue(line, body)
    assert status == 400
    assert problem["status"] == 400
    assert [fault["pointer"] for fault in problem["errors"]] == [pointer]
    assert problem["errors"][0]["detail"]
    assert (await (await line.get(f"{BASE}/status")).json())["pendingCount"] == 0


async def test_problems_are_problem_json_with_a_correlation_id(line: TestClient) -> None:
    reply = await line.post(f"{BASE}/enqueue", data=b"{not json", headers={"X-Correlation-Id": "mine-1"})
    assert reply.status == 400
    assert reply.content_type == "application/problem+json"
    problem = await reply.json()
    assert {"type", "title", "status", "detail", "instance", "code", "correlationId"} <= set(problem)
    assert problem["correlationId"] == reply.headers["X-Correlation-Id"] == "mine-1"
    assert (await line.post(f"{BASE}/enqueue", data=b"")).status == 400
    assert (await line.post(f"{BASE}/enqueue", data=b"\xff\xfe")).status == 400


async def test_too_large_unknown_and_not_realtime(line: TestClient) -> None:
    status, problem = await enqueue(line, {"form": {"ID": "1", "x": "y" * (1 << 20)}})
    assert (status, problem["status"]) == (413, 413)
    reply = await line.post("/api/v1/openai-realtime/nobody/queue/enqueue", json={"form": {"ID": "1"}})
    assert reply.status == 404
    reply = await line.post("/api/v1/openai-realtime/text/queue/enqueue", json={"form": {"ID": "1"}})
    assert reply.status == 409
    assert reply.content_type == "application/problem+json"


async def test_a_connection_with_a_broken_body_is_closed_and_says_so(line: TestClient) -> None:
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    for _ in range(3):
        reply = await line.post(f"{BASE}/enqueue", data=b"no gzip", headers=headers)
        assert (reply.status, reply.headers["Connection"]) == (400, "close")
        assert await task_of(line)


async def test_keys(
    parts: Services,
    line: TestClient,
    make_services: Callable[..., Services],
    aiohttp_client: Callable[..., Awaitable[TestClient]],
) -> None:
    locked = await aiohttp_client(build_gateway(make_services(configured=(SecretStr("k" * 20),))))
    body = {"form": {"ID": "1"}}
    assert (await locked.post(f"{BASE}/enqueue", json=body)).status == 401
    assert (await locked.post(f"{BASE}/enqueue", json=body, headers={"Authorization": "Bearer no"})).status == 401
    good = {"Authorization": "Bearer " + "k" * 20}
    assert (await locked.post(f"{BASE}/enqueue", json=body, headers=good)).status == 202


async def test_duplicates_join_by_default(line: TestClient) -> None:
    first = await task_of(line)
    status, body = await enqueue(line, {"form": {"ID": CALLER, "ticket": "new"}})
    assert status == 202
    assert (body["taskId"], body["accepted"], body["duplicate"], body["pendingCount"]) == (first, True, True, 1)


async def test_duplicates_may_be_rejected(parts: Services, line: TestClient) -> None:
    flow = await parts.flows.get("line")
    assert flow is not None
    await parts.flows.save(flow.canvas, flow_id="line", settings={"duplicates": "reject"}, kind="realtime")
    first = await task_of(line)
    status, problem = await enqueue(line, {"form": {"ID": CALLER}})
    assert (status, problem["taskId"]) == (409, first)


async def test_idempotency_key(line: TestClient) -> None:
    body = {"form": {"ID": "1", "a": 1}}
    first = await enqueue(line, body, **{"Idempotency-Key": "k-1"})
    again = await enqueue(line, {"form": {"a": 1, "ID": "1"}}, **{"Idempotency-Key": "k-1"})
    assert first == again
    assert (await enqueue(line, {"form": {"ID": "2"}}, **{"Idempotency-Key": "k-1"}))[0] == 422
    assert (await enqueue(line, body, **{"Idempotency-Key": "x" * 256}))[0] == 400


async def test_status_lists_pages_and_statistics(parts: Services, line: TestClient) -> None:
    tasks = [await task_of(line, f"c{n}") for n in range(5)]
    held = (await parts.queue.claim("line", "w"))[0]
    await parts.queue.answer(held)
    body = await (await line.get(f"{BASE}/status", params={"limit": 2})).json()
    assert (body["enabled"], body["pendingCount"], body["activeCount"], body["concurrency"]) == (True, 4, 1, 4)
    assert [row["taskId"] for row in body["active"]] == [tasks[0]]
    assert (body["active"][0]["state"], body["active"][0]["attempt"]) == ("live", 1)
    assert [(row["taskId"], row["position"]) for row in body["pending"]] == [(tasks[1], 1), (tasks[2], 2)]
    assert set(body["stats"]) >= {
        "answered",
        "abandoned",
        "failed",
        "serviceLevel",
        "averageHandleSeconds",
        "longestWaitSeconds",
    }
    assert body["stats"]["answered"] == 1
    page = await (await line.get(f"{BASE}/status", params={"limit": 2, "cursor": body["nextCursor"]})).json()
    assert [row["taskId"] for row in page["pending"]] == tasks[3:]
    assert page["nextCursor"] is None
    for query in ({"limit": "0"}, {"limit": "x"}, {"cursor": "9"}, {"wait": "-1"}):
        assert (await line.get(f"{BASE}/status", params=query)).status == 400
    assert (await line.get(f"{BASE}/status", params={"taskId": "flowise-no"})).status == 404


async def test_etag_and_long_poll(line: TestClient) -> None:
    task = await task_of(line)
    query = {"taskId": task}
    reply = await line.get(f"{BASE}/status", params=query)
    etag = reply.headers["ETag"]
    same = await line.get(f"{BASE}/status", params=query, headers={"If-None-Match": etag})
    assert (same.status, await same.read()) == (304, b"")
    waiting = asyncio.create_task(
        line.get(f"{BASE}/status", params={**query, "wait": "10"}, headers={"If-None-Match": etag})
    )
    await asyncio.sleep(0.1)
    await task_of(line, "another")
    await asyncio.sleep(0.1)
    assert not waiting.done(), "who waits for one call is not told of the others"
    await line.post(f"{BASE}/cancel", json={"taskId": task, "reason": "no need"})
    changed = await asyncio.wait_for(waiting, 3)
    assert changed.status == 200
    assert (await changed.json())["endReason"] == "cancelled"
    quiet = await line.get(
        f"{BASE}/status", params={**query, "wait": "1"}, headers={"If-None-Match": changed.headers["ETag"]}
    )
    assert quiet.status == 304


async def test_verbs(parts: Services, line: TestClient) -> None:
    async def verb(name: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        reply = await line.post(f"{BASE}/{name}", json=body)
        return reply.status, await reply.json()

    assert await verb("toggle") == (200, {"enabled": False})
    assert await verb("toggle", {"enabled": True}) == (200, {"enabled": True})
    assert (await verb("toggle", {"enabled": "yes"}))[0] == 400
    task = await task_of(line)
    assert (await verb("complete"))[0] == 409
    assert (await verb("complete", {"taskId": task}))[0] == 409
    held = (await parts.queue.claim("line", "w"))[0]
    await parts.queue.answer(held)
    assert (await verb("remove", {"taskId": task}))[0] == 409
    status, body = await verb("complete", {"taskId": task, "outcome": "sold", "result": {"n": 2}})
    assert (status, body["endReason"]) == (200, "completed")
    await parts.queue.finish(held, EndReason.COMPLETED)
    assert await verb("complete", {"taskId": task}) == (
        200,
        {"taskId": task, "state": "ended", "status": "completed", "endReason": "completed"},
    )
    ended = await (await line.get(f"{BASE}/status", params={"taskId": task})).json()
    assert (ended["status"], ended["outcome"], ended["result"]) == ("completed", "sold", {"n": 2})
    for name in ("cancel", "remove"):
        assert (await verb(name, {}))[0] == 400
        assert (await verb(name, {"taskId": 5}))[0] == 400
        assert (await verb(name, {"taskId": "flowise-x"}))[0] == 404
        assert (await verb(name, {"taskId": task}))[0] == 200
    await task_of(line, "a")
    await task_of(line, "b")
    assert await verb("clear") == (200, {"removed": 2})
    assert await verb("clear", {}) == (200, {"removed": 0})
    assert (await verb("clear", []))[0] == 400


async def test_a_waiting_call_is_changed(line: TestClient) -> None:
    async def change(**body: Any) -> tuple[int, dict[str, Any]]:
        reply = await line.post(f"{BASE}/change", json=body)
        return reply.status, await reply.json()

    first, second = await task_of(line, "a"), await task_of(line, "b")
    assert await change(taskId=second, priority=5) == (
        200,
        {"taskId": second, "state": "pending", "position": 1, "estimatedWaitSeconds": 0},
    )
    at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert await change(taskId=first, notBefore=at) == (200, {"taskId": first, "state": "scheduled"})
    status, body = await change(taskId=first, notBefore=None, expiresAt="2090-01-01T00:00:00Z")
    assert (status, body["state"], body["position"]) == (200, "pending", 2)
    task = await (await line.get(f"{BASE}/status", params={"taskId": first})).json()
    assert task["expiresAt"] == "2090-01-01T00:00:00.000Z"
    assert [one["detail"] for one in task["history"]][1:] == [
        f"notBefore {at}",
        "notBefore now, expiresAt 2090-01-01T00:00:00Z",
    ]
    for wrong, pointer in (
        ({}, "/taskId"),
        ({"taskId": first}, ""),
        ({"taskId": first, "priority": "high"}, "/priority"),
        ({"taskId": first, "priority": 5_000}, "/priority"),
        ({"taskId": first, "notBefore": "soon"}, "/notBefore"),
        ({"taskId": first, "expires": None}, "/expires"),
        ({"taskId": first, "notBefore": at, "expiresAt": "2020-01-01T00:00:00Z"}, "/expiresAt"),
    ):
        status, body = await change(**wrong)
        assert (status, body["errors"][0]["pointer"]) == (400, pointer), body
    assert (await change(taskId="flowise-no", priority=1))[0] == 404
    await line.post(f"{BASE}/cancel", json={"taskId": first})
    assert (await change(taskId=first, priority=1))[0] == 409


async def test_callback_is_scheduled(line: TestClient) -> None:
    at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    status, body = await enqueue(line, {"form": {"ID": "1"}, "notBefore": at})
    assert (status, body["pendingCount"]) == (202, 0)
    assert "position" not in body
    task = await (await line.get(f"{BASE}/status", params={"taskId": body["taskId"]})).json()
    assert task["state"] == "scheduled"


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2090-01-01t00:00:00z", "2090-01-01T00:00:00.000Z"),
        ("2090-01-01T02:00:00.250000001+02:00", "2090-01-01T00:00:00.250Z"),
        ("2089-12-31T23:59:60Z", "2090-01-01T00:00:00.000Z"),
    ],
)
def test_every_time_of_rfc_3339_is_read(text: str, at: str) -> None:
    call = enqueue_body.parse({"form": {"ID": "1"}, "notBefore": text}, None, Guard())
    assert rfc3339(call.not_before_ms or 0) == at


async def test_a_kiosk_on_the_lan_can_be_allowed(line: TestClient) -> None:
    assert await task_of(line, "pub", ccBaseUrl="https://unity.example.com/base")
    lan = {"form": {"ID": "1"}, "ccBaseUrl": "http://10.0.0.7:7700"}
    assert enqueue_body.parse(lan, None, Guard(("10.0.0.0/8",))).cc_base_url == "http://10.0.0.7:7700"
    with pytest.raises(BadInput):
        enqueue_body.parse(lan, None, Guard(("192.168.0.0/16",)))
