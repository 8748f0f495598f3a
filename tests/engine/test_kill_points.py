"""A process that dies at any write of a run: before it, or between it and the next side effect. Another one goes on,
and what came of the run is the same."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from switchroom.compact import compact_canvas
from switchroom.engine import Engine, FlowStore, Session
from switchroom.engine.events import TurnInput
from switchroom.engine.runs import Given, Kept, Runs
from switchroom.engine.takeover import Takeover
from switchroom.net import GuardedClient
from switchroom.records import Execution, Executions, ExecutionState
from switchroom.store import Blobs, Store, keys

from .conftest import draw
from .test_runs import COUNT, START, Ledger, ledger_server, post

_EDGES: list[Any] = [
    *(("s", "i"), ("f", "h"), ("i", "x"), ("i", "b"), ("x", "m"), ("b", "m"), ("m", "c")),
    *(("c", "l", 0), ("c", "r", 1)),
]


def canvas_of(url: str) -> dict[str, Any]:
    """Counts and posts for each of two items, then in another flow, in branches and over a Loop; then says what it
    counted."""
    return draw(
        {
            "s": START,
            "i": ("iterationAgentflow", {"iterationInput": "[1, 2]"}),
            "f": COUNT,
            "h": post(url),
            "x": ("executeFlowAgentflow", {"executeFlowSelectedFlow": "inner"}),
            "b": ("directReplyAgentflow", {"directReplyMessage": "Beside."}),
            "m": COUNT,
            "c": (
                "conditionAgentflow",
                {
                    "conditions": [
                        {"type": "number", "value1": "{{ $flow.state.n }}", "operation": "smaller", "value2": "5"}
                    ]
                },
            ),
            "l": ("loopAgentflow", {"loopBackToNode": "m", "maxLoopCount": 5}),
            "r": ("directReplyAgentflow", {"directReplyMessage": "Counted to {{ $flow.state.n }}: {{ i }}"}),
        },
        _EDGES,
        f="i",
        h="i",
    )  # fmt: skip


class Mortal(Kept):
    """Stops for ever at its write number `dies_at`: before it, or once it is done."""

    dies_at = 0
    after = False
    writes = 0
    dead: asyncio.Event

    async def _keep(self, *fields: str | bytes) -> None:
        cls = type(self)
        cls.writes += 1
        if cls.writes == cls.dies_at and not cls.after:
            cls.dead.set()
            await asyncio.Event().wait()
        await super()._keep(*fields)
        if cls.writes == cls.dies_at:
            cls.dead.set()
            await asyncio.Event().wait()

    async def end(self) -> None:
        """A dead process forgets nothing."""


async def run_once(
    store: Store, flows: FlowStore, data_dir: Path, monkeypatch: pytest.MonkeyPatch, dies_at: int, after: bool
) -> tuple[Any, ...]:
    """What came of a run whose process died there (0: nowhere), and how many writes it made by itself."""
    await store.call("FLUSHALL")
    executions = Executions(store, await asyncio.to_thread(Blobs, data_dir))
    ledger = Ledger()
    async with ledger_server(ledger) as url, GuardedClient(["127.0.0.1"]) as client:
        inner = draw({"s": ("startAgentflow", {}), "g": COUNT, "p": post(url)}, [("s", "g"), ("g", "p")])
        await flows.save(inner, flow_id="inner")
        record = Execution(id="00000000-0000-0000-0000-0000000000aa", flow_id="f-1", session_id="s-1", kind="turn")
        await store.call("SET", keys.session_lock("f-1", "s-1"), record.id, "PX", 60_000)
        await executions.begin(record)
        engine = Engine(flows, client=client)
        Mortal.dies_at, Mortal.after, Mortal.writes, Mortal.dead = dies_at, after, 0, asyncio.Event()
        given = Given(
            graph=compact_canvas(canvas_of(url)),
            turn=TurnInput(text="go", kind="start"),
            deadline_ms=int(time.time() * 1000) + 30_000,
            kept_s=600,
        )

        async def first() -> None:
            async with Runs(store).keep("f-1", record.id) as kept:
                kept.given = given
                running = engine.run(given.graph, Session(session_id="s-1"), given.turn, journal=kept)
                async with contextlib.aclosing(running) as events:
                    async for _ in events:
                        pass

        with monkeypatch.context() as patch:
            patch.setattr("switchroom.engine.runs.Kept", Mortal)
            task = asyncio.create_task(first())
            died = asyncio.create_task(Mortal.dead.wait())
            await asyncio.wait({task, died}, return_when=asyncio.FIRST_COMPLETED)
            for one in (task, died):
                one.cancel()
            await asyncio.gather(task, died, return_exceptions=True)
        await store.call("ZADD", keys.runs("f-1"), 1, record.id)
        assert await Takeover(store, engine, executions).once() == 1
    done = await executions.get(record.id)
    assert done is not None
    saved = msgspec.json.decode(await store.call("GET", keys.session("f-1", "s-1")), type=Session)
    # A request that was under way may come twice, with one key: its receiver knows it again.
    assert len(ledger.posts) <= len(set(ledger.posts)) + 1
    return (
        done.state,
        done.final_state,
        [message.text for message in saved.messages],
        sorted(node["node_id"] for node in done.nodes),
        [said for said, _ in dict.fromkeys(ledger.posts)],
    )


async def test_wherever_its_process_dies_a_run_comes_to_the_same(
    store: Store, flows: FlowStore, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = await run_once(store, flows, data_dir, monkeypatch, 0, False)
    writes = Mortal.writes
    assert whole[0] is ExecutionState.FINISHED
    assert (whole[1], whole[4]) == ({"n": "5"}, ["1", "2", "3"])
    assert whole[2][0] == "go" and whole[2][1].startswith("Beside. Counted to 5: ")
    assert writes > 15
    for at in range(1, writes + 1):
        for after in (False, True):
            came = await run_once(store, flows, data_dir, monkeypatch, at, after)
            assert came == whole, (at, after)
