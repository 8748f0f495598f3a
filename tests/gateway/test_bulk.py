"""A campaign of calls, streamed in and answered line by line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient

from switchroom.gateway.services import Services

PATH = "/api/v1/openai-realtime/line/queue/enqueue/bulk"
JSON = {"Content-Type": "application/x-ndjson"}
CSV = {"Content-Type": "text/csv"}


@pytest.fixture(autouse=True)
async def flow(parts: Services, echo_canvas: dict[str, Any]) -> None:
    await parts.flows.save(echo_canvas, flow_id="line", kind="realtime")


async def answers(reply: ClientResponse) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    assert reply.status == 200, await reply.text()
    assert reply.content_type == "application/x-ndjson"
    *lines, done = [msgspec.json.decode(line) for line in (await reply.read()).splitlines()]
    return lines, done


def bodies(*ids: str) -> bytes:
    return b"".join(msgspec.json.encode({"form": {"ID": one}}) + b"\n" for one in ids)


async def test_each_line_has_its_answer_and_a_bad_one_stops_nothing(client: TestClient, parts: Services) -> None:
    data = bodies("a") + b'{"form": {}}\n\nnot json\n[1]\n' + bodies("b", "a")
    lines, done = await answers(await client.post(PATH, data=data, headers=JSON))
    assert [line["line"] for line in lines] == [1, 2, 4, 5, 6, 7]
    assert [line.get("accepted", False) for line in lines] == [True, False, False, False, True, True]
    assert [line["error"]["code"] for line in lines if "error" in line] == ["bad_input", "invalid_json", "bad_input"]
    assert lines[1]["error"]["errors"][0]["pointer"] == "/form/ID"
    assert lines[5]["taskId"] == lines[0]["taskId"]
    assert lines[5]["duplicate"] is True
    assert done == {"done": True, "lines": 6, "accepted": 3, "duplicates": 1, "rejected": 3}
    assert [row.caller_id for row in (await parts.queue.status("line")).pending] == ["a", "b"]


async def test_csv_fills_form_state_and_members(client: TestClient, parts: Services) -> None:
    data = 'ID,question,priority,state.crm.tier,idempotencyKey\r\n1,"Hi,\r\nyou",,gold,k\r\n2,,high,,\r\n3,,9,,\r\n'
    lines, _ = await answers(await client.post(PATH, data=data, headers=CSV))
    assert [line["line"] for line in lines] == [2, 4, 5]
    assert lines[1]["error"]["errors"][0]["pointer"] == "/priority"
    first = await parts.queue.get("line", lines[0]["taskId"])
    assert first is not None
    assert (first.form, first.memory) == ({"ID": "1", "question": "Hi,\r\nyou"}, {"crm": {"tier": "gold"}})
    assert [row.caller_id for row in (await parts.queue.status("line")).pending] == ["3", "1"]
    again, _ = await answers(
        await client.post(PATH, data=data.replace("1,", "1,", 1), headers=CSV, params={"answers": "errors"})
    )
    assert [line["line"] for line in again] == [4]


async def test_sent_again_under_the_same_key_it_makes_no_doubles(client: TestClient, parts: Services) -> None:
    await parts.flows.configure(await flow_of(parts), {"duplicates": "allow"})
    keyed = {**JSON, "Idempotency-Key": "campaign-1"}
    first, _ = await answers(await client.post(PATH, data=bodies("a", "b", "c"), headers=keyed))
    again, _ = await answers(await client.post(PATH, data=bodies("a", "b", "c", "d"), headers=keyed))
    assert [line["taskId"] for line in again[:3]] == [line["taskId"] for line in first]
    rest, done = await answers(
        await client.post(PATH, data=bodies("c", "d", "e"), headers=keyed, params={"firstLine": "3"})
    )
    assert [line["line"] for line in rest] == [3, 4, 5]
    assert [line["taskId"] for line in rest[:2]] == [line["taskId"] for line in again[2:]]
    assert done["accepted"] == 3
    other, _ = await answers(await client.post(PATH, data=bodies("z"), headers=keyed))
    assert other[0]["error"]["status"] == 422
    assert (await parts.queue.status("line")).pending_count == 5


async def flow_of(parts: Services) -> Any:
    flow = await parts.flows.get("line")
    assert flow is not None
    return flow


async def test_answers_come_while_lines_are_still_sent(client: TestClient) -> None:
    heard = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield bodies("a")
        await asyncio.wait_for(heard.wait(), 30)
        yield bodies("b")[:9]
        yield bodies("b")[9:]

    async with client.post(PATH, data=slowly(), headers=JSON) as reply:
        assert msgspec.json.decode(await reply.content.readline())["line"] == 1
        heard.set()
        assert msgspec.json.decode(await reply.content.readline())["line"] == 2
        assert msgspec.json.decode(await reply.content.readline())["done"]


async def test_a_client_that_leaves_stops_it(client: TestClient, parts: Services) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield bodies(f"caller-{sent}")
            await asyncio.sleep(0.001)

    async with client.post(PATH, data=endless(), headers=JSON) as reply:
        for _ in range(20):
            await reply.content.readline()
    await asyncio.sleep(0.2)
    there = (await parts.queue.status("line")).pending_count
    assert 20 <= there <= sent
    await asyncio.sleep(0.2)
    assert (await parts.queue.status("line")).pending_count == there


async def test_bounds_and_refusals(client: TestClient, make_services: Any, aiohttp_client: Any) -> None:
    assert (await client.post(PATH, data=b"{}", headers={"Content-Type": "application/json"})).status == 415
    for data in (b"", b"name\n1\n"):
        reply = await client.post(PATH, data=data, headers=CSV)
        assert (reply.status, (await reply.json())["code"]) == (400, "invalid_csv")
    assert (await client.post(PATH, data=b"", headers=JSON, params={"answers": "x"})).status == 400
    assert (await client.post(PATH.replace("line", "nobody"), data=b"", headers=JSON)).status == 404
    _, done = await answers(await client.post(PATH, data=b"", headers=JSON))
    assert done["lines"] == 0

    from switchroom.gateway.app import build_gateway

    small = await aiohttp_client(build_gateway(make_services(max_bulk_lines=2, max_body_bytes=60)))
    lines, done = await answers(await small.post(PATH, data=bodies("a", "b" * 60, "c", "d"), headers=JSON))
    assert [line["error"]["code"] for line in lines if "error" in line] == ["too_large", "too_many_lines"]
    assert [line["line"] for line in lines] == [1, 2, 3]
    assert done["lines"] == 3
