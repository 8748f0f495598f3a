"""What a turn takes in and what it gives out. Wire names of a dialect never appear here."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class HumanAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a person decided where a run stopped. `node_id` names the stop ("" where there is only one)."""

    type: Literal["proceed", "reject"]
    node_id: str = ""
    feedback: str = ""


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run waits for a person. `position` is the node's place, through nested flows
    (`executeFlow_0>humanInput_0`)."""

    position: str
    node_id: str
    label: str
    question: str
    options: tuple[str, ...] = ("proceed", "reject")
    feedback: bool = True
    at_ms: int = 0


class TurnInput(msgspec.Struct, frozen=True, kw_only=True):
    """One turn's input.

    `kind`: `start` opens a conversation (text may be empty: the flow speaks first, or the form's question is the
    first utterance); `utterance` is what the caller said or typed. With `human` a run that stopped for a person goes
    on.
    """

    text: str = ""
    kind: Literal["start", "utterance"] = "utterance"
    human: HumanAnswer | None = None


class NodeStarted(msgspec.Struct, frozen=True, kw_only=True, tag="node_started"):
    node_id: str
    label: str
    node_kind: str
    at_ms: int


class NodeFinished(msgspec.Struct, frozen=True, kw_only=True, tag="node_finished"):
    """A node is done. `output` is what templates read as `{{ nodeId.output.path }}`; `branch` is the output taken
    by a routing node; `state` is the flow state after it; `usage` what a model counted (`model`, `inputTokens`,
    `outputTokens`, `totalTokens`)."""

    node_id: str
    label: str
    node_kind: str
    at_ms: int
    duration_ms: float
    input: Any
    output: Any
    branch: str | None
    state: dict[str, Any]
    usage: dict[str, Any] = {}


class Token(msgspec.Struct, frozen=True, kw_only=True, tag="token"):
    """A piece of text that the caller is to hear or read, in order."""

    node_id: str
    text: str


class TurnEnded(msgspec.Struct, frozen=True, kw_only=True, tag="turn_ended"):
    """The last event of every turn that does not fail. `outcome`: `await_input` the conversation goes on with the
    next utterance; `finished` the graph reached its end (a voice call hangs up once the text was heard); `stopped` a
    person is asked: `stop` is the first question, the session's `stops` all of them."""

    outcome: Literal["await_input", "finished", "stopped"]
    text: str
    stop: Stop | None = None


class TurnFailed(msgspec.Struct, frozen=True, kw_only=True, tag="turn_failed"):
    """The last event of a turn that cannot go on. `code` is a stable word, `detail` a sentence with the node."""

    node_id: str | None
    code: str
    detail: str


Event = NodeStarted | NodeFinished | Token | TurnEnded | TurnFailed
