"""Calls handed to somebody outside, over `switchroom serve` as it is run: Unity by HTTP, a kiosk by WebSocket, and a
kill -9 of the API process between them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

sys.path.insert(0, str(Path(__file__).parent))
from running import ROOT, Server, serving

QUEUE = "/api/v1/openai-realtime/line/queue"
KIOSK = "/api/v1/openai-realtime/line/kiosk"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("handing")
    with serving(folder, "--media-processes", "0", SWITCHROOM_OUTBOUND_ALLOW="127.0.0.1") as running:
        canvas = json.loads((ROOT / "examples" / "support-line.json").read_text())
        status, body = running.call("POST", "/api/v1/chatflows", {"id": "line", "name": "line", "flowData": canvas})
        assert status in (200, 201), body
        yield running


@pytest.fixture
async def http(server: Server) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(server.url) as session:
        yield session


async def hear(socket: aiohttp.ClientWebSocketResponse, kind: str, **members: Any) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            frame = json.loads(await socket.receive_str())
            if frame["type"] == kind and members.items() <= frame.items():
                return dict(frame)


async def post(http: aiohttp.ClientSession, verb: str, body: dict[str, Any]) -> dict[str, Any]:
    async with http.post(f"{QUEUE}/{verb}", json=body) as reply:
        found = await reply.json()
        assert reply.status in (200, 202), found
        return dict(found)


async def test_unity_is_offered_a_call_and_everybody_sees_it(
    http: aiohttp.ClientSession, server: Server, aiohttp_server: Callable[..., Awaitable[TestServer]]
) -> None:
    offers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def take(request: web.Request) -> web.Response:
        offers.put_nowait((await request.json())["data"])
        return web.json_response({"accepted": True})

    app = web.Application()
    app.router.add_post("/offer", take)
    unity = await aiohttp_server(app)
    async with http.get(f"{QUEUE}/events") as events:
        body = {"form": {"ID": "+1"}, "ccBaseUrl": f"http://127.0.0.1:{unity.port}"}
        task = (await post(http, "enqueue", body))["taskId"]
        offer = await asyncio.wait_for(offers.get(), 30)
        assert offer["pingUrl"] == f"{server.url}{QUEUE}/ping"
        names: list[str] = []
        async with asyncio.timeout(30):
            while "call.live" not in names:
                line = (await events.content.readline()).decode()
                if line.startswith("event:"):
                    names.append(line.split()[1])
        assert names == ["call.pending", "call.offered", "call.live"]
        held = {"taskId": task, "token": offer["token"]}
        async with http.post(offer["pingUrl"], json=held) as reply:
            assert (await reply.json())["state"] == "live"
        async with http.post(offer["completeUrl"], json={**held, "outcome": "done"}) as reply:
            assert (await reply.json())["state"] == "ended"


async def test_a_kiosk_goes_on_after_a_kill_of_the_api(http: aiohttp.ClientSession, server: Server) -> None:
    async with http.ws_connect(KIOSK) as socket:
        await socket.send_json({"type": "hello", "clientId": "desk"})
        await hear(socket, "ready")
        task = (await post(http, "enqueue", {"form": {"ID": "+2"}}))["taskId"]
        token = (await hear(socket, "offer"))["token"]
        await socket.send_json({"type": "accept", "taskId": task})
        await hear(socket, "turnEnd")
        await socket.send_json({"type": "question", "text": "I have a question about my invoice."})
        await hear(socket, "turnEnd")
        family = await asyncio.to_thread(server.pids)
        api = next(pid for pid in family if b"api" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"))
        os.kill(api, signal.SIGKILL)
        assert (await socket.receive()).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                again = await http.ws_connect(KIOSK)
                break
            await asyncio.sleep(0.1)
    await again.send_json({"type": "hello", "clientId": "desk", "held": [{"taskId": task, "token": token}]})
    await hear(again, "state", state="live", taskId=task)
    await again.send_json({"type": "question", "text": "My order number is four one seven two."})
    text = ""
    async with asyncio.timeout(30):
        while (frame := json.loads(await again.receive_str()))["type"] != "turnEnd":
            text += frame.get("data", "")
    assert "4 1 7 2" in json.loads(text)["text"]
    await again.send_json({"type": "complete", "taskId": task, "outcome": "solved"})
    assert (await hear(again, "state", state="ended"))["endReason"] == "completed"
    await again.close()
    async with http.get(f"{QUEUE}/status", params={"taskId": task}) as reply:
        detail = await reply.json()
    assert (detail["attempt"], detail["outcome"], len(detail["executionIds"])) == (1, "solved", 1)
