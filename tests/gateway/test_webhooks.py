"""Webhook endpoints over HTTP, and the whole way: enqueue, live, ended, each told to a real receiver."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from standardwebhooks.webhooks import Webhook

from switchroom.gateway.app import build_gateway
from switchroom.gateway.services import Services
from switchroom.net import Guard, GuardedClient
from switchroom.queue import EndReason, Queue
from switchroom.store import Store, keys
from switchroom.webhook_feed import WebhookFeed
from switchroom.webhooks import TYPES, SenderSettings, Webhooks

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "webhooks"))
from receiving import Receiver, until

FLOW = "/api/v1/openai-realtime/line"
HOOKS = f"{FLOW}/webhooks"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    await receiver.start()
    yield receiver
    await receiver.stop()


@pytest.fixture
async def hooked(
    parts: Services, store: Store, aiohttp_client: Callable[..., Awaitable[TestClient]]
) -> AsyncIterator[tuple[TestClient, Services]]:
    """A gateway with the realtime flow `line`, which may call loopback, and its webhooks at work."""
    out = GuardedClient(("127.0.0.1",))
    webhooks = Webhooks(store, out, settings=SenderSettings(timeout_s=2, first_retries_s=(0.2,) * 5))
    parts = dataclasses.replace(parts, guard=Guard(("127.0.0.1",)), webhooks=webhooks)
    start = {"id": "start_0", "data": {"id": "start_0", "name": "startRealtime", "label": "Start", "inputs": {}}}
    reply = {
        "id": "reply_0",
        "data": {
            "id": "reply_0",
            "name": "directReplyRealtime",
            "label": "Reply",
            "inputs": {"directReplyMessage": "Hello."},
        },
    }
    edge = {"id": "e", "source": "start_0", "sourceHandle": "start_0-output-0", "target": "reply_0"}
    await parts.flows.save({"nodes": [start, reply], "edges": [edge]}, flow_id="line", kind="realtime")
    await parts.flows.save({"nodes": [start, reply], "edges": [edge]}, flow_id="text", kind="text")
    feeding = asyncio.create_task(WebhookFeed(store, Queue(store), webhooks).run())
    yield await aiohttp_client(build_gateway(parts)), parts
    feeding.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await feeding
    await webhooks.close()
    await out.close()


async def call(client: TestClient, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    reply = await client.request(method, path, json=body)
    raw = await reply.read()
    return reply.status, (await reply.json(content_type=None)) if raw else None


async def test_enqueue_live_ended_are_told_to_the_callback_url(
    hooked: tuple[TestClient, Services], receiver: Receiver
) -> None:
    client, parts = hooked
    _, made = await call(client, "POST", f"{HOOKS}/callback/rotate")
    body = {"form": {"ID": "+38641656457"}, "callbackUrl": receiver.url}
    status, accepted = await call(client, "POST", f"{FLOW}/queue/enqueue", body)
    assert status == 202
    (held,) = await parts.queue.claim("line", "holder", answered=True)
    status, _ = await call(
        client,
        "POST",
        f"{FLOW}/queue/complete",
        {"taskId": accepted["taskId"], "outcome": "sold", "result": {"n": 2}},
    )
    assert status == 200
    await parts.queue.finish(held, EndReason.COMPLETED)
    await until(lambda: len(receiver.got) == 5)
    told = [Webhook(made["secret"]).verify(got.body, got.headers) for got in receiver.got]
    assert [one["type"] for one in told] == [
        "call.pending",
        "call.offered",
        "call.live",
        "call.wrapup",
        "call.ended",
    ]
    assert {one["data"]["taskId"] for one in told} == {accepted["taskId"]}
    last = told[-1]["data"]
    assert (last["status"], last["outcome"], last["result"]) == ("completed", "sold", {"n": 2})
    # and the log says the same
    status, page = await call(client, "GET", f"{HOOKS}/callback/deliveries")
    assert status == 200
    await until(lambda: len(receiver.got) == 5)
    assert sorted(one["type"] for one in page["deliveries"]) == sorted(one["type"] for one in told)
    assert {one["url"] for one in page["deliveries"]} == {receiver.url}
    assert page["nextCursor"] is None


async def test_a_status_leaves_within_a_tenth_of_a_second(
    hooked: tuple[TestClient, Services], receiver: Receiver
) -> None:
    client, _ = hooked
    body = {"form": {"ID": "1"}, "callbackUrl": receiver.url}
    await call(client, "POST", f"{FLOW}/queue/enqueue", body)  # the flow's first: makes the secret
    await until(lambda: len(receiver.got) == 1)
    waits = []
    loop = asyncio.get_running_loop()
    for number in range(20):
        begun = loop.time()
        await call(client, "POST", f"{FLOW}/queue/enqueue", {**body, "form": {"ID": f"caller-{number}"}})
        await until(lambda wanted=number + 2: len(receiver.got) == wanted)  # type: ignore[misc]
        waits.append(receiver.got[-1].at - begun)
    waits.sort()
    print(f"enqueue sent to webhook received: median {waits[10] * 1000:.1f} ms, most {waits[-1] * 1000:.1f} ms")
    assert waits[10] < 1.0, "woken, not polled"


async def test_an_endpoint_gets_what_it_asks_for(hooked: tuple[TestClient, Services], receiver: Receiver) -> None:
    client, parts = hooked
    status, made = await call(
        client, "POST", HOOKS, {"url": receiver.url, "types": ["call.ended"], "description": "CRM"}
    )
    assert status == 201
    assert made["secret"].startswith("whsec_")
    _, accepted = await call(client, "POST", f"{FLOW}/queue/enqueue", {"form": {"ID": "1"}})
    await call(client, "POST", f"{FLOW}/queue/cancel", {"taskId": accepted["taskId"]})
    await until(lambda: receiver.got)
    await asyncio.sleep(0.1)
    (got,) = receiver.got
    told = Webhook(made["secret"]).verify(got.body, got.headers)
    assert (told["type"], told["data"]["endReason"]) == ("call.ended", "cancelled")
    _, page = await call(client, "GET", f"{HOOKS}/{made['id']}/deliveries")
    (one,) = page["deliveries"]
    assert (one["state"], one["taskId"], one["id"]) == ("delivered", accepted["taskId"], got.id)
    assert [(each["status"], each.get("error")) for each in one["attempts"]] == [(204, None)]
    _, full = await call(client, "GET", f"{HOOKS}/{made['id']}/deliveries/{got.id}")
    assert full["body"] == told
    status, again = await call(client, "POST", f"{HOOKS}/{made['id']}/deliveries/{got.id}/redeliver")
    assert (status, again["state"]) == (202, "waiting")
    await until(lambda: len(receiver.got) == 2)
    assert receiver.got[1].id == got.id
    assert parts.webhooks is not None


async def test_what_was_given_up_is_listed_and_sent_again(
    hooked: tuple[TestClient, Services], receiver: Receiver
) -> None:
    client, _ = hooked
    receiver.answer = lambda got, number: 410
    _, made = await call(client, "POST", HOOKS, {"url": receiver.url})
    path = f"{HOOKS}/{made['id']}"
    for number in range(3):
        await call(client, "POST", f"{FLOW}/queue/enqueue", {"form": {"ID": f"{number}"}})

    async def failed() -> list[Any]:
        _, page = await call(client, "GET", f"{path}/deliveries?only=failed")
        return list(page["deliveries"])

    async def off() -> bool:
        return (await call(client, "GET", path))[1].get("disabledReason") == "gone"

    await until(off)
    await until(failed)
    given_up = {one["id"] for one in await failed()}
    status, problem = await call(client, "POST", f"{path}/redeliver-failed")
    assert (status, problem["code"]) == (409, "endpoint_disabled")
    assert (await call(client, "GET", f"{path}/deliveries?only=some"))[0] == 400
    receiver.answer = lambda got, number: 200
    await call(client, "PATCH", path, {"enabled": True})
    status, answer = await call(client, "POST", f"{path}/redeliver-failed")
    assert status == 202
    assert answer["count"] >= len(given_up)
    await until(lambda: {got.id for got in receiver.got[1:]} >= given_up)


async def test_endpoints_are_kept_changed_and_removed(hooked: tuple[TestClient, Services]) -> None:
    client, _ = hooked
    _, made = await call(client, "POST", HOOKS, {"url": "https://a.example/x"})
    path = f"{HOOKS}/{made['id']}"
    _, shown = await call(client, "GET", path)
    assert "secret" not in shown, "it is shown once"
    assert {**shown, "secret": made["secret"]} == made
    assert (shown["types"], shown["enabled"], shown["openMessages"]) == ([], True, 0)
    _, listed = await call(client, "GET", HOOKS)
    assert listed == [shown]
    status, changed = await call(client, "PATCH", path, {"types": ["call.live"], "enabled": False})
    assert status == 200
    assert (changed["types"], changed["enabled"], changed["url"]) == (["call.live"], False, "https://a.example/x")
    _, rotated = await call(client, "POST", f"{path}/rotate")
    assert rotated["secret"] not in (None, made["secret"])
    assert rotated["previousSecretUntil"]
    assert (await call(client, "DELETE", path))[0] == 204
    for method, tail in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/rotate"), ("GET", "/deliveries")):
        status, problem = await call(client, method, path + tail, {} if method == "PATCH" else None)
        assert (status, problem["code"]) == (404, "unknown_endpoint")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/url"),
        ([], ""),
        ({"url": 1}, "/url"),
        ({"url": "ftp://a.example/"}, "/url"),
        ({"url": "https://user:pw@a.example/"}, "/url"),
        ({"url": "http://10.0.0.1/"}, "/url"),
        ({"url": "http://[::1]/"}, "/url"),
        ({"url": "http://[::ffff:10.0.0.1]/"}, "/url"),
        ({"url": "https://a.example/", "types": ["call.live", "call.lost"]}, "/types/1"),
        ({"url": "https://a.example/", "types": "call.live"}, "/types"),
        ({"url": "https://a.example/", "description": "x" * 201}, "/description"),
        ({"url": "https://a.example/", "secret": "mine"}, "/secret"),
    ],
)
async def test_a_wrong_body_is_refused_with_its_place(
    hooked: tuple[TestClient, Services], body: Any, pointer: str
) -> None:
    client, _ = hooked
    status, problem = await call(client, "POST", HOOKS, body)
    assert status == 400
    assert problem["errors"][0]["pointer"] == pointer


async def test_flows_that_are_not_there_or_have_no_queue(hooked: tuple[TestClient, Services]) -> None:
    client, _ = hooked
    assert (await call(client, "GET", HOOKS.replace("line", "nobody")))[0] == 404
    status, problem = await call(client, "POST", HOOKS.replace("line", "text"), {"url": "https://a.example/"})
    assert (status, problem["code"]) == (409, "not_realtime")
    status, problem = await call(client, "PATCH", f"{HOOKS}/callback", {"enabled": False})
    assert status == 404, "callbacks have no secret before the first of them"
    await call(client, "POST", f"{HOOKS}/callback/rotate")
    status, problem = await call(client, "PATCH", f"{HOOKS}/callback", {"url": "https://a.example/"})
    assert (status, problem["errors"][0]["pointer"]) == (400, "/url")
    for cursor in ("x", "d", "d-1", "d1x", "d²"):
        assert (await call(client, "GET", f"{HOOKS}/callback/deliveries?cursor={cursor}"))[0] == 400


async def test_no_secret_is_in_a_log_or_a_problem(
    hooked: tuple[TestClient, Services], receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    client, _ = hooked
    caplog.set_level("DEBUG")
    receiver.answer = lambda got, number: 500 if number < 3 else 200
    _, made = await call(client, "POST", HOOKS, {"url": receiver.url})
    await call(client, "POST", f"{FLOW}/queue/enqueue", {"form": {"ID": "1"}})
    await until(lambda: len(receiver.got) >= 3)
    secret = made["secret"].removeprefix("whsec_")
    assert "webhook tried" in caplog.text
    assert secret not in caplog.text
    assert not any(secret in str(record.__dict__) for record in caplog.records)


async def test_the_document_describes_what_is_sent_as_it_is(
    hooked: tuple[TestClient, Services], receiver: Receiver
) -> None:
    client, _ = hooked
    _, document = await call(client, "GET", "/openapi.json")
    assert set(document["webhooks"]) == set(TYPES)
    schemas = document["components"]["schemas"]
    told = document["webhooks"]["call.ended"]["post"]
    name = told["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[-1]
    await call(client, "POST", f"{FLOW}/queue/enqueue", {"form": {"ID": "1"}, "callbackUrl": receiver.url})
    await until(lambda: receiver.got)
    message = receiver.got[0].json
    assert set(message) == set(schemas[name]["properties"])
    data = schemas[schemas[name]["properties"]["data"]["$ref"].rsplit("/", 1)[-1]]
    assert set(message["data"]) == set(data["properties"]) == set(data["required"])
    assert {one["name"] for one in told["parameters"]} <= set(receiver.got[0].headers)


async def test_a_deleted_flow_takes_its_endpoints_along(hooked: tuple[TestClient, Services]) -> None:
    client, parts = hooked
    await call(client, "POST", HOOKS, {"url": "https://a.example/"})
    await call(client, "POST", f"{HOOKS}/callback/rotate")
    assert (await call(client, "DELETE", "/api/v1/chatflows/line"))[0] == 200
    assert await parts.webhooks.endpoints.all("line") == []
    assert await parts.store.call("HGET", keys.queue_config("line"), "hooks") == b"0"


JUNK: list[Any] = [
    None,
    True,
    -1,
    2**70,
    1e300,
    "",
    "x" * 3_000,
    "\x00",
    "http://",
    "http://[",
    "https://a:99999/",
    [],
    {},
]
JUNK += [["call.live"] * 500, [None], {"url": {}}, "https://\ud800.example/".encode("utf-16", "surrogatepass").hex()]


async def test_no_body_and_no_name_makes_a_500(hooked: tuple[TestClient, Services]) -> None:
    client, _ = hooked
    _, made = await call(client, "POST", HOOKS, {"url": "https://a.example/"})
    bodies = [*JUNK, *({name: junk} for name in ("url", "types", "description", "enabled") for junk in JUNK)]
    bodies += [
        {"url": "https://a.example/", name: junk} for name in ("types", "description", "enabled") for junk in JUNK
    ]
    for body in bodies:
        for method, path in (("POST", HOOKS), ("PATCH", f"{HOOKS}/{made['id']}"), ("PATCH", f"{HOOKS}/x")):
            status, _ = await call(client, method, path, body)
            assert status in (200, 201, 400, 404, 409), (method, path, body)
    for name in ("%00", "..%2F..", "%7Bx%7D", "d%3A1", "☎", "x" * 2_000, "%ff"):
        for method, tail in (("GET", ""), ("DELETE", ""), ("POST", "/rotate"), ("GET", "/deliveries")):
            status, _ = await call(client, method, f"{HOOKS}/{name}{tail}")
            assert status in (400, 404), (method, name)
        status, _ = await call(client, "GET", f"{HOOKS}/{made['id']}/deliveries/{name}")
        assert status in (400, 404), name
