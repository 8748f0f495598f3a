"""A kiosk on a real WebSocket: offers, pings, turns, and every way to lose a call."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType, web
from aiohttp.test_utils import TestClient, TestServer

from switchroom.engine import Engine
from switchroom.gateway.app import build_gateway
from switchroom.gateway.enqueue import rules_of
from switchroom.gateway.services import Services
from switchroom.housekeeping import Housekeeping
from switchroom.net import GuardedClient
from switchroom.queue import NewCall, Queue
from switchroom.records.model import ExecutionState

from .conftest import edge, node

CANVAS = Path(__file__).parents[2] / "examples" / "support-line.json"
PATH = "/api/v1/openai-realtime/line/kiosk"
LEASE_MS = 1_500


@pytest.fixture
async def parts(make_services: Callable[..., Services], request: pytest.FixtureRequest) -> AsyncIterator[Services]:
    parts = make_services(kiosk_lease_ms=LEASE_MS, kiosk_offer_ms=getattr(request, "param", 1_200))
    canvas = json.loads(await asyncio.to_thread(CANVAS.read_text))
    flow = await parts.flows.save(canvas, flow_id="line", settings={"refuse_backoff_s": 1})
    await parts.queue.configure("line", rules_of(flow))
    keeper = Housekeeping(parts.store, Queue(parts.store), parts.executions, call_hours=1, record_days=1)
    keeping = asyncio.create_task(keeper.run())
    yield parts
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    await parts.queue.close()
    await parts.feed.close()


class Kiosk:
    """The operator's side of the socket."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self.socket = socket
        self.seen: list[dict[str, Any]] = []

    async def say(self, kind: str, **members: Any) -> None:
        await self.socket.send_json({"type": kind, **members})

    async def hear(self, kind: str, within_s: float = 30, **members: Any) -> dict[str, Any]:
        """The next frame of a kind that has these members; others on the way are kept in `seen`."""
        async with asyncio.timeout(within_s):
            while True:
                message = await self.socket.receive()
                assert message.type is WSMsgType.TEXT, (kind, message, self.seen)
                frame = json.loads(message.data)
                self.seen.append(frame)
                if frame["type"] == kind and members.items() <= frame.items():
                    return dict(frame)

    async def turn(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the next turn assembles to, and its end."""
        self.seen.clear()
        end = await self.hear("turnEnd")
        text = "".join(
            frame["data"] for frame in self.seen if frame["type"] == "token" and frame["turn"] == end["turn"]
        )
        return (json.loads(text) if end["outcome"] != "interrupted" else {}), end


async def connect(client: TestClient, name: str = "desk-1", **hello: Any) -> Kiosk:
    kiosk = Kiosk(await client.ws_connect(PATH))
    await kiosk.say("hello", clientId=name, **hello)
    ready = await kiosk.hear("ready")
    assert (ready["pingEverySeconds"], ready["clientId"]) == (5, name)
    return kiosk


async def enqueue(parts: Services, caller: str = "+1", **more: Any) -> str:
    flow = await parts.flows.get("line")
    assert flow is not None
    call = NewCall(form={"ID": caller, **more.pop("form", {})}, **more)
    return (await parts.queue.enqueue("line", call, rules_of(flow))).task_id


def cut(kiosk: Kiosk) -> None:
    assert kiosk.socket._response.connection is not None
    kiosk.socket._response.connection.transport.abort()  # type: ignore[union-attr]


async def test_a_call_from_offer_to_record(client: TestClient, parts: Services) -> None:
    kiosk = await connect(client)
    began = time.perf_counter()
    task = await enqueue(parts, state={"crm": {"tier": "gold"}})
    offer = await kiosk.hear("offer")
    assert time.perf_counter() - began < 5  # woken, not polled
    assert (offer["taskId"], offer["form"], offer["attempt"]) == (task, {"ID": "+1"}, 1)
    assert offer["state"]["crm"] == {"tier": "gold"}
    assert offer["state"]["current_media_prompts"] == []
    assert offer["state"]["active_agent_id"]
    await kiosk.say("accept", taskId=task)
    await kiosk.hear("state", state="live")
    said, end = await kiosk.turn()
    assert said["text"]
    assert (end["outcome"], end["activeAgentId"]) == ("await_input", offer["state"]["active_agent_id"])
    await kiosk.say("question", text="I have a question about my invoice.")
    said, _ = await kiosk.turn()
    assert "order number" in said["text"]
    for _ in range(5):  # longer than the lease in all
        await asyncio.sleep(LEASE_MS / 3000)
        await kiosk.say("ping")
        await kiosk.hear("pong")
    await kiosk.say("question", taskId=task, text="My order number is four one seven two.")
    said, _ = await kiosk.turn()
    assert "4 1 7 2" in said["text"]
    await kiosk.say("complete", taskId=task, outcome="solved", result={"stars": 5})
    assert (await kiosk.hear("state", state="ended"))["endReason"] == "completed"
    call = await parts.queue.get("line", task)
    assert call is not None
    assert (call.owner, call.outcome, call.result) == ("kiosk:desk-1", "solved", {"stars": 5})
    (row,) = await parts.executions.find("line", task)
    assert (row.state, row.end_reason, row.session_id) == (
        ExecutionState.FINISHED,
        "completed",
        offer["sessionContext"]["sessionId"],
    )
    assert [line.role for line in row.transcript] == ["agent", "caller", "agent", "caller", "agent"]
    assert row.nodes


async def test_words_that_interrupt_an_answer(client: TestClient, parts: Services) -> None:
    kiosk = await connect(client)
    task = await enqueue(parts, form={"question": "I have a question about my invoice."})
    await kiosk.hear("offer")
    await kiosk.say("accept", taskId=task)
    # Both at once: the second comes while the first turn runs, or right after it.
    await kiosk.say("question", text="Stop.", heard="Of course")
    await kiosk.say("question", text="I want to talk to an operator, please.")
    said, end = await kiosk.turn()
    while end["outcome"] != "finished":
        said, end = await kiosk.turn()
    assert "connecting you" in said["text"]
    await kiosk.say("complete", taskId=task)
    await kiosk.hear("state", state="ended")
    (row,) = await parts.executions.find("line", task)
    assert [line.text for line in row.transcript if line.role == "caller"] == [
        "I have a question about my invoice.",
        "Stop.",
        "I want to talk to an operator, please.",
    ]


async def test_a_refused_call_goes_to_the_other_kiosk(client: TestClient, parts: Services) -> None:
    first = await connect(client, "first")
    task = await enqueue(parts)
    token = (await first.hear("offer"))["token"]
    second = await connect(client, "second")
    await first.say("refuse", taskId=task, reason="lunch")
    offer = await second.hear("offer")
    assert (offer["taskId"], offer["token"] > token) == (task, True)
    await second.say("accept", taskId=task)
    await second.hear("state", state="live")
    await first.say("accept", taskId=task)
    assert (await first.hear("error"))["code"] == "not_yours"
    detail = await parts.queue.detail("line", task)
    assert [change.cause for change in detail.history] == ["enqueued", "claimed", "refused", "claimed", "answered"]


async def test_the_kiosk_that_is_idle_the_longest_is_asked_first(client: TestClient, parts: Services) -> None:
    kiosks = {}
    for name in ("a", "b", "c"):
        kiosks[name] = await connect(client, name)
        await asyncio.sleep(0.15)  # registered before the next one
    asked = []
    for number in range(3):
        await enqueue(parts, f"+{number}")
        waiting = {
            asyncio.create_task(kiosk.hear("offer")): name for name, kiosk in kiosks.items() if name not in asked
        }
        done, rest = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        asked += [waiting[task] for task in done]
    assert asked == ["a", "b", "c"]


async def test_skills_decide_who_is_asked(client: TestClient, parts: Services) -> None:
    plain = await connect(client, "plain")
    skilled = await connect(client, "skilled", skills=["sl", "en"])
    task = await enqueue(parts, skills=("sl",))
    assert (await skilled.hear("offer"))["taskId"] == task
    assert [frame["type"] for frame in plain.seen] == ["ready"]


async def test_a_kiosk_on_a_break_is_offered_nothing(client: TestClient, parts: Services) -> None:
    kiosk = await connect(client, "desk", capacity=2, paused=True)
    task = await enqueue(parts)
    await kiosk.say("resume")
    assert (await kiosk.hear("offer"))["taskId"] == task
    await kiosk.say("accept", taskId=task)
    await kiosk.hear("state", state="live")
    await kiosk.say("pause", reason="lunch")
    assert (await kiosk.hear("paused"))["reason"] == "lunch"
    another = await enqueue(parts, "+2")
    await kiosk.say("complete", taskId=task)  # what is live goes on
    await kiosk.hear("state", state="ended")
    assert [frame for frame in kiosk.seen if frame["type"] == "offer" and frame["taskId"] != task] == []
    assert (await parts.queue.detail("line", another)).call.attempt == 0
    await kiosk.say("resume")
    await kiosk.hear("resumed")
    assert (await kiosk.hear("offer"))["taskId"] == another


async def test_no_answer_and_silence_take_a_call_back(client: TestClient, parts: Services) -> None:
    kiosk = await connect(client, pauseAfter=1)
    task = await enqueue(parts, max_attempts=9)
    await kiosk.hear("offer")
    assert (await kiosk.hear("paused"))["reason"] == "no_answer"
    assert (await kiosk.hear("lost"))["reason"] == "no_answer"
    await kiosk.say("resume")
    offer = await kiosk.hear("offer")  # after its back-off
    assert offer["attempt"] == 2
    await kiosk.say("accept", taskId=task)
    await kiosk.hear("state", state="live")
    lost = await kiosk.hear("lost")  # nobody pings
    assert (lost["taskId"], lost["reason"]) == (task, "lease_expired")
    await asyncio.sleep(0.3)
    rows = await parts.executions.find("line", task)
    assert [row.state for row in rows if row.attempt == 2] == [ExecutionState.ERROR]


async def test_a_kiosk_that_comes_back_in_time_goes_on(
    client: TestClient, parts: Services, aiohttp_client: Any
) -> None:
    object.__setattr__(parts, "kiosk_lease_ms", 60_000)
    kiosk = await connect(client)
    task = await enqueue(parts)
    token = (await kiosk.hear("offer"))["token"]
    await kiosk.say("accept", taskId=task)
    _, greeted = await kiosk.turn()
    await kiosk.say("question", text="I have a question about my invoice.")
    async with asyncio.timeout(30):  # it is answered, and the answer is lost on its way
        while [len(row.transcript) for row in await parts.executions.find("line", task)] != [3]:
            await asyncio.sleep(0.02)
    cut(kiosk)
    # Another API process takes the connection: all it knows is in the store.
    other = dataclasses.replace(parts, queue=Queue(parts.store))
    there = await aiohttp_client(build_gateway(other))
    again = await connect(there, held=[{"taskId": task, "token": token, "turn": greeted["turn"]}])
    said, end = await again.turn()
    assert "order number" in said["text"] and (end["turn"], end["outcome"]) == (greeted["turn"] + 1, "await_input")
    cut(again)
    again = await connect(there, held=[{"taskId": task, "token": token, "turn": end["turn"]}])
    # What it says right after its `hello` is of calls that are its own again.
    await again.say("question", text="My order number is four one seven two.", taskId=task)
    said, _ = await again.turn()
    assert "4 1 7 2" in said["text"]
    await again.say("complete", taskId=task)
    await again.hear("state", state="ended")
    (row,) = await parts.executions.find("line", task)
    assert (row.state, len(row.transcript)) == (ExecutionState.FINISHED, 5)
    await other.queue.close()


class Desk:
    """Takes bookings by their idempotency keys; the second one waits until it is told to go on."""

    def __init__(self) -> None:
        self.took: list[tuple[str, str]] = []
        self.waits, self.goes_on = asyncio.Event(), asyncio.Event()

    async def take(self, request: web.Request) -> web.Response:
        self.took.append((request.match_info["n"], request.headers["Idempotency-Key"]))
        if request.match_info["n"] == "2":
            self.waits.set()
            await self.goes_on.wait()
        return web.json_response({"ok": True})


@pytest.mark.parametrize("notices", [True, False], ids=["a lost connection", "a connection that seems alive"])
async def test_a_turn_under_way_is_finished_for_a_kiosk_that_comes_back(
    client: TestClient, parts: Services, aiohttp_client: Any, notices: bool
) -> None:
    desk, app = Desk(), web.Application()
    app.router.add_post("/{n}", desk.take)
    async with TestServer(app) as books, GuardedClient(["127.0.0.1"]) as out:
        object.__setattr__(parts, "engine", Engine(parts.flows, client=out))
        object.__setattr__(parts, "kiosk_lease_ms", 60_000)
        posts = [node(f"h{n}", "httpAgentflow", method="POST", url=str(books.make_url(f"/{n}"))) for n in (1, 2, 3)]
        reply = node("r", "directReplyAgentflow", directReplyMessage="It is booked.")
        chain = [node("s", "startRealtime"), *posts, reply]
        edges = [edge(one["id"], other["id"]) for one, other in itertools.pairwise(chain)]
        await parts.flows.save({"nodes": chain, "edges": edges}, flow_id="line")
        kiosk = await connect(client)
        task = await enqueue(parts, form={"question": "Book it."})
        token = (await kiosk.hear("offer"))["token"]
        await kiosk.say("accept", taskId=task)
        await asyncio.wait_for(desk.waits.wait(), 30)
        desk.waits.clear()
        if notices:
            cut(kiosk)
        other = dataclasses.replace(parts, queue=Queue(parts.store))
        there = await aiohttp_client(build_gateway(other))
        again = await connect(there, held=[{"taskId": task, "token": token, "turn": 4}])  # all interrupted
        await asyncio.wait_for(desk.waits.wait(), 30)
        desk.goes_on.set()
        said, end = await again.turn()
        assert (said["text"], end["turn"], end["outcome"]) == ("It is booked.", 5, "await_input")
        await again.say("complete", taskId=task)
        await again.hear("state", state="ended")
        await other.queue.close()
    # What was under way may come twice, by one key; nothing else does, also where both connections could go on.
    assert [n for n, _ in desk.took] == ["1", "2", "2", "3"] and len(set(desk.took)) == 3
    (row,) = await parts.executions.find("line", task)
    assert [(line.role, line.text) for line in row.transcript] == [("caller", "Book it."), ("agent", "It is booked.")]
    assert [one["node_id"] for one in row.nodes] == ["s", "h1", "h2", "h3", "r"]


async def test_a_kiosk_that_comes_back_too_late_is_fenced_out(client: TestClient, parts: Services) -> None:
    kiosk = await connect(client, "late")
    task = await enqueue(parts)
    token = (await kiosk.hear("offer"))["token"]
    await kiosk.say("accept", taskId=task)
    await kiosk.hear("state", state="live")
    await kiosk.socket.close()
    second = await connect(client, "second")
    assert (await second.hear("offer"))["taskId"] == task
    await second.say("accept", taskId=task)
    await second.hear("state", state="live")
    late = await connect(client, "late", held=[{"taskId": task, "token": token}])
    assert (await late.hear("lost"))["state"] == "live"
    await late.say("complete", taskId=task)
    assert (await late.hear("error"))["code"] == "not_yours"
    body = {"taskId": task, "token": token}
    reply = await client.post("/api/v1/openai-realtime/line/queue/complete", json=body)
    assert (reply.status, (await reply.json())["code"]) == (409, "lease_lost")
    await second.say("complete", taskId=task)
    await second.hear("state", state="ended")


async def test_another_kiosk_goes_on_with_the_conversation(client: TestClient, parts: Services) -> None:
    first = await connect(client, "first")
    task = await enqueue(parts)
    await first.hear("offer")
    await first.say("accept", taskId=task)
    await first.turn()
    await first.say("question", text="I have a question about my invoice.")
    said, _ = await first.turn()
    await first.socket.close()  # and never comes back
    second = await connect(client, "second")
    offer = await second.hear("offer")
    assert (offer["taskId"], offer["attempt"], offer["state"]["topic"]) == (task, 2, "INVOICE")
    await second.say("accept", taskId=task)
    again, end = await second.turn()
    assert again["text"] == f"Sorry, we were cut off. {said['text']}" and end["outcome"] == "await_input"
    await second.say("question", text="My order number is four one seven two.")
    answer, _ = await second.turn()
    assert "4 1 7 2" in answer["text"]  # of the invoice, and no greeting again
    await second.say("complete", taskId=task)
    await second.hear("state", state="ended")
    rows = {row.attempt: row for row in await parts.executions.find("line", task)}
    assert [line.role for line in rows[2].transcript] == ["agent", "caller", "agent"]
    assert rows[2].transcript[0].text == again["text"]


@pytest.mark.parametrize("parts", [20_000], indirect=True)
async def test_who_leaves_with_an_offer_gives_it_back_at_once(client: TestClient, parts: Services) -> None:
    kiosk = await connect(client, "first")
    task = await enqueue(parts)
    await kiosk.hear("offer")
    second = await connect(client, "second")
    began = time.monotonic()
    await kiosk.socket.close()
    assert (await second.hear("offer"))["taskId"] == task
    assert time.monotonic() - began < 10  # the offer itself is good for twenty seconds


async def test_what_others_do_to_a_call_is_told(client: TestClient, parts: Services) -> None:
    kiosk = await connect(client, capacity=2)
    for verb, reason in (("complete", "completed"), ("cancel", "cancelled")):
        task = await enqueue(parts, verb)
        await kiosk.hear("offer")
        await kiosk.say("accept", taskId=task)
        await kiosk.hear("state", state="live")
        reply = await client.post(f"/api/v1/openai-realtime/line/queue/{verb}", json={"taskId": task})
        assert reply.status == 200
        ended = await kiosk.hear("state", state="ended", taskId=task)
        assert ended["endReason"] == reason
        (row,) = await parts.executions.find("line", task)
        assert row.end_reason == reason


async def test_frames_that_are_wrong_are_answered(client: TestClient, parts: Services) -> None:
    for first in ("nonsense", '{"type": "ping"}', '{"type": "hello", "clientId": ""}'):
        bad = Kiosk(await client.ws_connect(PATH))
        await bad.socket.send_str(first)
        assert (await bad.hear("error"))["code"] == "bad_hello"
        assert (await bad.socket.receive()).type is WSMsgType.CLOSE
    for hello in ({"skills": ["@cc"]}, {"capacity": 0}):
        bad = Kiosk(await client.ws_connect(PATH))
        await bad.say("hello", clientId="x", **hello)
        assert (await bad.hear("error"))["code"] == "bad_hello"
    kiosk = await connect(client)
    for kind, members, code in (
        ("dance", {}, "bad_frame"),
        ("accept", {"taskId": "nobody"}, "not_yours"),
        ("question", {"text": "Hello?"}, "which_call"),
        ("question", {"text": " "}, "bad_input"),
    ):
        await kiosk.say(kind, **members)
        assert (await kiosk.hear("error"))["code"] == code
    again = await connect(client)  # the same kiosk, a second time
    message = await kiosk.socket.receive()
    assert (message.type, message.data) == (WSMsgType.CLOSE, 4001)
    assert (await client.get(PATH)).status == 400
    await again.socket.close()


async def test_a_server_that_stops_says_goodbye(client: TestClient, parts: Services) -> None:
    kiosk = await connect(client)
    stopping = asyncio.create_task(client.server.close())
    message = await kiosk.socket.receive(timeout=5)
    assert (message.type, message.data) == (WSMsgType.CLOSE, 1001)
    await asyncio.wait_for(stopping, 30)
