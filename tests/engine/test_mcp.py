"""Tools of an MCP server: the official server in a process of its own, our flow as its client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from switchroom.compact import compact_canvas
from switchroom.engine import Engine, FlowStore, Session
from switchroom.engine.events import TurnEnded, TurnInput
from switchroom.engine.providers import Models, ProviderSettings
from switchroom.net import GuardedClient

from .conftest import draw
from .model_server import ModelServer, Say

pytest.importorskip("openai")
pytest.importorskip("mcp")

_SERVER = """
import socket, uvicorn
from mcp.server.mcpserver import MCPServer

server = MCPServer("shelf")

@server.tool()
def find(item: str) -> str:
    "Says where an item lies."
    return f"{item} lies on shelf 4"

@server.tool()
def lose(item: str) -> str:
    raise ValueError("it is gone")

sock = socket.socket()
sock.bind(("127.0.0.1", 0))
print(sock.getsockname()[1], flush=True)
app = server.streamable_http_app()
uvicorn.Server(uvicorn.Config(app, log_level="critical")).run(sockets=[sock])
"""


@contextlib.asynccontextmanager
async def mcp_server() -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _SERVER, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        port = (await asyncio.wait_for(process.stdout.readline(), 60)).decode().strip()
        for _ in range(200):
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", int(port))
                writer.close()
                break
            await asyncio.sleep(0.05)
        yield f"http://localhost:{port}/mcp"
    finally:
        process.kill()
        await process.wait()


def canvas(config: dict[str, Any], **more: Any) -> dict[str, Any]:
    tool = {
        "agentSelectedTool": "customMCP",
        "agentSelectedToolConfig": {"mcpServerConfig": json.dumps(config), **more},
    }
    agent = {"agentModel": "chatOpenAI", "agentModelConfig": {"modelName": "m"}, "agentTools": [tool]}
    return draw({"s": ("startAgentflow", {}), "a": ("agentAgentflow", agent)}, [("s", "a")])


async def run(
    flows: FlowStore, server: ModelServer, client: GuardedClient, drawn: dict[str, Any], programs: tuple[str, ...] = ()
) -> Any:
    models = Models({"openai": ProviderSettings(base_url=server.url, api_key="k", retries=0)})
    engine = Engine(flows, responder=models, client=client, programs=programs)
    try:
        graph = compact_canvas(drawn)
        return [event async for event in engine.run(graph, Session(session_id="s"), TurnInput(text="go"))][-1]
    finally:
        await models.close()


async def test_an_agent_uses_the_tools_of_an_mcp_server(flows: FlowStore) -> None:
    def script(body: dict[str, Any]) -> Say:
        results = [message["content"] for message in body["messages"] if message["role"] == "tool"]
        if not results:
            return Say(calls=[("find", {"item": "tea"}), ("lose", {"item": "tea"})])
        return Say(" / ".join(results))

    async with mcp_server() as url, ModelServer(script) as server:
        async with GuardedClient(["localhost"]) as client:
            ended = await run(flows, server, client, canvas({"url": url}))
            first, second = ended.text.split(" / ")
            assert first == "tea lies on shelf 4"
            assert second.startswith("The tool failed: ") and "lose" in second
            offered = [tool["function"] for tool in server.requests[0]["tools"]]
            assert [tool["name"] for tool in offered] == ["find", "lose"]
            assert offered[0]["description"] == "Says where an item lies."
            assert list(offered[0]["parameters"]["properties"]) == ["item"]
            server.requests.clear()
            server.script = lambda body: Say("ok")
            await run(flows, server, client, canvas({"url": url}, mcpActions='["find"]'))
            assert [tool["function"]["name"] for tool in server.requests[0]["tools"]] == ["find"]
        async with GuardedClient() as client:
            ended = await run(flows, server, client, canvas({"url": url}))
            assert (ended.node_id, ended.code) == ("a", "outbound_address_refused")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"command": "npx", "args": ["x", "y z"]}, "the program `npx x 'y z'`. Canvases start no programs here"),
        ({}, "without a `url`"),
        ({"url": "http://127.0.0.1:9/mcp"}, "failed"),
    ],
)
async def test_what_cannot_be_reached_is_said(flows: FlowStore, config: dict[str, Any], words: str) -> None:
    async with ModelServer(lambda body: Say("x")) as server, GuardedClient(["127.0.0.1"]) as client:
        ended = await run(flows, server, client, canvas(config))
    assert (ended.code, words in ended.detail, server.requests) == ("mcp_failed", True, [])


_PROGRAM = """
import json, os, sys

ANSWERS = {
    "initialize": lambda given: {
        "protocolVersion": given["protocolVersion"],
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "shelf", "version": "1"},
    },
    "tools/list": lambda given: {"tools": [{"name": "seen", "inputSchema": {"type": "object"}}]},
    "tools/call": lambda given: {
        "content": [{"type": "text", "text": str([n for n in os.environ if n.startswith(("SWITCHROOM", "LD_"))])}]
    },
}
for line in sys.stdin:
    asked = json.loads(line)
    if "id" in asked:
        answer = ANSWERS.get(asked["method"])
        told = {"result": answer(asked.get("params"))} if answer else {"error": {"code": -32601, "message": "unknown"}}
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **told}), flush=True)
"""


async def test_a_program_that_the_operator_listed_is_started(flows: FlowStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the very words of the canvas; it sees no setting of ours, and none of the canvas."""
    monkeypatch.setenv("SWITCHROOM_API_KEYS", "not-for-programs")
    line = shlex.join([sys.executable, "-c", _PROGRAM])

    def script(body: dict[str, Any]) -> Say:
        last = body["messages"][-1]
        return Say(last["content"]) if last["role"] == "tool" else Say(calls=[("seen", {})])

    drawn = canvas({"command": sys.executable, "args": ["-c", _PROGRAM], "env": {"LD_PRELOAD": "x"}})
    async with ModelServer(script) as server, GuardedClient() as client:
        ended = await run(flows, server, client, drawn, programs=(line,))
        assert isinstance(ended, TurnEnded), ended
        assert ended.text == "[]"
        refused = await run(flows, server, client, drawn, programs=(line + " --more",))
    assert refused.code == "mcp_failed" and "`mcp_programs`" in refused.detail
