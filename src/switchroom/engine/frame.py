"""A graph on the way: the turn's own, a nested flow's, or an Iteration's inside; and what is told of a step in it."""

from __future__ import annotations

import copy
import time
from typing import NamedTuple

from switchroom.compact.model import CompactGraph, Node
from switchroom.compact.palette import BY_NAME
from switchroom.engine.custom_tool import CustomTool
from switchroom.engine.events import NodeFinished
from switchroom.engine.nodes.base import Result
from switchroom.engine.scope import Scope

__all__ = ["Frame", "label_of", "told_of"]


class Frame(NamedTuple):
    """What the steps of one graph have in common."""

    graph: CompactGraph
    scope: Scope
    depth: int
    may_wait: bool
    ends_call: bool
    """Its end is the conversation's end."""
    path: str
    """Before the keys of its steps."""
    inside: str
    """The key of the step that it is inside of."""
    tools: dict[str, CustomTool]
    silent: bool = False
    """What is said inside is heard by nobody: it is a tool's."""
    holder: str | None = None
    """The node that it is inside of."""
    item: int | None = None
    """The number of the Iteration's item."""


def told_of(
    frame: Frame, node: Node, result: Result, started: float, previous: list[str] | None, *, error: str = ""
) -> NodeFinished:
    """What is told of a step that began at the monotonic time `started` and gave `result`, or failed with `error`."""
    return NodeFinished(
        node_id=node.id,
        label=label_of(node),
        node_kind=node.kind,
        at_ms=time.time_ns() // 1_000_000,
        duration_ms=(time.monotonic() - started) * 1000,
        input=result.input,
        output=result.output,
        branch=None if result.branch is None else str(result.branch),
        # A copy: the state goes on changing after this event.
        state=copy.deepcopy(frame.scope.session.state),
        usage=result.usage or {},
        error=error,
        waits=result.wait or result.stopped,
        previous=previous,
        inside=frame.holder,
        item=frame.item,
    )


def label_of(node: Node) -> str:
    """The label that the canvas gave it, else its kind's."""
    return node.label or (BY_NAME[node.kind].label if node.kind in BY_NAME else node.id)
