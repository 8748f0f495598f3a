"""The notify hub: its secret, the filter by pipeline, bursts told once, and changes made at another API process."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import WSServerHandshakeError
from aiohttp.test_utils import TestClient

from switchroom.gateway.app import build_gateway

SECRET = "0123456789abcdef0123456789abcdef"


async def save(client: TestClient, canvas: Any, flow_id: str, **settings: Any) -> None:
    body = {"id": flow_id, "flowData": canvas, "settings": settings}
    reply = await client.post("/api/v1/chatflows", json=body)
    assert reply.status == 200, await reply.text()


async def refused(client: TestClient, path: str, **headers: str) -> int:
    with pytest.raises(WSServerHandshakeError) as caught:
        await client.ws_connect(path, headers=headers)
    return caught.value.status


async def test_the_hub_asks_for_its_secret(make_services: Any, aiohttp_client: Any, client: TestClient) -> None:
    assert await refused(client, f"/ws?secret={SECRET}") == 503, "none is set: off"
    guarded = await aiohttp_client(build_gateway(make_services(notify_secret=SECRET)))
    assert await refused(guarded, "/ws") == 401
    assert await refused(guarded, f"/ws?secret={SECRET}", **{"X-Notify-Secret": "wrong"}) == 401, "the header wins"
    for path, headers in (("/ws", {"X-Notify-Secret": SECRET}), (f"/ws?secret={SECRET}&clientId=a", {})):
        socket = await guarded.ws_connect(path, headers=headers)
        await socket.close()
    open_to_all = await aiohttp_client(build_gateway(make_services(notify_open=True)))
    await (await open_to_all.ws_connect("/ws")).close()


async def test_a_burst_at_another_process_is_told_once_and_to_whom_it_concerns(
    make_services: Any, aiohttp_client: Any, echo_canvas: dict[str, Any]
) -> None:
    here = await aiohttp_client(build_gateway(make_services(notify_open=True)))
    there = await aiohttp_client(build_gateway(make_services(notify_open=True)))
    kiosk, cc, everything = [await here.ws_connect(f"/ws{query}") for query in ("", "?pipeline=cc", "?pipeline=*")]
    for flow_id in ("a", "b", "a"):
        await save(there, echo_canvas, flow_id)
    for socket in (kiosk, cc, everything):
        message = await socket.receive_json(timeout=5)
        version = message.pop("version")
        assert message == {"type": "assetsChanged", "pipeline": None, "changed": ["chatflows/a", "chatflows/b"]}
        assert version.endswith("Z")

    await save(there, echo_canvas, "c", pipeline="cc")
    for socket in (cc, everything):
        message = await socket.receive_json(timeout=5)
        assert (message["pipeline"], message["changed"]) == ("cc", ["chatflows/c"])
    await there.delete("/api/v1/chatflows/a")
    assert (await kiosk.receive_json(timeout=5))["changed"] == ["chatflows/a"], "and the other's change was not told"


async def test_sockets_do_not_hold_up_a_stop(make_services: Any, aiohttp_server: Any, aiohttp_client: Any) -> None:
    server = await aiohttp_server(build_gateway(make_services(notify_open=True)))
    client = await aiohttp_client(server)
    socket = await client.ws_connect("/ws")
    closing = asyncio.create_task(server.close())
    message = await socket.receive(timeout=5)
    assert socket.close_code == 1013, message
    async with asyncio.timeout(30):
        await closing
