"""What a turn takes in and what it gives out. Wire names of a dialect never appear here."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class TurnInput(msgspec.Struct, frozen=True, kw_only=True):
    """One turn's input.

    `kind`: `start` opens a conversation (text may be empty: the flow speaks first, or the form's question is the
    first utterance); `utterance` is what the caller said or typed.
    """

    text: str = ""
    kind: Literal["start", "utterance"] = "utterance"


class NodeStarted(msgspec.Struct, frozen=True, kw_only=True, tag="node_started"):
    node_id: str
    label: str
    node_kind: str
    at_ms: int


class NodeFinished(msgspec.Struct, frozen=True, kw_only=True, tag="node_finished"):
    """A node is done. `output` is what templates read as `{{ nodeId.output.path }}`; `branch` is the output taken
    by a routing node; `state` is the flow state after it."""

    node_id: str
    label: str
    node_kind: str
    at_ms: int
    duration_ms: float
    input: Any
    output: Any
    branch: str | None
    state: dict[str, Any]


class Token(msgspec.Struct, frozen=True, kw_only=True, tag="token"):
    """A piece of text that the caller is to hear or read, in order."""

    node_id: str
    text: str


class TurnEnded(msgspec.Struct, frozen=True, kw_only=True, tag="turn_ended"):
    """The last event of every turn that does not fail. `outcome`: `await_input` the conversation goes on with the
    next utterance; `finished` the graph reached its end (a voice call hangs up once the text was heard)."""

    outcome: Literal["await_input", "finished"]
    text: str


class TurnFailed(msgspec.Struct, frozen=True, kw_only=True, tag="turn_failed"):
    """The last event of a turn that cannot go on. `code` is a stable word, `detail` a sentence with the node."""

    node_id: str | None
    code: str
    detail: str


Event = NodeStarted | NodeFinished | Token | TurnEnded | TurnFailed
