"""What a turn takes in and what it gives out. Wire names of a dialect never appear here."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec


class HumanAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a person decided where a run stopped. `node_id` names the stop ("" where there is only one)."""

    type: Literal["proceed", "reject"]
    node_id: str = ""
    feedback: str = ""


class Media(msgspec.Struct, frozen=True, kw_only=True):
    """A picture or a sound that comes with a turn, for models that take such: `data` is base64, `mime` its type; or
    `url` is where a picture lies, which the model's service fetches."""

    name: str
    mime: str
    data: str = ""
    url: str = ""

    @property
    def kind(self) -> str:
        """`image` or `audio`."""
        return self.mime.partition("/")[0]


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run waits for a person. `position` is the node's place, through nested flows and the items of Iterations
    (`executeFlow_0>humanInput_0`, `iteration_0#2/humanInput_0`). `calls` are the tool calls that an Agent wants consent
    for, `{tool, toolInput}` each."""

    position: str
    node_id: str
    label: str
    question: str
    options: tuple[str, ...] = ("proceed", "reject")
    feedback: bool = True
    at_ms: int = 0
    calls: list[dict[str, Any]] = []


class TurnInput(msgspec.Struct, frozen=True, kw_only=True):
    """One turn's input.

    `kind`: `start` opens a conversation (text may be empty: the flow speaks first, or the form's question is the
    first utterance); `utterance` is what the caller said or typed. With `human` a run that stopped for a person goes
    on. `media` are pictures and sounds for the models of this run.
    """

    text: str = ""
    kind: Literal["start", "utterance"] = "utterance"
    human: HumanAnswer | None = None
    media: list[Media] = []


class NodeStarted(msgspec.Struct, frozen=True, kw_only=True, tag="node_started"):
    node_id: str
    label: str
    node_kind: str
    at_ms: int


class NodeFinished(msgspec.Struct, frozen=True, kw_only=True, tag="node_finished"):
    """A node is done. `output` is what templates read as `{{ nodeId.output.path }}`; `branch` is the output taken
    by a routing node; `state` is the flow state after it; `usage` what a model counted (`model`, `inputTokens`,
    `outputTokens`, `totalTokens`); `error` why it failed (then the turn fails), `waits` that it has only asked a person
    or waits for a time. `previous` are the nodes that led here (None: the turn before did, where the words of this one
    were awaited); `inside` the Iteration or Execute Flow that holds it, `item` the number of the Iteration's item."""

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
    error: str = ""
    waits: bool = False
    previous: list[str] | None = None
    inside: str | None = None
    item: int | None = None


class Token(msgspec.Struct, frozen=True, kw_only=True, tag="token"):
    """A piece of text that the caller is to hear or read, in order."""

    node_id: str
    text: str


class TurnEnded(msgspec.Struct, frozen=True, kw_only=True, tag="turn_ended"):
    """The last event of every turn that does not fail. `outcome`: `await_input` the conversation goes on with the
    next utterance; `finished` the graph reached its end (a voice call hangs up once the text was heard); `stopped` a
    person is asked: `stop` is the first question, the session's `stops` all of them; or the run goes on by itself at
    `resumes_ms` (Unix time; 0: it does not)."""

    outcome: Literal["await_input", "finished", "stopped"]
    text: str
    stop: Stop | None = None
    resumes_ms: int = 0

    @property
    def detail(self) -> str:
        """What the run waits for, where it waits for a time."""
        if not self.resumes_ms:
            return ""
        at = datetime.fromtimestamp(self.resumes_ms / 1000, UTC).isoformat(timespec="seconds")
        return f"The run goes on by itself at {at.replace('+00:00', 'Z')}."


class TurnFailed(msgspec.Struct, frozen=True, kw_only=True, tag="turn_failed"):
    """The last event of a turn that cannot go on. `code` is a stable word, `detail` a sentence with the node, `status`
    the HTTP status where it is the request's fault."""

    node_id: str | None
    code: str
    detail: str
    status: int = 500


Event = NodeStarted | NodeFinished | Token | TurnEnded | TurnFailed
