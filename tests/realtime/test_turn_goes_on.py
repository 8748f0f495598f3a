"""A turn of a live call whose process dies: the next attempt goes on with it, and what was done is not done again."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from switchroom.compact import CompactGraph, compact_canvas
from switchroom.engine import Engine, FlowStore
from switchroom.engine.events import Event, Token, TurnEnded, TurnInput
from switchroom.engine.session import Session
from switchroom.errors import Conflict
from switchroom.net import GuardedClient
from switchroom.realtime.memory import CallMemory
from switchroom.store import Store

COUNT = {
    "customFunctionJavascriptFunction": "return Number($flow.state.n) + 1",
    "customFunctionUpdateState": [{"key": "n", "value": "{{ output }}"}],
}


def booking(url: str) -> CompactGraph:
    """Counts, books, counts, books once more over a loop of one, and says how far it came."""
    post = {"method": "POST", "url": url, "bodyType": "json", "body": '{"n": "{{ $flow.state.n }}"}'}
    nodes = {
        "s": ("startAgentflow", {"startState": [{"key": "n", "value": "0"}]}),
        "f": ("customFunctionAgentflow", COUNT),
        "h": ("httpAgentflow", post),
        "l": ("loopAgentflow", {"loopBackToNode": "f", "maxLoopCount": 1}),
        "r": ("directReplyAgentflow", {"directReplyMessage": "Booked {{ $flow.state.n }} times."}),
    }
    edges = [("s", "f"), ("f", "h"), ("h", "l"), ("l", "r")]
    return compact_canvas(
        {
            "nodes": [
                {"id": key, "data": {"name": name, "label": key, "inputs": inputs}}
                for key, (name, inputs) in nodes.items()
            ],
            "edges": [{"source": one, "target": other, "sourceHandle": f"{one}-output-0"} for one, other in edges],
        }
    )


class Desk:
    """Takes bookings, by their idempotency keys."""

    def __init__(self) -> None:
        self.took: list[tuple[str, str]] = []

    async def take(self, request: web.Request) -> web.Response:
        self.took.append(((await request.json())["n"], request.headers["Idempotency-Key"]))
        return web.json_response({"ok": True})


async def attempt(
    store: Store, engine: Engine, graph: CompactGraph, token: int, *, events: int = 1_000
) -> tuple[Session, list[Event]]:
    """What a media process does with the call that it holds by `token`, until so many events came of the turn."""
    memory = CallMemory(store, "flow", "task", token)
    left = await memory.recall()
    session = left.session if left is not None else Session(session_id="s", realtime=True)
    given = left.given if left is not None and left.given is not None else TurnInput(text="book", kind="start")
    memory.keep(session, given)
    seen: list[Event] = []
    running = engine.run(graph, session, given, journal=memory.journal(session, given))
    async with contextlib.aclosing(running):
        async for event in running:
            seen.append(event)
            if len(seen) >= events:
                break
    return session, seen


def words(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Token))


async def test_whatever_was_done_is_not_done_again(store: Store) -> None:
    desk = Desk()
    app = web.Application()
    app.router.add_post("/", desk.take)
    async with TestServer(app) as server, GuardedClient(["127.0.0.1"]) as client:
        graph, engine = booking(str(server.make_url("/"))), Engine(FlowStore(store), client=client)
        _, whole = await attempt(store, engine, graph, 1)
        said = words(whole)
        assert isinstance(whole[-1], TurnEnded) and len(desk.took) > 1 and said
        for cut in range(1, len(whole)):
            await store.call("FLUSHALL")
            desk.took.clear()
            _, first = await attempt(store, engine, graph, 1, events=cut)
            # and its second process dies as well
            await attempt(store, engine, graph, 2, events=cut)
            session, last = await attempt(store, engine, graph, 3)
            assert words(last) == said, first  # the caller hears all of the answer
            assert len(set(desk.took)) == len({n for n, _ in desk.took})  # one key a booking, whoever made it
            # What was under way at the cut may come twice, by the same key: its receiver knows it again.
            assert len(desk.took) <= len(set(desk.took)) + 2
            assert [message.text for message in session.messages] == ["book", said]
            assert {n for n, _ in desk.took} == {str(n + 1) for n in range(len(set(desk.took)))}


async def test_who_lost_the_call_does_nothing_more(store: Store) -> None:
    earlier, later = CallMemory(store, "flow", "task", 1), CallMemory(store, "flow", "task", 2)
    session, given = Session(session_id="s", realtime=True), TurnInput(text="book")
    earlier.keep(session, given)
    journal = earlier.journal(session, given)
    await journal.begin(session)
    later.keep(session, TurnInput(text="another"))
    await later.save()

    async def work() -> Any:
        return 1

    with pytest.raises(Conflict):
        await journal.once("h#1", work)
