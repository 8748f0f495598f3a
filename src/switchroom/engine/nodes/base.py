"""What a node kind is, and what it is given to run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import msgspec
import pyjson5

from switchroom.compact.model import CompactGraph, Node
from switchroom.compact.sandbox import Sandbox
from switchroom.compact.templates import render, value_of, walk
from switchroom.engine.custom_tool import CustomTool
from switchroom.engine.events import HumanAnswer, Media
from switchroom.engine.flows import Flow, FlowStore
from switchroom.engine.responder import Once, Responder, Row
from switchroom.engine.retriever import Retriever
from switchroom.engine.scope import Scope, set_path
from switchroom.errors import SwitchroomError
from switchroom.net import GuardedClient

__all__ = [
    "AskPerson",
    "Child",
    "Ended",
    "Kit",
    "NodeFault",
    "NodeKind",
    "Parked",
    "Question",
    "Result",
    "Step",
    "decoded",
    "drawn",
    "params",
    "update_state",
]

P = TypeVar("P", bound=msgspec.Struct)


class NodeFault(SwitchroomError):
    """A node cannot do its work: the turn fails with this code."""

    code = "node_failed"
    status = 422
    title = "Node failed"


class Result(NamedTuple):
    """What a node gave. `output` is what templates read; `branch` the output port taken (None: the only one);
    `wait` that it needs words that were not said yet; `inner` where a nested flow waits; `jump` the node to go back
    to; `usage` what a model counted; `stop` what a person is asked; `until_ms` that the run waits until that Unix time;
    `stopped` that either happens inside of it."""

    output: Any = None
    input: Any = None
    branch: int | None = None
    wait: bool = False
    inner: str | None = None
    jump: str | None = None
    usage: dict[str, Any] | None = None
    stop: Question | None = None
    until_ms: int = 0
    stopped: bool = False


class Question(NamedTuple):
    """What a person is asked; `feedback`: a sentence may be given with the answer; `calls`: the tool calls that it is
    about; `shown`: what it is about, which nobody has seen yet."""

    text: str
    feedback: bool
    calls: list[dict[str, Any]] = []  # noqa: RUF012 - never changed
    shown: str = ""

    @property
    def whole(self) -> str:
        return f"{self.shown}\n\n{self.text}" if self.shown else self.text


class AskPerson(Exception):
    """A person has to be asked before the node can go on."""

    def __init__(self, question: Question) -> None:
        super().__init__(question.text)
        self.question = question


class Parked(Exception):
    """The run waits inside of what was called."""


class Child(NamedTuple):
    """What an Iteration's children gave for one item; `stopped`: the run waits inside of them."""

    output: Any
    stopped: bool = False


class Ended(NamedTuple):
    """How a graph's pass ended: `wait` is the position at which it waits for words, `stopped` whether a person is asked
    (then and without either it is at its end); `text` the last output."""

    wait: str | None
    text: str
    stopped: bool = False

    @property
    def stays(self) -> bool:
        return self.wait is not None or self.stopped


class Kit(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine works with, the same for every run."""

    flows: FlowStore
    responder: Responder
    sandbox: Sandbox
    client: GuardedClient | None = None
    retriever: Retriever | None = None
    programs: frozenset[tuple[str, ...]] = frozenset()
    """MCP servers that a canvas may have started: a program and its arguments."""


class Step(msgspec.Struct, kw_only=True):
    """One run of one node.

    `fresh`: the caller's words are new, not spent by an earlier answer. `may_wait`: the flow can stop here until the
    caller speaks. `greet`: nobody has said anything yet. `speaks`: what this node says is for the caller's ear.
    `can_park`: the run may wait for a time longer than the turn; `human`: what a person who was asked here said.
    `media`: the pictures and sounds of this run. `key` names this step within its run, and is
    the same when the run goes on in another process. `past` counts the session's messages before this run; `deadline`
    is the loop's time by which the turn ends. `say` sends a piece of text to the caller; `nested` runs another flow
    with a question, variables over those of the turn, and state over what it declares; `called` runs one as a tool,
    with a word that tells this call from the others of the node, heard by nobody (raises Parked where it waits);
    `children` runs an Iteration's child nodes for one item; `once` runs a side effect once; `recall` gives
    what came with the session's earlier messages, by its names.
    """

    node: Node
    graph: CompactGraph
    scope: Scope
    kit: Kit
    realtime: bool
    fresh: bool
    may_wait: bool
    can_park: bool
    greet: bool
    speaks: bool
    key: str
    past: int
    deadline: float
    tools: dict[str, CustomTool]
    human: HumanAnswer | None
    media: list[Media]
    say: Callable[[str], Awaitable[None]]
    nested: Callable[[Flow, str, dict[str, Any], dict[str, Any]], Awaitable[Ended]]
    called: Callable[[Flow, str, str], Awaitable[str]]
    children: Callable[[Any, int], Awaitable[Child]]
    once: Once
    recall: Callable[[str, list[str]], Awaitable[list[Media]]]

    @property
    def label(self) -> str:
        return self.node.label or self.node.id

    @property
    def responder(self) -> Responder:
        return self.kit.responder

    @property
    def sandbox(self) -> Sandbox:
        return self.kit.sandbox

    @property
    def flows(self) -> FlowStore:
        return self.kit.flows

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


def decoded(text: str) -> Any:
    """The text's JSON value; the text itself where it is no JSON."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def drawn(text: str) -> Any:
    """The value of JSON that a person wrote by hand in a canvas, where JSON5 is common (single quotes, bare keys); the
    text itself where it is neither."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        pass
    try:
        return pyjson5.decode(text)
    except pyjson5.Json5Exception:
        return text


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
