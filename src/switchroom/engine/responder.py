"""What answers for an Agent: a model provider, or the embedded responder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

import msgspec

from switchroom.compact.templates import Lookup
from switchroom.engine.session import Message

__all__ = ["Answer", "Ask", "Choice", "Intent", "Prompt", "Responder", "Row", "Scenario", "SlotSpec", "Understood"]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A key and its value, a template: a state update."""

    key: str = ""
    value: Any = ""


class SlotSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A detail that an intent needs. `type` is `digits` (`least` to `most` of them), `name`, `date` or `text`;
    `ask` is what to say when it was not heard."""

    name: str = ""
    type: str = "text"
    ask: str = ""
    least: int = msgspec.field(name="min", default=1)
    most: int = msgspec.field(name="max", default=32)


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a caller may want: phrases that mean it, the details it needs, the reply (a template)."""

    intent: str = ""
    examples: list[str] = []
    slots: list[SlotSpec] = []
    reply: str = ""
    update_state: list[Row] = msgspec.field(name="updateState", default_factory=list)


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    scenario: str = ""
    examples: list[str] = []


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    role: str = "system"
    content: str = ""


class Ask(msgspec.Struct, kw_only=True):
    """What an Agent is asked. `question` is the caller's words, `prompts` its rendered messages, `previous` its own
    last output in this conversation, `schema` the fields of a structured answer, `lookup` reads templates."""

    question: str
    prompts: list[Prompt]
    history: Sequence[Message]
    intents: list[Intent]
    fallback: str
    schema: list[dict[str, Any]]
    previous: dict[str, Any]
    lookup: Lookup


class Choice(msgspec.Struct, kw_only=True):
    """What a Condition Agent is asked: which scenario fits."""

    question: str
    instructions: str
    scenarios: list[Scenario]


class Understood(msgspec.Struct, frozen=True, kw_only=True):
    """Comes before the text: the intent ("" for none) and the details heard. From here on templates see them."""

    intent: str
    slots: dict[str, Any]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Comes last: the node's output. It has `content`, the whole text, and `responder`, who gave it."""

    output: dict[str, Any]
    update_state: list[Row] = []


class Responder(Protocol):
    """Gives answers; every await inside may be cancelled."""

    name: str

    def answer(self, ask: Ask) -> AsyncIterator[Understood | str | Answer]:
        """Optionally one Understood, then pieces of text in order, then one Answer."""
        ...

    async def choose(self, choice: Choice) -> int:
        """The index of the scenario that fits, else the last."""
        ...
