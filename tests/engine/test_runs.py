"""Durable runs: what finished is never done again, wherever the run goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from switchroom.compact import CompactGraph, compact_canvas
from switchroom.engine import Engine, FlowStore, Session
from switchroom.engine import runs as runs_module
from switchroom.engine.custom_tool import CustomTool
from switchroom.engine.events import NodeFinished, TurnEnded, TurnInput
from switchroom.engine.runs import Given, RunLost, Runs
from switchroom.engine.takeover import Takeover
from switchroom.net import GuardedClient
from switchroom.records import Execution, Executions, ExecutionState
from switchroom.store import Blobs, Store, keys

from .conftest import draw

START = ("startAgentflow", {"startState": [{"key": "n", "value": "0"}]})
COUNT = (
    "customFunctionAgentflow",
    {
        "customFunctionJavascriptFunction": "return Number($flow.state.n) + 1",
        "customFunctionUpdateState": [{"key": "n", "value": "{{ output }}"}],
    },
)


def post(url: str) -> tuple[str, dict[str, Any]]:
    return ("httpAgentflow", {"method": "POST", "url": url, "bodyType": "json", "body": '{"n": "{{ $flow.state.n }}"}'})


def canvas_of(url: str) -> dict[str, Any]:
    """Counts, posts, counts, posts, and says how far it came; the second post is reached over a Loop."""
    return draw(
        {
            "s": START,
            "f": COUNT,
            "h": post(url),
            "c": (
                "conditionAgentflow",
                {
                    "conditions": [
                        {"type": "number", "value1": "{{ $flow.state.n }}", "operation": "smaller", "value2": "2"}
                    ]
                },
            ),
            "l": ("loopAgentflow", {"loopBackToNode": "f-f", "maxLoopCount": 5}),
            "r": ("directReplyAgentflow", {"directReplyMessage": "Counted to {{ $flow.state.n }}."}),
        },
        [("s", "f"), ("f", "h"), ("h", "c"), ("c", "l", 0), ("c", "r", 1)],
    )


class Ledger:
    """A server that counts what was posted, and can hold an answer back."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, str]] = []
        self.held = asyncio.Event()
        self.held.set()
        self.reached = asyncio.Event()
        self.hold_at = 0

    async def post(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.posts.append((str(body["n"]), request.headers["Idempotency-Key"]))
        self.reached.set()
        if len(self.posts) == self.hold_at:
            await self.held.wait()
        return web.json_response({"ok": True})


@contextlib.asynccontextmanager
async def ledger_server(ledger: Ledger) -> Any:
    app = web.Application()
    app.router.add_post("/", ledger.post)
    server = TestServer(app)
    await server.start_server()
    try:
        yield str(server.make_url("/"))
    finally:
        ledger.held.set()
        await server.close()


def given(graph: CompactGraph, **more: Any) -> Given:
    values: dict[str, Any] = {"deadline_ms": int(time.time() * 1000) + 30_000, "kept_s": 600, **more}
    return Given(graph=graph, turn=TurnInput(text="go", kind="start"), **values)


async def held(store: Store, run_id: str, session: Session) -> Execution:
    """The session's lock and the record, as the gateway has them while a turn runs."""
    await store.call("SET", keys.session_lock("f-1", session.session_id), run_id, "PX", 60_000)
    return Execution(id=run_id, flow_id="f-1", session_id=session.session_id, kind="turn")


async def test_a_run_goes_on_after_its_last_finished_node(
    store: Store, flows: FlowStore, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_module, "LEASE_MS", 300)
    monkeypatch.setattr(runs_module, "_RENEW_S", 30.0)
    executions = Executions(store, await asyncio.to_thread(Blobs, data_dir))
    ledger = Ledger()
    ledger.hold_at = 2
    async with ledger_server(ledger) as url, GuardedClient(["127.0.0.1"]) as client:
        ledger.held.clear()
        graph = compact_canvas(canvas_of(url))
        engine = Engine(flows, client=client)
        session = Session(session_id="s-1")
        record = await held(store, "00000000-0000-0000-0000-000000000001", session)
        await executions.begin(record)

        async def first() -> None:
            async with Runs(store).keep("f-1", record.id) as kept:
                kept.given = given(graph)
                async with contextlib.aclosing(engine.run(graph, session, kept.given.turn, journal=kept)) as events:
                    async for _ in events:
                        pass

        task = asyncio.create_task(first())
        while len(ledger.posts) < 2:
            await asyncio.sleep(0.01)
        # The process is gone in the middle of the second post: nothing of it runs on, and its lease ends by itself.
        monkeypatch.setattr(runs_module.Kept, "end", _nothing)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        monkeypatch.undo()
        ledger.held.set()
        takeover = Takeover(store, engine, executions)
        deadline = time.monotonic() + 30
        while not await takeover.once():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
    # The first post was not repeated; the one under way was, with its key.
    assert [n for n, _ in ledger.posts] == ["1", "2", "2"]
    assert ledger.posts[1][1] == ledger.posts[2][1] != ledger.posts[0][1]
    done = await executions.get(record.id)
    assert done is not None
    assert (done.state, done.final_state) == (ExecutionState.FINISHED, {"n": "2"})
    assert [node["node_id"] for node in done.nodes] == ["s", "f", "h", "c", "l", "f", "h", "c", "r"]
    saved = await store.call("GET", keys.session("f-1", "s-1"))
    after = msgspec.json.decode(saved, type=Session)
    assert [message.text for message in after.messages] == ["go", "Counted to 2."]
    assert await store.call("EXISTS", keys.run("f-1", record.id), keys.session_lock("f-1", "s-1")) == 0
    assert await takeover.once() == 0


async def _nothing(self: Any) -> None:
    return None


async def test_a_tool_call_of_an_agent_is_not_repeated(
    store: Store, flows: FlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openai")
    from switchroom.engine.providers import Models, ProviderSettings

    from .model_server import ModelServer, Say

    tools = [CustomTool(name="book", schema={"type": "object", "properties": {}}, code="return 'booked'")]
    canvas = draw(
        {
            "s": ("startAgentflow", {}),
            "a": (
                "agentAgentflow",
                {
                    "agentModel": "chatOpenAI",
                    "agentModelConfig": {"modelName": "m"},
                    "agentTools": [{"agentSelectedTool": "book"}],
                },
            ),
        },
        [("s", "a")],
    )
    graph = compact_canvas(canvas)
    slow = asyncio.Event()

    def script(body: dict[str, Any]) -> Say:
        if body["messages"][-1]["role"] != "tool":
            return Say(calls=[("book", {})])
        if not slow.is_set():
            slow.set()
            return Say("late", delay_s=30)
        return Say("It is " + body["messages"][-1]["content"])

    async with ModelServer(script) as server:
        models = Models({"openai": ProviderSettings(base_url=server.url, api_key="k", retries=0)})
        engine = Engine(flows, responder=models)
        runs = Runs(store)
        session = Session(session_id="s")

        async def first() -> None:
            async with runs.keep("f-1", "r-1") as kept:
                kept.given = given(graph, tools=tools)
                async with contextlib.aclosing(
                    engine.run(graph, session, kept.given.turn, tools=tools, journal=kept)
                ) as events:
                    async for _ in events:
                        pass

        with monkeypatch.context() as patch:
            patch.setattr(runs_module.Kept, "end", _nothing)
            task = asyncio.create_task(first())
            await slow.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await store.call("ZADD", keys.runs("f-1"), 1, "r-1")
        async with runs.take("f-1", "r-1") as kept:
            assert kept is not None and kept.session is not None and kept.given is not None
            async with contextlib.aclosing(
                engine.run(graph, kept.session, kept.given.turn, tools=kept.given.tools, journal=kept)
            ) as events:
                seen = [event async for event in events]
        await models.close()
    assert seen[-1] == TurnEnded(outcome="finished", text="It is booked")
    # The model was asked once for the first round, twice for the second; the tool ran in the first process only.
    assert len(server.requests) == 3


async def test_who_lost_the_lease_writes_nothing(store: Store, flows: FlowStore) -> None:
    graph = compact_canvas(draw({"s": ("startAgentflow", {}), "f": COUNT}, [("s", "f")]))
    runs = Runs(store)
    async with runs.keep("f-1", "r-1") as kept:
        kept.given = given(graph)
        await kept.begin(Session(session_id="s"))
        async with runs.take("f-1", "r-1") as none:
            assert none is None
        await store.call("ZADD", keys.runs("f-1"), 1, "r-1")
        async with runs.take("f-1", "r-1") as taken:
            assert taken is not None and taken.takes == 1
            with pytest.raises(RunLost):
                await kept.renew()
            assert kept.lost
        assert await store.call("EXISTS", keys.run("f-1", "r-1")) == 0


@pytest.mark.parametrize(
    ("takes", "left_ms", "state"),
    [(9, 30_000, ExecutionState.ERROR), (0, -1, ExecutionState.TIMEOUT)],
    ids=["lost-too-often", "too-late"],
)
async def test_a_run_that_cannot_go_on_ends(
    store: Store, flows: FlowStore, data_dir: Path, takes: int, left_ms: int, state: ExecutionState
) -> None:
    executions = Executions(store, await asyncio.to_thread(Blobs, data_dir))
    graph = compact_canvas(draw({"s": ("startAgentflow", {}), "f": COUNT}, [("s", "f")]))
    session = Session(session_id="s-1")
    record = await held(store, "00000000-0000-0000-0000-000000000002", session)
    await executions.begin(record)
    kept = runs_module.Kept(
        store, "f-1", record.id, "gone", given(graph, deadline_ms=int(time.time() * 1000) + left_ms)
    )
    await kept.begin(session)
    await store.call("ZADD", keys.runs("f-1"), 1, record.id)
    await store.call("HSET", keys.run("f-1", record.id), "takes", takes)
    assert await Takeover(store, Engine(flows), executions).once() == 1
    done = await executions.get(record.id)
    assert done is not None and done.state is state and done.detail


_CHILD = """
import asyncio, contextlib, sys, time
from switchroom.compact import compact_canvas
from switchroom.engine import Engine, FlowStore, Session
from switchroom.engine.events import TurnInput
from switchroom.engine import runs
from switchroom.engine.runs import Given, Runs
from switchroom.net import GuardedClient
from switchroom.store import Store
import msgspec

runs.LEASE_MS, runs._RENEW_S = 1_500, 0.5

async def main(url, run_id, canvas):
    store = await Store.connect(url)
    graph = compact_canvas(msgspec.json.decode(canvas))
    engine = Engine(FlowStore(store), client=GuardedClient(["127.0.0.1"]))
    session = Session(session_id="s-1")
    async with Runs(store).keep("f-1", run_id) as kept:
        kept.given = Given(graph=graph, turn=TurnInput(text="go", kind="start"),
                           deadline_ms=int(time.time() * 1000) + 60_000, kept_s=600)
        async with contextlib.aclosing(engine.run(graph, session, kept.given.turn, journal=kept)) as events:
            async for event in events:
                pass

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_killed_process_is_replaced(store: Store, flows: FlowStore, data_dir: Path, server_url: str) -> None:
    """kill -9 in the middle of the second request; another process goes on when the lease has ended."""
    executions = Executions(store, await asyncio.to_thread(Blobs, data_dir))
    ledger = Ledger()
    ledger.hold_at = 2
    async with ledger_server(ledger) as url, GuardedClient(["127.0.0.1"]) as client:
        ledger.held.clear()
        record = await held(store, "00000000-0000-0000-0000-000000000003", Session(session_id="s-1"))
        await executions.begin(record)
        canvas = msgspec.json.encode(canvas_of(url)).decode()
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", _CHILD, server_url, record.id, canvas)
        try:
            async with asyncio.timeout(30):
                while len(ledger.posts) < 2:
                    await asyncio.sleep(0.02)
        finally:
            os.kill(child.pid, signal.SIGKILL)
            await child.wait()
        ledger.held.set()
        killed = time.monotonic()
        takeover = Takeover(store, Engine(flows, client=client), executions)
        while not await takeover.once():
            assert time.monotonic() - killed < 20
            await asyncio.sleep(0.1)
    assert [n for n, _ in ledger.posts] == ["1", "2", "2"]
    assert ledger.posts[1][1] == ledger.posts[2][1]
    done = await executions.get(record.id)
    assert done is not None and done.state is ExecutionState.FINISHED
    assert [node["node_id"] for node in done.nodes] == ["s", "f", "h", "c", "l", "f", "h", "c", "r"]


def test_an_event_with_its_usage_can_be_kept() -> None:
    event = NodeFinished(
        node_id="a", label="A", node_kind="llm", at_ms=1, duration_ms=2.0, input=None, output={"content": "x"},
        branch=None, state={}, usage={"totalTokens": 3},
    )  # fmt: skip
    assert msgspec.json.decode(msgspec.json.encode(event), type=NodeFinished) == event
