"""What a node kind is, and what it is given to run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import msgspec

from switchroom.compact.model import CompactGraph, Node
from switchroom.compact.sandbox import Sandbox
from switchroom.compact.templates import render, value_of, walk
from switchroom.engine.flows import FlowStore
from switchroom.engine.responder import Responder, Row
from switchroom.engine.scope import Scope, set_path
from switchroom.errors import SwitchroomError

__all__ = ["NodeFault", "NodeKind", "Result", "Step", "params", "update_state"]

P = TypeVar("P", bound=msgspec.Struct)


class NodeFault(SwitchroomError):
    """A node cannot do its work: the turn fails with this code."""

    code = "node_failed"
    status = 422
    title = "Node failed"


class Result(NamedTuple):
    """What a node gave. `output` is what templates read; `branch` the output port taken (None: the only one);
    `wait` that it needs words that were not said yet; `inner` where a nested flow waits; `jump` the node to go back
    to."""

    output: Any = None
    input: Any = None
    branch: int | None = None
    wait: bool = False
    inner: str | None = None
    jump: str | None = None


class Step(msgspec.Struct, kw_only=True):
    """One run of one node.

    `fresh`: the caller's words are new, not spent by an earlier answer. `may_wait`: the flow can stop here until the
    caller speaks. `greet`: nobody has said anything yet. `speaks`: what this node says is for the caller's ear.
    `say` sends a piece of text to the caller; `nested` runs another graph with a question and gives its outcome
    (`text`, `inner` if it waits); `children` runs an Iteration's child nodes for one item and gives the last output.
    """

    node: Node
    graph: CompactGraph
    scope: Scope
    realtime: bool
    fresh: bool
    may_wait: bool
    greet: bool
    speaks: bool
    resume_at: str | None
    responder: Responder
    sandbox: Sandbox
    flows: FlowStore
    say: Callable[[str], Awaitable[None]]
    nested: Callable[[CompactGraph, str, dict[str, Any]], Awaitable[tuple[str, str | None]]]
    children: Callable[[Any, int], Awaitable[Any]]

    def render(self, text: str) -> str:
        return render(text, self.scope.lookup)

    def value(self, value: Any) -> Any:
        return value_of(value, self.scope.lookup)


class NodeKind(Protocol):
    """A node kind: its name in the compact graph, its declared inputs, and how it runs."""

    kind: ClassVar[str]
    params: ClassVar[type[msgspec.Struct]]

    def listens(self, node: Node) -> bool:
        """Whether it needs the caller's words, so that a live call waits for them here."""
        ...

    async def run(self, step: Step) -> Result: ...


def params(node: Node, declared: type[P]) -> P:
    """The node's inputs by its declaration. Raises NodeFault."""
    try:
        return msgspec.convert(node.inputs, declared, strict=False)
    except msgspec.ValidationError as error:
        raise NodeFault(f"The inputs of `{node.label or node.id}` are not right: {error}.", code="bad_node") from error


def update_state(step: Step, rows: list[Row], output: Any) -> None:
    """Sets state keys from templates; `{{ output }}` is this node's own output."""

    def lookup(path: tuple[str, ...]) -> Any:
        if path[0] != "output":
            return step.scope.lookup(path)
        if len(path) == 1 and isinstance(output, dict) and "content" in output:
            return output["content"]
        return walk(output, path[1:])

    for row in rows:
        if row.key:
            set_path(step.scope.session.state, row.key, value_of(row.value, lookup))
