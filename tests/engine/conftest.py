"""A flow store on the real server, an engine, and canvases drawn in a few words."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from switchroom.compact import CompactGraph, compact_canvas
from switchroom.engine import Engine, FlowStore, Session
from switchroom.engine.events import Event, NodeFinished, Token, TurnEnded, TurnFailed, TurnInput
from switchroom.store import Store

Edge = tuple[str, str] | tuple[str, str, int | str]


def draw(nodes: dict[str, tuple[str, dict[str, Any]]], edges: Iterable[Edge], **parents: str) -> dict[str, Any]:
    """A canvas: nodes as `id: (name, inputs)`, edges as `(source, target[, port])`, `child=iteration`."""
    return {
        "nodes": [
            {"id": key, "data": {"name": name, "label": key, "inputs": inputs}}
            | ({"parentNode": parents[key]} if key in parents else {})
            for key, (name, inputs) in nodes.items()
        ],
        "edges": [
            {
                "source": edge[0],
                "target": edge[1],
                "sourceHandle": f"{edge[0]}-output-{edge[2] if len(edge) > 2 else 0}",
            }
            for edge in edges
        ],
    }


class Talk:
    """A conversation: `say` runs a turn and keeps its events."""

    def __init__(self, engine: Engine, graph: CompactGraph, session: Session) -> None:
        self.engine, self.graph, self.session = engine, graph, session
        self.events: list[Event] = []

    async def say(self, text: str | None = None) -> TurnEnded | TurnFailed:
        """What was said; None opens the conversation."""
        turn = TurnInput(kind="start") if text is None else TurnInput(text=text)
        async with contextlib.aclosing(self.engine.run(self.graph, self.session, turn)) as events:
            self.events = [event async for event in events]
        last = self.events[-1]
        assert isinstance(last, (TurnEnded, TurnFailed))
        if isinstance(last, TurnEnded):
            heard = "".join(event.text for event in self.events if isinstance(event, Token))
            assert heard.strip() == last.text
        return last

    @property
    def trace(self) -> list[str]:
        return [event.node_id for event in self.events if isinstance(event, NodeFinished)]


@pytest.fixture
async def flows(store: Store) -> FlowStore:
    return FlowStore(store)


@pytest.fixture
async def engine(flows: FlowStore) -> Engine:
    return Engine(flows)


@pytest.fixture
def talk(engine: Engine) -> Callable[..., Talk]:
    def open_talk(canvas: dict[str, Any], **session: Any) -> Talk:
        return Talk(engine, compact_canvas(canvas), Session(session_id="s-1", **session))

    return open_talk
