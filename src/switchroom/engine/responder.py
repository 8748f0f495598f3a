"""What answers for an Agent: a model provider, or the embedded responder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol

import msgspec

from switchroom.compact.templates import Lookup
from switchroom.engine.events import HumanAnswer, Media
from switchroom.engine.prompt import Prompt
from switchroom.engine.retriever import Passages
from switchroom.engine.session import Message
from switchroom.errors import SwitchroomError

__all__ = [
    "ANSWER_ROLES",
    "Answer",
    "Ask",
    "Choice",
    "Choosing",
    "Consent",
    "Intent",
    "MediaNotTaken",
    "Once",
    "Prompt",
    "Responder",
    "Row",
    "Scenario",
    "SlotSpec",
    "Tool",
    "Understood",
    "afresh",
    "asks_model",
    "no_model_sees",
    "nobody",
]

ANSWER_ROLES = {"userMessage": "user", "assistantMessage": "assistant"}
"""How the nodes after it see a node's answer, by the canvas's word."""


class MediaNotTaken(SwitchroomError):
    """No model of the flow takes what was uploaded."""

    code = "upload_not_supported"
    status = 415
    title = "Unsupported media type"


Once = Callable[[str, Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""Runs a side effect once a run: with its name and its JSON value kept, so that a run that goes on elsewhere has the
value and not the effect again."""


async def afresh(name: str, work: Callable[[], Awaitable[Any]]) -> Any:
    """The `Once` of a run that is not kept."""
    return await work()


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


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """What a model may call: `schema` is the JSON Schema of the arguments. `call` takes them and a word that tells this
    call from the others of its node, and gives a text; a fault of the tool's own is told to the model."""

    name: str
    description: str
    schema: dict[str, Any]
    call: Callable[[dict[str, Any], str], Awaitable[str]]
    approve: bool = False
    """A person has to agree to each call."""


Consent = Callable[[str, list[dict[str, Any]]], Awaitable[HumanAnswer]]
"""A person's word on some tool calls, `{tool, toolInput}` each, with a word that tells this question from the others
of its node. Where nobody has answered yet it raises, and the node runs again once somebody has."""


async def nobody(place: str, calls: list[dict[str, Any]]) -> HumanAnswer:
    """The `Consent` where no person can be asked."""
    return HumanAnswer(type="reject", feedback="Nobody can be asked here.")


class Ask(msgspec.Struct, kw_only=True):
    """What an Agent is asked. `question` is the caller's words, `prompts` its rendered messages, `previous` its own
    last output in this conversation, `schema` the fields of a structured answer, `lookup` reads templates.

    For a model: its name in the canvas and settings, the turns before this one (`past`), what the nodes before said in
    this turn (`turn`), whether the question is to be put after that, the tools, the pictures and sounds that came with
    the question, `once` for each side effect, and `consent` for tools that need it.

    For the embedded responder: `passages` searches what the node knows (None where it knows nothing), and `spoken` says
    that the answer is heard, not read."""

    question: str
    prompts: list[Prompt]
    history: Sequence[Message]
    intents: list[Intent]
    fallback: str
    schema: list[dict[str, Any]]
    previous: dict[str, Any]
    lookup: Lookup
    model: str = ""
    config: dict[str, Any] = {}
    past: Sequence[Prompt] = ()
    turn: Sequence[Prompt] = ()
    puts_question: bool = True
    tools: Sequence[Tool] = ()
    media: Sequence[Media] = ()
    once: Once = afresh
    consent: Consent = nobody
    words: str = ""
    """What the caller said, where the question is an instruction around it."""
    passages: Passages | None = None
    spoken: bool = False


def no_model_sees(ask: Ask) -> MediaNotTaken:
    """For a responder without a model."""
    what = " and ".join(sorted({media.kind for media in ask.media}))
    return MediaNotTaken(
        f"The upload ({what}) needs a model that takes it, and no model answers here: set a provider "
        "(SWITCHROOM_PROVIDERS)."
    )


class Choice(msgspec.Struct, kw_only=True):
    """What a Condition Agent is asked: which scenario fits. `system` replaces the model's standing instructions, `past`
    is what a model is told of the conversation."""

    question: str
    instructions: str
    scenarios: list[Scenario]
    model: str = ""
    config: dict[str, Any] = {}
    system: str = ""
    past: Sequence[Prompt] = ()


class Understood(msgspec.Struct, frozen=True, kw_only=True):
    """Comes before the text: the intent ("" for none) and the details heard. From here on templates see them."""

    intent: str
    slots: dict[str, Any]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Comes last: the node's output. It has `content`, the whole text, and `responder`, who gave it. `usage` is what a
    model counted: `model`, `inputTokens`, `outputTokens`, `totalTokens`."""

    output: dict[str, Any]
    update_state: list[Row] = []
    usage: dict[str, Any] = {}


class Choosing(msgspec.Struct, frozen=True, kw_only=True):
    """A choice with what it cost and who made it."""

    index: int
    responder: str
    usage: dict[str, Any] = {}


def asks_model(responder: Responder, model: str) -> bool:
    """Whether the responder has a model answer for a node that names this one. One that does not say so itself does."""
    says = getattr(responder, "asks_model", None)
    return bool(model) and (bool(says(model)) if says is not None else responder.name != "embedded")


class Responder(Protocol):
    """Gives answers; every await inside may be cancelled."""

    name: str

    def answer(self, ask: Ask) -> AsyncIterator[Understood | str | Answer]:
        """Optionally one Understood, then pieces of text in order, then one Answer."""
        ...

    async def choose(self, choice: Choice) -> int | Choosing:
        """The index of the scenario that fits, else the last."""
        ...
