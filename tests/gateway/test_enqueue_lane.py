"""The lane in front of aiohttp: it answers as the application does, and gives away whatever it does not know."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from pydantic import SecretStr

from switchroom.engine import FlowStore
from switchroom.gateway import enqueue_lane
from switchroom.gateway.app import build_gateway
from switchroom.gateway.enqueue_lane import EnqueueLane
from switchroom.gateway.services import Services
from switchroom.queue import State
from switchroom.store import Store

KEY = "a-key-of-sixteen-characters"
PATH = "/api/v1/openai-realtime/line/queue/enqueue"
CANVAS = {
    "nodes": [
        {"id": "start_0", "data": {"id": "start_0", "name": "startRealtime", "label": "Start", "inputs": {}}},
        {
            "id": "reply_0",
            "data": {
                "id": "reply_0",
                "name": "directReplyRealtime",
                "label": "Reply",
                "inputs": {"directReplyMessage": "Hello."},
            },
        },
    ],
    "edges": [{"id": "e", "source": "start_0", "sourceHandle": "start_0-output-0", "target": "reply_0"}],
}


class Front:
    """A served gateway with its lane; `port` is on loopback."""

    def __init__(self, parts: Services) -> None:
        self.parts = parts
        self.handed_over = 0

    async def start(self) -> None:
        self._runner = web.AppRunner(build_gateway(self.parts), handler_cancellation=True)
        await self._runner.setup()
        server = self._runner.server
        assert server is not None

        def application() -> asyncio.Protocol:
            self.handed_over += 1
            return server()

        self.lane = EnqueueLane(self.parts, application)
        self._server = await asyncio.get_running_loop().create_server(self.lane, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    async def stop(self) -> None:
        self._server.close()
        await self.lane.close(5)
        await self._runner.cleanup()


@pytest.fixture
async def front(make_services: Callable[..., Services]) -> AsyncIterator[Front]:
    parts = make_services(configured=(SecretStr(KEY),))
    await parts.flows.save(CANVAS, flow_id="line", kind="realtime")
    await parts.flows.save(CANVAS, flow_id="text", kind="text")
    front = Front(parts)
    await front.start()
    yield front
    await front.stop()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def request(body: bytes, *more: str, path: str = PATH, key: str = KEY) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: test", f"Authorization: Bearer {key}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *more, "", ""]).encode() + body


def call(caller: str = "1", **more: Any) -> bytes:
    return json.dumps({"form": {"ID": caller}, **more}).encode()


async def answers(front: Front, *pieces: bytes, count: int = 1) -> list[tuple[int, dict[str, str], Any]]:
    """Sends `pieces` on one connection, with a breath between them, and reads so many answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.002)
        return [await read_answer(reader) for _ in range(count)]
    finally:
        writer.close()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], Any]:
    async with asyncio.timeout(30):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers["Content-Length"]))
    return int(head[0].split()[1]), headers, json.loads(body)


SAME = {
    "accepted": (call(), {}),
    "again, by its key": (call(), {"Idempotency-Key": "k"}),
    "number for an ID": (b'{"form": {"id": 38641656457}, "state": {"crm": {"tier": "gold"}}, "priority": 3}', {}),
    "callback": (call(notBefore="2090-01-01T00:00:00Z"), {}),
    "not JSON": (b"{", {}),
    "empty": (b"", {}),
    "an array": (b"[]", {}),
    "no form": (b"{}", {}),
    "several faults": (b'{"form": {"ID": " "}, "priority": 1.5, "notBefore": "tomorrow", "skills": 3}', {}),
    "private address": (call(ccBaseUrl="http://127.0.0.1:1/"), {}),
    "bad idempotency key": (call(), {"Idempotency-Key": "x" * 300}),
    "no key": (call(), {"Authorization": ""}),
    "wrong key": (call(), {"Authorization": "Bearer something-else-entirely"}),
    "X-API-Key": (call(), {"Authorization": "", "X-API-Key": KEY}),
    "correlation": (call(), {"X-Correlation-Id": "ticket-17"}),
    "insane correlation": (b"{}", {"X-Correlation-Id": "a b"}),
}


@pytest.mark.parametrize("flow", ["line", "text", "unknown"])
@pytest.mark.parametrize("case", SAME)
async def test_the_lane_answers_as_the_application(
    front: Front, session: aiohttp.ClientSession, aiohttp_client: Any, case: str, flow: str
) -> None:
    body, given = SAME[case]
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"} | given
    path = PATH.replace("line", flow)
    plain: TestClient = await aiohttp_client(build_gateway(front.parts))
    seen = []
    for post in (
        lambda: session.post(front.url + path, data=body, headers=headers),
        lambda: plain.post(path, data=body, headers=headers),
    ):
        async with post() as reply:
            text = await reply.json(content_type=None)
            names = {name for name in reply.headers if name != "Server"}
            correlation = text.pop("correlationId", None)
            assert correlation in (None, reply.headers["X-Correlation-Id"])
            text.pop("duplicate", None)  # the second one joins the first
            seen.append((reply.status, text, names, reply.headers["Content-Type"]))
        for flow_id in ("line",):
            await front.parts.queue.clear(flow_id) if "taskId" not in text else None
    assert seen[0] == seen[1]
    assert front.handed_over == 0


async def test_a_connection_is_the_lanes_until_something_else_comes(front: Front) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
    for number in (1, 2):
        writer.write(request(call(str(number))))
        status, headers, body = await read_answer(reader)
        assert (status, body["pendingCount"]) == (202, number)
        assert "Server" not in headers
    assert front.handed_over == 0 and len(front.lane.connections) == 1
    writer.write(f"GET {PATH.replace('enqueue', 'status')} HTTP/1.1\r\nHost: t\r\nX-API-Key: {KEY}\r\n\r\n".encode())
    assert (await read_answer(reader))[2]["pendingCount"] == 2
    assert front.handed_over == 1 and not front.lane.connections
    writer.write(request(call("3")))
    assert (await read_answer(reader))[2]["pendingCount"] == 3
    writer.close()


async def test_a_request_may_come_in_any_pieces(front: Front) -> None:
    whole = request(call())
    for cut in (1, 20, 60, whole.index(b"\r\n\r\n") + 2, len(whole) - 1):
        [(status, _, _)] = await answers(front, whole[:cut], whole[cut:])
        assert status == 202
    [(status, _, _)] = await answers(front, *(whole[at : at + 1] for at in range(len(whole))))
    assert status == 202
    assert front.handed_over == 0


async def test_what_the_lane_does_not_know_is_aiohttps(front: Front) -> None:
    large = call(state={"text": "x" * enqueue_lane.MAX_BYTES})
    chunked = (
        f"POST {PATH} HTTP/1.1\r\nHost: t\r\nX-API-Key: {KEY}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        + b"%x\r\n%b\r\n0\r\n\r\n" % (len(call()), call())
    )
    too_large = request(b"x" * 10, path=PATH).replace(b"Content-Length: 10", b"Content-Length: 99999999")
    cases = [
        (request(large), 202),
        (chunked, 202),
        (request(call(), path=PATH + "?x=1"), 202),
        (request(call(), path=PATH.replace("line", "li%6ee")), 202),
        (request(call(), "Connection: upgrade", "Upgrade: websocket"), 202),
        (request(call(), "Content-Encoding: gzip"), 400),
        (request(call(), "Content-Length: 3"), 400),
        (request(call(), "no colon here"), 400),
        (request(call(), "Host: other"), 400),
        (request(call()).replace(b"Host: test\r\n", b""), 400),
        (too_large, 413),
        (request(call(), path=PATH + "r")[:-5], 404),
        (b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n", 200),
        (b"nonsense\r\n\r\n", 400),
    ]
    for number, (raw, wanted) in enumerate(cases, 1):
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(raw)
        async with asyncio.timeout(30):
            line = await reader.readline()
        assert int(line.split()[1]) == wanted, raw[:200]
        assert front.handed_over == number
        writer.close()


async def test_pipelined_requests_are_answered_in_order(front: Front) -> None:
    count = 20
    together = b"".join(request(call(str(number))) for number in range(count))
    replies = await answers(front, together, count=count)
    assert [body["pendingCount"] for _, _, body in replies] == list(range(1, count + 1))
    # The second comes while the first is being answered.
    again = await answers(front, request(call("x")), request(call("y")), count=2)
    assert [body["pendingCount"] for _, _, body in again] == [count + 1, count + 2]
    first, second = request(call("u")), request(call("v"))
    torn = await answers(front, first + second[:1], second[1:], count=2)
    assert [body["pendingCount"] for _, _, body in torn] == [count + 3, count + 4]


async def test_expect_continue_is_answered_before_the_body_comes(front: Front) -> None:
    head, body = request(call(), "Expect: 100-continue"), call()
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
    writer.write(head[: -len(body)])
    async with asyncio.timeout(30):
        assert (await reader.readline()).startswith(b"HTTP/1.1 100")
        await reader.readline()
    writer.write(body)
    assert (await read_answer(reader))[0] == 202
    writer.close()


async def test_a_client_that_asks_to_close_is_closed(front: Front) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
    writer.write(request(call(), "Connection: close"))
    _, headers, _ = await read_answer(reader)
    assert headers["Connection"] == "close"
    async with asyncio.timeout(30):
        assert await reader.read() == b""
    writer.close()


async def test_a_client_that_leaves_has_put_its_call_in(front: Front) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", front.port)
    writer.write(request(call("gone")))
    await writer.drain()
    writer.close()
    async with asyncio.timeout(30):
        while (await front.parts.queue.status("line")).pending_count != 1 or front.lane.connections:
            await asyncio.sleep(0.01)


async def test_a_silent_or_slow_connection_is_closed(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enqueue_lane, "PARTIAL_S", 0.1)
    for said in (b"", request(call())[:50]):
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(said)
        async with asyncio.timeout(30):
            assert await reader.read() == b""
        writer.close()
    assert not front.lane.connections


async def test_a_stop_lets_requests_end_and_closes_what_rests(front: Front) -> None:
    resting, _ = await asyncio.open_connection("127.0.0.1", front.port)
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
    writer.write(request(call()))
    await writer.drain()
    async with asyncio.timeout(30):
        while not any(connection._request.done() for connection in front.lane.connections):
            await asyncio.sleep(0)
        await front.lane.close(5)
        assert (await read_answer(reader))[0] == 202
        assert await resting.read() == b""
        assert await reader.read() == b""
    writer.close()


async def test_a_changed_flow_holds_at_once_in_every_process(
    front: Front, session: aiohttp.ClientSession, store: Store
) -> None:
    async def enqueue() -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {KEY}"}
        async with session.post(front.url + PATH, data=call(), headers=headers) as reply:
            return reply.status, await reply.json(content_type=None)

    assert (await enqueue())[0] == 202
    elsewhere = FlowStore(store)
    flow = await elsewhere.get("line")
    assert flow is not None
    await elsewhere.configure(flow, {"duplicates": "reject"})
    status, problem = await enqueue()
    assert (status, problem["code"]) == (409, "duplicate_call")
    await elsewhere.save(CANVAS, flow_id="line", kind="text")
    assert (await enqueue())[1]["code"] == "not_realtime"
    await elsewhere.delete("line")
    assert (await enqueue())[1]["code"] == "flow_not_found"


async def test_what_the_lane_accepted_is_the_call_as_sent(front: Front) -> None:
    body = call("+38641656457", state={"crm": {"tier": "gold"}}, priority=2)
    [(_, _, reply)] = await answers(front, request(body))
    stored = await front.parts.queue.get("line", reply["taskId"])
    assert stored is not None and stored.state is State.PENDING
    assert (stored.caller_id, stored.memory, stored.priority) == ("+38641656457", {"crm": {"tier": "gold"}}, 2)
