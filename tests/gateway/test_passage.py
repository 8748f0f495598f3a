"""Sockets that an API node carries to a media process: tickets good once, refusals before the handshake, closes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import WSMsgType, WSServerHandshakeError, web
from aiohttp.test_utils import TestClient, TestServer

from switchroom.errors import TooMany
from switchroom.gateway.passage import install_passage, pass_on
from switchroom.gateway.services import SERVICES, Services
from switchroom.http_problems import install_problems
from switchroom.realtime import registry
from switchroom.realtime.door import Door, Ticket, issue, opened
from switchroom.realtime.registry import MediaProcess


@pytest.fixture
async def door(parts: Services) -> AsyncIterator[Door]:
    """A media process's door: echoes, and closes when it is told to."""

    async def echo(ticket: Ticket, request: web.Request) -> web.StreamResponse:
        if ticket.call_id == "busy":
            raise TooMany("all lines are busy – try later", code="lines_busy", retry_after_s=5)
        socket = await opened(request)
        async for message in socket:
            if message.data == "go":
                await socket.close(code=4001, message=b"told to")
                break
            if message.type is WSMsgType.TEXT:
                await socket.send_str(f"{ticket.flow_id}: {message.data}")
            else:
                await socket.send_bytes(message.data)
        return socket

    door = Door(parts.store, "127.0.0.1", 0)
    door.on["echo"] = echo
    await door.open()
    await registry.announce(parts.store, MediaProcess(id="m1", legs=0, max_legs=4, loop_lag_ms=0.0, door=door.url))
    yield door
    await door.close()


@pytest.fixture
async def node(parts: Services) -> AsyncIterator[TestClient]:
    app = web.Application()
    app[SERVICES] = parts
    install_problems(app)
    install_passage(app)

    async def connect(request: web.Request) -> web.StreamResponse:
        ticket = Ticket(kind="echo", flow_id="flow", call_id=request.query.get("call", ""))
        return await pass_on(request, ticket, protocols=("spoken",))

    app.router.add_get("/socket", connect)
    async with TestClient(TestServer(app, handler_cancellation=True)) as client:
        yield client


async def test_messages_and_closes_pass_both_ways(node: TestClient, door: Door) -> None:
    async with node.ws_connect("/socket", protocols=["spoken"]) as socket:
        assert socket.protocol == "spoken"
        await socket.send_str("hello")
        assert await socket.receive_str() == "flow: hello"
        await socket.send_bytes(b"\x00\x01")
        assert await socket.receive_bytes() == b"\x00\x01"
        await socket.send_str("go")
        closed = await socket.receive()
        assert (closed.type, closed.data, closed.extra) == (WSMsgType.CLOSE, 4001, "told to")


async def test_a_refusal_is_the_answer_to_the_handshake(node: TestClient, door: Door) -> None:
    reply = await node.get("/socket", params={"call": "busy"}, headers=_UPGRADE)
    told = await reply.json()
    assert (reply.status, told["code"], reply.headers["Retry-After"]) == (429, "lines_busy", "5")
    assert told["detail"] == "all lines are busy – try later"
    await door.close()
    reply = await node.get("/socket", headers=_UPGRADE)
    assert (reply.status, (await reply.json())["code"]) == (503, "media_unreachable")


async def test_a_ticket_is_good_once(node: TestClient, door: Door, parts: Services) -> None:
    name = await issue(parts.store, Ticket(kind="echo", flow_id="flow"))
    async with node.session.ws_connect(f"{door.url}/{name}") as socket:
        await socket.send_str("x")
        assert await socket.receive_str() == "flow: x"
    for unknown in (name, "made-up"):
        with pytest.raises(WSServerHandshakeError) as refused:
            await node.session.ws_connect(f"{door.url}/{unknown}")
        assert refused.value.status == 404


async def test_a_node_that_stops_says_so_at_once(node: TestClient, door: Door) -> None:
    async with node.ws_connect("/socket") as socket:
        async with asyncio.timeout(30):
            stopping = asyncio.create_task(node.server.close())
            closed = await socket.receive()
            assert (closed.type, closed.data) == (WSMsgType.CLOSE, 1001)
            await socket.close()
            await stopping


_UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
