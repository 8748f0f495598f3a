"""The commands over flows, graphs, records and keys, against a real server or none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from aiohttp.test_utils import TestServer
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from switchroom.cli_compact import compact_command
from switchroom.cli_flow import executions_app, flow_app
from switchroom.cli_keys import keys_app
from switchroom.compact import compact_canvas, content_hash, from_json, from_msgpack
from switchroom.gateway.app import build_gateway
from switchroom.gateway.services import Services
from switchroom.records import Execution, ExecutionState, Utterance

Run = Callable[..., Awaitable[Result]]

app = typer.Typer()
app.add_typer(flow_app, name="flow")
app.add_typer(executions_app, name="executions")
app.add_typer(keys_app, name="keys")
app.command("compact")(compact_command)


def invoke(*words: str, **env: str) -> Result:
    return CliRunner().invoke(app, list(words), env=env)


@pytest.fixture
async def run(parts: Services, aiohttp_server: Callable[..., Awaitable[TestServer]]) -> Run:
    """Runs a command in a thread, against a gateway on this loop."""
    server = await aiohttp_server(build_gateway(parts))

    async def command(*words: str, **env: str) -> Result:
        return await asyncio.to_thread(invoke, *words, **{"SWITCHROOM_URL": str(server.make_url("/")), **env})

    return command


@pytest.fixture
def canvas_file(data_dir: Path, echo_canvas: dict[str, Any]) -> Path:
    path = data_dir / "echo.json"
    path.write_text(json.dumps(echo_canvas, indent=2))
    return path


async def test_import_prints_the_id_alone(run: Run, parts: Services, canvas_file: Path) -> None:
    done = await run("flow", "import", str(canvas_file))
    assert done.exit_code == 0, done.output
    flow_id = done.stdout.strip()
    flow = await parts.flows.get(flow_id)
    assert flow is not None and flow.name == "echo" and done.stdout == flow_id + "\n"

    done = await run("flow", "import", str(canvas_file), "--id", "echo", "--name", "Echo line", "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["id"] == "echo"
    listed = json.loads((await run("flow", "list", "--json")).stdout)
    assert {(one["id"], one["name"]) for one in listed} == {(flow_id, "echo"), ("echo", "Echo line")}
    table = (await run("flow", "list")).stdout
    assert "Echo line" in table and "AGENTFLOW" in table

    shown = json.loads((await run("flow", "show", "echo", "--json")).stdout)
    assert shown["graph"]["n"] and "flowData" not in shown
    assert "flowchart" in (await run("flow", "show", "echo")).stdout
    exported = json.loads((await run("flow", "export", "echo")).stdout)
    assert content_hash(compact_canvas(exported)) == shown["hash"]


async def test_a_wrapped_export_keeps_its_name_and_type(run: Run, data_dir: Path, echo_canvas: dict[str, Any]) -> None:
    wrapped = {"name": "Line", "type": "REALTIME", "flowData": json.dumps(echo_canvas), "settings": {"lines": 2}}
    path = data_dir / "w.json"
    await asyncio.to_thread(path.write_text, json.dumps(wrapped))
    flow = json.loads((await run("flow", "import", str(path), "--json")).stdout)
    assert (flow["name"], flow["type"], flow["settings"]["lines"]) == ("Line", "REALTIME", 2)


async def test_what_is_refused_is_said_with_its_place(run: Run, data_dir: Path, echo_canvas: dict[str, Any]) -> None:
    echo_canvas["edges"][0]["target"] = "nobody"
    path = data_dir / "bad.json"
    await asyncio.to_thread(path.write_text, json.dumps(echo_canvas))
    for words in (("flow", "import", str(path)), ("compact", str(path))):
        done = await run(*words)
        assert done.exit_code == 1 and done.stdout == ""
        assert "error: " in done.stderr and "/edges/0" in done.stderr
    done = await run("flow", "show", "nowhere")
    assert done.exit_code == 1 and "nowhere" in done.stderr
    await asyncio.to_thread(path.write_text, "{")
    done = await run("flow", "import", str(path))
    assert done.exit_code == 1 and "not JSON" in done.stderr
    assert (await run("flow", "import", str(data_dir / "none.json"))).exit_code == 2


async def test_no_server_is_said_and_has_its_own_code(canvas_file: Path) -> None:
    done = await asyncio.to_thread(invoke, "flow", "list", "--server", "http://127.0.0.1:9")
    assert done.exit_code == 4 and "http://127.0.0.1:9" in done.stderr and "switchroom serve" in done.stderr
    done = await asyncio.to_thread(invoke, "flow", "list", "--server", "ftp://x")
    assert done.exit_code == 2


async def test_a_key_is_asked_for_and_sent(make_services: Any, aiohttp_server: Any) -> None:
    server = await aiohttp_server(build_gateway(make_services(configured=(SecretStr("the-right-key"),))))
    env = {"SWITCHROOM_URL": str(server.make_url("/"))}
    done = await asyncio.to_thread(invoke, "flow", "list", **env)
    assert done.exit_code == 1 and "API key" in done.stderr
    done = await asyncio.to_thread(invoke, "flow", "list", "--json", **env, SWITCHROOM_API_KEY="the-right-key")
    assert (done.exit_code, json.loads(done.stdout)) == (0, [])


async def test_keys(run: Run) -> None:
    done = await run("keys", "create", "crm", "--scope", "keys")
    key = done.stdout.strip()
    assert done.exit_code == 0 and key.startswith("swr_") and "not shown again" in done.stderr
    assert (await run("keys", "list")).exit_code == 1
    (listed,) = json.loads((await run("keys", "list", "--json", SWITCHROOM_API_KEY=key)).stdout)
    assert listed["keyName"] == "crm"
    assert (await run("keys", "revoke", listed["id"], "--api-key", key)).exit_code == 0
    assert (await run("keys", "list", "--json")).stdout.strip() == "[]"


def test_compact_offline(canvas_file: Path, echo_canvas: dict[str, Any], data_dir: Path) -> None:
    expected = compact_canvas(echo_canvas)
    done = invoke("compact", str(canvas_file))
    assert done.exit_code == 0, done.output
    assert from_json(done.stdout) == expected
    size = canvas_file.stat().st_size
    assert f"{size:,} bytes on the canvas" in done.stderr and content_hash(expected) in done.stderr

    done = invoke("compact", str(canvas_file), str(canvas_file), "--json")
    sizes = json.loads(done.stdout)
    assert [one["canvasBytes"] for one in sizes] == [size, size]
    assert sizes[0]["compactBytes"] < sizes[0]["minifiedBytes"] < size

    out = data_dir / "graph.mp"
    assert invoke("compact", str(canvas_file), "--format", "msgpack", "--out", str(out)).exit_code == 0
    assert from_msgpack(out.read_bytes()) == expected
    assert "flowchart" in invoke("compact", str(canvas_file), "--format", "mermaid").stdout


@pytest.mark.parametrize("words", [[], ["x.json", "--flow", "y"], ["--format", "yaml", "--flow", "y"]])
def test_compact_asked_wrongly(words: list[str], canvas_file: Path) -> None:
    assert invoke("compact", *(str(canvas_file) if word == "x.json" else word for word in words)).exit_code == 2


async def test_a_whole_workspace_of_flowise(
    run: Run, parts: Services, data_dir: Path, echo_canvas: dict[str, Any]
) -> None:
    rows = [
        {"id": "one", "name": "One", "flowData": json.dumps(echo_canvas), "type": "AGENTFLOW", "isPublic": True},
        {"id": "two", "name": "Two", "flowData": '{"nodes": []}', "type": "AGENTFLOW"},
        {"id": "three", "name": "Three", "flowData": json.dumps(echo_canvas), "chatbotConfig": '{"a": 1}'},
    ]
    path = data_dir / "export.json"
    path.write_text(json.dumps({"AgentFlowV2": rows, "ChatFlow": [{}, {}], "Tool": []}))
    done = await run("flow", "import", str(path))
    assert (done.exit_code, done.stdout) == (1, "one\nthree\n"), done.output
    assert "not imported: 2 ChatFlow\n" in done.stderr and "error: Two: " in done.stderr
    one, three = await parts.flows.get("one"), await parts.flows.get("three")
    assert one is not None and one.name == "One" and one.settings.chat.public
    assert three is not None and three.settings.chat.chatbot == {"a": 1}
    assert (await run("flow", "import", str(path), "--id", "x")).exit_code == 2


def test_compact_warns_and_refuses_with_places(data_dir: Path, echo_canvas: dict[str, Any]) -> None:
    echo_canvas["nodes"][1]["data"]["inputs"]["directReplyMessage"] = "{{ nobody.output }}"
    path = data_dir / "odd.json"
    path.write_text(json.dumps(echo_canvas))
    done = invoke("compact", str(path), "--format", "svg")
    assert done.exit_code == 0 and done.stdout.startswith("<svg ")
    assert "warning:" in done.stderr and "/nodes/1: " in done.stderr and "`nobody`" in done.stderr
    (size,) = json.loads(invoke("compact", str(path), "--json").stdout)
    assert [one["pointer"] for one in size["warnings"]] == ["/nodes/1"]
    path.write_text('{"nodes": []}')
    done = invoke("compact", str(path))
    assert (done.exit_code, done.stdout) == (1, "") and "/nodes: " in done.stderr


def test_diff_of_canvases_and_graphs(canvas_file: Path, echo_canvas: dict[str, Any], data_dir: Path) -> None:
    graph = data_dir / "graph.json"
    assert invoke("compact", str(canvas_file), "--out", str(graph)).exit_code == 0
    packed = data_dir / "graph.msgpack"
    assert invoke("compact", str(graph), "--format", "msgpack", "--out", str(packed)).exit_code == 0
    for other in (graph, packed):
        same = invoke("compact", "--diff", str(canvas_file), str(other))
        assert (same.exit_code, same.stdout) == (0, ""), same.output
    assert json.loads(invoke("compact", str(packed)).stdout) == json.loads(graph.read_bytes())
    echo_canvas["nodes"][1]["data"]["inputs"]["directReplyMessage"] = "Something else"
    other = data_dir / "other.json"
    other.write_text(json.dumps(echo_canvas))
    done = invoke("compact", "--diff", str(graph), str(other))
    assert done.exit_code == 1 and "message: " in done.stdout and "-> Something else" in done.stdout
    (change,) = json.loads(invoke("compact", "--diff", str(graph), str(other), "--json").stdout)
    assert (change["change"], change["field"], change["to"]) == ("changed", "message", "Something else")
    other.write_text("{")
    assert invoke("compact", "--diff", str(graph), str(other)).exit_code == 2
    assert invoke("compact", "--diff", str(graph)).exit_code == 2


async def test_diff_with_what_is_stored(run: Run, canvas_file: Path, echo_canvas: dict[str, Any]) -> None:
    await run("flow", "import", str(canvas_file), "--id", "echo")
    assert (await run("compact", "--diff", "--flow", "echo", str(canvas_file))).exit_code == 0
    echo_canvas["nodes"][1]["data"]["label"] = "Renamed"
    canvas_file.write_text(json.dumps(echo_canvas))
    done = await run("compact", "--diff", "--flow", "echo", str(canvas_file))
    assert done.exit_code == 1 and "label: " in done.stdout and "-> Renamed" in done.stdout


async def test_compact_of_a_stored_flow(run: Run, canvas_file: Path, echo_canvas: dict[str, Any]) -> None:
    await run("flow", "import", str(canvas_file), "--id", "echo")
    done = await run("compact", "--flow", "echo")
    assert from_json(done.stdout) == compact_canvas(echo_canvas)


async def test_executions(run: Run, parts: Services) -> None:
    row = Execution(
        id="7d0f2c1e-1111-4222-8333-444455556666",
        flow_id="line",
        session_id="s",
        kind="realtime",
        task_id="flowise-7",
        transcript=[Utterance(role="caller", text="Good morning", start_ms=1200, end_ms=2000, interrupted=True)],
    )
    await parts.executions.begin(row)
    await parts.executions.finish(row, ExecutionState.FINISHED)
    assert json.loads((await run("executions", "list", "--state", "FINISHED", "--json")).stdout)["total"] == 1
    assert "1 in all" in (await run("executions", "list", "--task", "flowise-7")).stdout
    assert json.loads((await run("executions", "list", "--flow", "other", "--json")).stdout)["data"] == []
    done = await run("executions", "list", "--state", "DONE")
    assert done.exit_code == 1 and "state" in done.stderr
    shown = (await run("executions", "show", row.id)).stdout
    assert "1.2 s  caller  Good morning (interrupted)" in shown and "FINISHED" in shown
    assert json.loads((await run("executions", "show", row.id, "--json")).stdout)["id"] == row.id
