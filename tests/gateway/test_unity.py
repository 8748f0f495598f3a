"""Calls with a `ccBaseUrl`: offered at that address by a signed POST to a real receiver, and held by its pings."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from standardwebhooks import Webhook

from switchroom.dispatch import Dispatcher
from switchroom.gateway.app import build_gateway
from switchroom.gateway.services import Services
from switchroom.housekeeping import Housekeeping
from switchroom.net import Guard, GuardedClient
from switchroom.queue import Queue

BASE = "/api/v1/openai-realtime/line/queue"
OFFER_MS = 1_800
LEASE_MS = 2_000

Answer = Callable[[dict[str, Any]], Awaitable[web.Response]]


class Unity:
    """A Unity client's side: takes offers at `/cc/offer`, verifies them, and answers as it is told to."""

    def __init__(self) -> None:
        self.offers: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.secret = ""
        self.answers: list[Any] = []
        self.first_answers: dict[str, Any] = {}
        """What the first offer of a caller's call is answered."""
        self.heard_at: list[float] = []
        self._came = asyncio.Condition()

    async def take(self, request: web.Request) -> web.Response:
        raw = await request.text()
        if self.secret:
            Webhook(self.secret).verify(raw, dict(request.headers))
        body = await request.json()
        async with self._came:
            self.ids.append(request.headers["webhook-id"])
            self.offers.append(body["data"])
            self.heard_at.append(time.monotonic())
            self._came.notify_all()
        answer = self.first_answers.pop(body["data"]["ID"], None)
        if answer is None:
            answer = self.answers.pop(0) if self.answers else {"accepted": True}
        if isinstance(answer, float):
            await asyncio.sleep(answer)
            answer = {"accepted": True}
        return web.Response(status=answer) if isinstance(answer, int) else web.json_response(answer)

    async def offer(self, number: int) -> dict[str, Any]:
        async with asyncio.timeout(30), self._came:
            await self._came.wait_for(lambda: len(self.offers) >= number)
        return self.offers[number - 1]


@pytest.fixture
async def unity(aiohttp_server: Callable[..., Awaitable[TestServer]]) -> AsyncIterator[tuple[Unity, str]]:
    kiosk = Unity()
    app = web.Application()
    app.router.add_post("/cc/offer", kiosk.take)
    server = await aiohttp_server(app)
    yield kiosk, f"http://127.0.0.1:{server.port}/cc"


@contextlib.asynccontextmanager
async def dispatching(parts: Services, allow: tuple[str, ...] = ("127.0.0.1",)) -> AsyncIterator[Dispatcher]:
    """A dispatcher and housekeeping as an API process runs them; its own queue, so that it waits as another process."""
    queue = Queue(parts.store)
    async with GuardedClient(allow) as client:
        dispatcher = Dispatcher(
            parts.store, queue, parts.flows, parts.webhooks.endpoints, client, offer_ms=OFFER_MS, lease_ms=LEASE_MS
        )
        dispatcher.base_url = "http://switchroom.test"
        keeper = Housekeeping(parts.store, queue, parts.executions, call_hours=1, record_days=1)
        tasks = [asyncio.create_task(work) for work in (dispatcher.run(), keeper.run())]
        try:
            yield dispatcher
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await queue.close()


@pytest.fixture
def parts(make_services: Callable[..., Services]) -> Services:
    return dataclasses.replace(make_services(kiosk_lease_ms=LEASE_MS), guard=Guard(("127.0.0.1",)))


@pytest.fixture
async def line(parts: Services, client: TestClient, echo_canvas: dict[str, Any]) -> TestClient:
    await parts.flows.save(echo_canvas, flow_id="line", kind="realtime")
    return client


async def post(client: TestClient, verb: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    reply = await client.post(f"{BASE}/{verb}", json=body)
    return reply.status, await reply.json()


async def enqueue(client: TestClient, url: str, caller: str = "+1", **more: Any) -> str:
    status, body = await post(client, "enqueue", {"form": {"ID": caller}, "ccBaseUrl": url, **more})
    assert status == 202, body
    return str(body["taskId"])


async def reaches(client: TestClient, task: str, state: str, within_s: float = 30) -> dict[str, Any]:
    """The call, once it is in a state."""
    deadline = time.monotonic() + within_s
    etag = ""
    while time.monotonic() < deadline:
        waits = {"wait": "1"} if etag else {}
        headers = {"If-None-Match": etag} if etag else {}
        reply = await client.get(f"{BASE}/status", params={"taskId": task, **waits}, headers=headers)
        if reply.status == 200:
            body = await reply.json()
            etag = reply.headers["ETag"]
            if body["state"] == state:
                return dict(body)
    raise AssertionError(f"not {state}: {body}")


async def test_a_signed_offer_is_taken_pinged_and_completed(
    line: TestClient, parts: Services, unity: tuple[Unity, str]
) -> None:
    kiosk, url = unity
    _, kiosk.secret = await parts.webhooks.endpoints.rotate("line", "callback")
    async with dispatching(parts):
        task = await enqueue(line, url, state={"crm": {"tier": "gold"}})
        began = time.perf_counter()
        offer = await kiosk.offer(1)
        assert time.perf_counter() - began < 5
        assert (offer["taskId"], offer["form"], offer["attempt"]) == (task, {"ID": "+1"}, 1)
        assert offer["state"] == {"active_agent_id": None, "current_media_prompts": [], "crm": {"tier": "gold"}}
        assert len(offer["sessionContext"]["sessionId"]) == 36
        assert offer["pingUrl"] == f"http://switchroom.test{BASE}/ping"
        await reaches(line, task, "live")
        held = {"taskId": task, "token": offer["token"]}
        for _ in range(5):  # longer than the lease in all
            assert await post(line, "ping", held) == (200, {"taskId": task, "state": "live", "leaseSeconds": 2})
            await asyncio.sleep(LEASE_MS / 3000)
        status, body = await post(line, "complete", {**held, "outcome": "sold", "result": {"n": 1}})
        assert (status, body["state"], body["status"]) == (200, "ended", "completed")
        assert await post(line, "complete", held) == (200, body)
        status, body = await post(line, "ping", held)
        assert (status, body["code"], body["state"], body["endReason"]) == (409, "lease_lost", "ended", "completed")
    detail = await reaches(line, task, "ended")
    assert (detail["outcome"], detail["result"]) == ("sold", {"n": 1})
    assert [change["state"] for change in detail["history"]] == ["pending", "offered", "live", "wrapup", "ended"]


async def test_nobody_else_gets_its_calls_and_it_gets_no_others(
    line: TestClient, parts: Services, unity: tuple[Unity, str]
) -> None:
    kiosk, url = unity
    task = await enqueue(line, url, "unity-call")
    other = await post(line, "enqueue", {"form": {"ID": "plain"}})
    assert [held.call.caller_id for held in await parts.queue.claim("line", "somebody", limit=9)] == ["plain"]
    await parts.queue.cancel("line", other[1]["taskId"])
    await post(line, "enqueue", {"form": {"ID": "plain-2"}})
    async with dispatching(parts):
        await reaches(line, task, "live")
        await asyncio.sleep(0.2)
    assert [offer["ID"] for offer in kiosk.offers] == ["unity-call"]


async def test_a_refused_call_is_offered_again_after_a_while(
    line: TestClient, parts: Services, unity: tuple[Unity, str]
) -> None:
    kiosk, url = unity
    flow = await parts.flows.get("line")
    assert flow is not None
    await parts.flows.configure(flow, {"refuse_backoff_s": 1})
    await parts.queue.configure("line", (await rules(parts)))
    refusals = [{"accepted": False, "reason": "lunch"}, 409, 404, {"hello": 1}]
    kiosk.first_answers = {f"+{number}": refusal for number, refusal in enumerate(refusals)}
    async with dispatching(parts), dispatching(parts):  # two processes: the other one leaves them alone as well
        tasks = {caller: await enqueue(line, url, caller) for caller in list(kiosk.first_answers)}
        await kiosk.offer(8)
        for caller, task in tasks.items():
            detail = await reaches(line, task, "live")
            assert "refused" in [change["cause"] for change in detail["history"]]
            (first, at), (second, again) = [
                (offer, at) for offer, at in zip(kiosk.offers, kiosk.heard_at, strict=True) if offer["ID"] == caller
            ]
            assert again - at > 0.8
            assert (second["attempt"], second["token"] > first["token"]) == (2, True)
            status, body = await post(line, "ping", {"taskId": task, "token": first["token"]})
            assert (status, body["code"]) == (409, "lease_lost")
    assert len(kiosk.offers) == 8


async def rules(parts: Services) -> Any:
    from switchroom.gateway.enqueue import rules_of

    flow = await parts.flows.get("line")
    assert flow is not None
    return rules_of(flow)


async def test_a_client_that_is_down_is_asked_again_within_the_deadline(
    line: TestClient, parts: Services, unity: tuple[Unity, str]
) -> None:
    kiosk, url = unity
    kiosk.answers = [503]
    async with dispatching(parts):
        task = await enqueue(line, url)
        await reaches(line, task, "live")
    assert len(kiosk.offers) == 2
    assert kiosk.ids[0] == kiosk.ids[1]


async def test_no_answer_within_the_deadline_brings_it_back(
    line: TestClient, parts: Services, unity: tuple[Unity, str]
) -> None:
    kiosk, url = unity
    kiosk.answers = [9.0]
    async with dispatching(parts):
        task = await enqueue(line, url, maxAttempts=1)
        offer = await kiosk.offer(1)
        detail = await reaches(line, task, "ended")
        assert detail["status"] == "no_answer"
        status, _ = await post(line, "accept", {"taskId": task, "token": offer["token"]})
        assert status == 409


async def test_a_client_that_rings_first_accepts_or_refuses_by_itself(
    line: TestClient, parts: Services, unity: tuple[Unity, str]
) -> None:
    kiosk, url = unity
    kiosk.answers = [202, 202, 202]
    async with dispatching(parts):
        first, second, third = [await enqueue(line, url, f"+{number}") for number in range(3)]
        await kiosk.offer(3)
        token = {offer["taskId"]: offer["token"] for offer in kiosk.offers}
        assert (await post(line, "accept", {"taskId": first, "token": token[first]}))[0] == 200
        assert (await post(line, "refuse", {"taskId": second, "token": token[second], "reason": "busy"}))[0] == 200
        # The ping of one who believes it has the call takes it.
        assert (await post(line, "ping", {"taskId": third, "token": token[third]}))[1]["state"] == "live"
        await reaches(line, first, "live")
        await reaches(line, second, "pending")
        assert (await post(line, "accept", {"taskId": second, "token": token[second]}))[0] == 409


async def test_a_client_that_dies_loses_the_call_and_comes_back_too_late(
    line: TestClient, parts: Services, unity: tuple[Unity, str]
) -> None:
    kiosk, url = unity
    async with dispatching(parts):
        task = await enqueue(line, url)
        first = await kiosk.offer(1)
        await reaches(line, task, "live")
        second = await kiosk.offer(2)
        await reaches(line, task, "live")
        assert second["sessionContext"] != first["sessionContext"]
        late = {"taskId": task, "token": first["token"]}
        for verb in ("ping", "complete", "accept", "refuse"):
            status, body = await post(line, verb, late)
            assert (status, body["code"], body["state"]) == (409, "lease_lost", "live"), verb
        assert (await post(line, "complete", {"taskId": task, "token": second["token"]}))[0] == 200


async def test_an_address_that_is_not_allowed_ends_the_call(
    line: TestClient, parts: Services, unity: tuple[Unity, str]
) -> None:
    kiosk, url = unity
    async with dispatching(parts, allow=()):
        task = await enqueue(line, url)
        detail = await reaches(line, task, "ended")
    assert detail["status"] == "rejected"
    assert "not public" in detail["detail"]
    assert kiosk.offers == []


async def test_a_list_of_hosts_narrows_who_may_be_named(parts: Services, aiohttp_client: Any, line: TestClient) -> None:
    narrow = dataclasses.replace(parts, cc_hosts=Guard(("*.kiosks.example", "127.0.0.1")))
    client = await aiohttp_client(build_gateway(narrow))
    for url, expected in (
        ("https://a.kiosks.example/cc", 202),
        ("http://127.0.0.1:9/", 202),
        ("https://kiosks.example.org", 400),
    ):
        status, body = await post(client, "enqueue", {"form": {"ID": url}, "ccBaseUrl": url})
        assert status == expected, body
    assert body["errors"][0]["pointer"] == "/ccBaseUrl"


async def test_completed_by_its_name_it_ends_at_once_and_leaves_a_record(
    line: TestClient, parts: Services, unity: tuple[Unity, str]
) -> None:
    _, url = unity
    async with dispatching(parts):
        task = await enqueue(line, url)
        await reaches(line, task, "live")
        status, body = await post(line, "complete", {"taskId": task, "outcome": "done"})
        assert (status, body["state"], body["status"]) == (200, "ended", "completed")
        other = await enqueue(line, url, "+2")
        await reaches(line, other, "live")
        status, body = await post(line, "cancel", {"taskId": other, "reason": "a mistake"})
        assert (status, body["state"], body["status"]) == (200, "ended", "cancelled")
        assert (await reaches(line, other, "ended"))["detail"] == "a mistake"
    keeper = Housekeeping(parts.store, parts.queue, parts.executions, call_hours=1, record_days=1)
    await keeper.once()
    (record,) = await parts.executions.attempt_ids("line", task)
    found = await parts.executions.get(record)
    assert found is not None
    assert (found.end_reason, found.caller_id) == ("completed", "+1")


async def test_bad_words_are_refused(line: TestClient) -> None:
    for verb in ("accept", "refuse", "ping"):
        status, body = await post(line, verb, {"taskId": "x"})
        assert (status, body["errors"]) == (400, [{"detail": "is required", "pointer": "/token"}])
        assert (await post(line, verb, {"taskId": "x", "token": "1"}))[0] == 400
        assert (await post(line, verb, {"taskId": "x", "token": 1}))[0] == 404
    assert (await post(line, "complete", {"taskId": "x", "token": True}))[0] == 400
    assert (await post(line, "complete", {"token": 1}))[0] == 400
