"""Live changes as server-sent events: complete over a reconnect, told when they cannot be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient

from switchroom.gateway import queue_events
from switchroom.gateway.enqueue import rules_of
from switchroom.gateway.services import Services
from switchroom.queue import EndReason, NewCall
from switchroom.store import keys

PATH = "/api/v1/openai-realtime/line/queue/events"


@pytest.fixture(autouse=True)
async def flow(parts: Services, echo_canvas: dict[str, Any]) -> None:
    await parts.flows.save(echo_canvas, flow_id="line", kind="realtime")


async def enqueue(parts: Services, caller: str) -> str:
    flow = await parts.flows.get("line")
    assert flow is not None
    return (await parts.queue.enqueue("line", NewCall(form={"ID": caller}), rules_of(flow))).task_id


async def frames(reply: ClientResponse) -> AsyncIterator[dict[str, str]]:
    """Each frame's fields; a comment as `comment`."""
    assert reply.status == 200, await reply.text()
    assert reply.content_type == "text/event-stream"
    fields: dict[str, str] = {}
    async for raw in reply.content:
        line = raw.decode().rstrip("\n")
        if not line:
            yield fields
            fields = {}
        else:
            name, _, value = line.partition(":")
            fields[name or "comment"] = value.strip()


async def take(reply: ClientResponse, count: int) -> list[tuple[str, str, dict[str, Any]]]:
    """The next events: ID, name, data."""
    found = []
    async with asyncio.timeout(30):
        async for frame in frames(reply):
            if "data" in frame:
                found.append((frame["id"], frame["event"], msgspec.json.decode(frame["data"])))
                if len(found) == count:
                    break
    return found


async def test_each_change_of_a_call_comes_at_once(client: TestClient, parts: Services) -> None:
    await enqueue(parts, "earlier")
    async with client.get(PATH) as reply:
        began = time.perf_counter()
        task = await enqueue(parts, "+1")
        ((_, name, data),) = await take(reply, 1)
        assert time.perf_counter() - began < 5
        assert (name, data["taskId"], data["ID"], data["cause"]) == ("call.pending", task, "+1", "enqueued")
        held = await parts.queue.claim_call("line", task, "me")
        await parts.queue.answer(held)
        await parts.queue.finish(held, EndReason.COMPLETED)
        found = await take(reply, 4)
    assert [name for _, name, _ in found] == ["call.offered", "call.live", "call.wrapup", "call.ended"]
    last = found[-1][2]
    assert (last["status"], last["endReason"], last["attempt"], last["flowId"]) == ("completed", "completed", 1, "line")
    assert found[0][2]["holder"] == "me"


async def test_a_client_that_comes_back_misses_nothing(client: TestClient, parts: Services) -> None:
    async with client.get(PATH) as reply:
        async for frame in frames(reply):  # an ID comes before any event
            if "id" in frame:
                seen = frame["id"]
                break
    tasks = [await enqueue(parts, f"+{number}") for number in range(300)]
    async with client.get(PATH, headers={"Last-Event-ID": seen}) as reply:
        found = await take(reply, 300)
    assert [data["taskId"] for _, _, data in found] == tasks
    async with client.get(PATH, params={"lastEventId": found[99][0], "taskId": tasks[250]}) as reply:
        assert [data["taskId"] for _, _, data in await take(reply, 1)] == [tasks[250]]
    async with client.get(PATH, params={"lastEventId": "0"}) as reply:
        assert len(await take(reply, 300)) == 300


async def test_a_client_behind_what_is_kept_is_told(client: TestClient, parts: Services) -> None:
    await enqueue(parts, "old")
    ((first, *_),) = await parts.store.call("XRANGE", keys.queue_events("line"), "-", "+", "COUNT", 1)
    for number in range(5):
        await enqueue(parts, f"+{number}")
    await parts.store.call("XTRIM", keys.queue_events("line"), "MAXLEN", 2)
    async with client.get(PATH, headers={"Last-Event-ID": first.decode()}) as reply:
        ((_, name, data),) = await take(reply, 1)
        assert (name, data["after"]) == ("reset", first.decode())
        task = await enqueue(parts, "new")
        ((_, name, data),) = await take(reply, 1)
        assert (name, data["taskId"]) == ("call.pending", task)


async def reads(parts: Services) -> set[str]:
    """The connections that wait in a read of a stream, of whichever test of this server."""
    clients = (await parts.store.call("CLIENT", "LIST")).decode().splitlines()
    return {line.split()[0] for line in clients if "cmd=xread" in line}


async def test_many_clients_share_one_read(client: TestClient, parts: Services) -> None:
    replies = [await client.get(PATH)]
    await asyncio.sleep(0.3)  # its read has begun
    with_one = await reads(parts)
    replies += [await client.get(PATH) for _ in range(39)]
    await asyncio.sleep(0.3)
    assert with_one
    assert await reads(parts) <= with_one
    task = await enqueue(parts, "+1")
    found = await asyncio.gather(*(take(reply, 1) for reply in replies))
    for reply in replies:
        reply.close()
    assert [data["taskId"] for [(_, _, data)] in found] == [task] * 40


async def test_silence_is_filled_and_bad_ids_are_refused(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_events, "HEARTBEAT_S", 0.05)
    async with client.get(PATH) as reply:
        comments = 0
        async for frame in frames(reply):
            comments += "comment" in frame
            if comments == 3:
                break
    assert (await client.get(PATH, params={"lastEventId": "x"})).status == 400
    assert (await client.get(PATH.replace("line", "nobody"))).status == 404


async def test_a_server_that_stops_does_not_wait_for_its_readers(client: TestClient) -> None:
    reply = await client.get(PATH)
    began = time.monotonic()
    await client.server.close()
    assert time.monotonic() - began < 10
    reply.close()
