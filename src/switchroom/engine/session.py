"""A conversation's memory between turns: serialisable, so that another process can take it over."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from switchroom.engine.events import Stop
from switchroom.engine.paused import Paused
from switchroom.engine.prompt import Prompt


class Message(msgspec.Struct, kw_only=True):
    """One utterance that was really said and heard. An `operator` talked to the caller in the agent's place; a `guide`
    is what an operator whispered to the agent, and the caller did not hear. `media` names what came with it
    (`Album`)."""

    role: Literal["caller", "agent", "operator", "guide"]
    text: str
    at_ms: int = 0
    media: list[str] = []


class Session(msgspec.Struct, kw_only=True):
    """State of one conversation.

    `form` and `state` come from the enqueue (state is merged over the Start node's declaration by the engine at
    the first turn); `position` is the node at which the next utterance continues (None: from Start); `outputs`
    holds the last output of each node; `loops` counts how often each Loop was taken.

    Of the run under way or stopped: `question` is what it began with, `began` the number of messages before it,
    `runtime` what its Agents and LLMs said to each other, `stops` where a person is asked, `paused` what it did until
    it stopped (for a person or for a time). `summary` stands for the
    first `summarised` messages (memory of the types `conversationSummary` and `conversationSummaryBuffer`).
    """

    session_id: str
    realtime: bool = False
    form: dict[str, Any] = {}
    state: dict[str, Any] = {}
    messages: list[Message] = []
    position: str | None = None
    outputs: dict[str, Any] = {}
    loops: dict[str, int] = {}
    started: bool = False
    question: str = ""
    began: int = 0
    runtime: list[Prompt] = []
    stops: list[Stop] = []
    paused: Paused | None = None
    summary: str = ""
    summarised: int = 0
