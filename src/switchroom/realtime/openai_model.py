"""The model behind a Realtime service as the flow's responder: it finds the words, the graph decides the way.

An Agent's prompts are the session's instructions, each of its intents is a function that the model calls when the
caller means it. A Condition Agent's choice is one function with the scenarios as its values, and a structured answer
one with the fields; both are asked for aside from the conversation.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import msgspec

from switchroom.compact.templates import render
from switchroom.engine.embedded import Embedded
from switchroom.engine.match import find_slot
from switchroom.engine.responder import Answer, Ask, Choice, Intent, Row, SlotSpec, Understood
from switchroom.engine.responder import Tool as AgentTool
from switchroom.errors import SwitchroomError, Unavailable
from switchroom.realtime.openai_link import Link
from switchroom.realtime.openai_mouth import Mouth
from switchroom.realtime.openai_wire import FunctionCall, Tool, Wanted
from switchroom.realtime.running_turn import Turn

log = logging.getLogger(__name__)

_MANNER = (
    "You are the voice of an agent on the phone. Answer in one or two short sentences, in the caller's language. "
    "Say nothing that you were not told and did not hear."
)
_CALL_FIRST = (
    "When the caller's words mean one of the functions, call it before you say anything; never speak of functions."
)
_GO_ON = "You were cut off. You had said: {said}\nGo on from exactly there and repeat nothing."
_TOOL_ROUNDS = 8
"""How often a model may ask for an Agent's tools before it has to answer."""
_TYPES = {"number": "number", "boolean": "boolean", "stringArray": "array", "jsonArray": "array"}


def exactly(text: str) -> Wanted:
    """A text that somebody wrote is to be said as it is."""
    return Wanted(instructions=f"Say exactly the following text, word for word, and nothing else.\n\n{text}")


def rest_of(text: str) -> Callable[[str], Wanted | None]:
    """For `Mouth.speak`: the text, or what of it was not said yet."""

    def make(said: str) -> Wanted | None:
        words = text.split()[len(said.split()) :] if said else text.split()
        return exactly(" ".join(words) if said else text) if words else None

    return make


class ModelResponder:
    """One call's responder. `turn` is the conversation's running turn."""

    name = "openai"

    def __init__(self, link: Link, mouth: Mouth, turn: Callable[[], Turn | None]) -> None:
        self._link = link
        self._mouth = mouth
        self._turn = turn
        self._embedded = Embedded()
        self._spoken: deque[str] = deque()
        self._spoken_in: Turn | None = None

    def has_spoken(self, token: str) -> bool:
        """Whether this next token of the turn is the model's own, and thus on its way to the caller already."""
        if self._turn() is not self._spoken_in:
            return False  # what is left is of a turn that was interrupted
        if self._spoken and token in (self._spoken[0], f" {self._spoken[0]}"):
            self._spoken.popleft()
            return True
        return False

    # --- Responder -----------------------------------------------------------------------------------------------

    async def answer(self, ask: Ask) -> AsyncIterator[Understood | str | Answer]:
        if ask.schema:
            yield await self._fields(ask)
            return
        turn = self._turn()
        if turn is None:
            return
        await self._after_earlier_words(turn)
        shows, intents = _tools(ask.intents)
        own = {tool.name: tool for tool in ask.tools if tool.name not in intents}
        tools = [*shows, *(_offered(tool) for tool in own.values())]
        instructions = _instructions(ask, turn, calls=bool(tools))
        self._link.configure(instructions, tools)
        yield Understood(intent="", slots={})
        words: list[str] = []
        used: list[dict[str, Any]] = []
        shown: list[FunctionCall] = []
        told = instructions
        for number in range(_TOOL_ROUNDS + 1):
            calls: list[FunctionCall] = []
            wanted = _own_words(told, instructions, last=number == _TOOL_ROUNDS)
            async for piece in self._speak(wanted, turn, calls):
                words.append(piece)
                yield self._note(piece)
            shown += [call for call in calls if call.name in intents]
            asked = [call for call in calls if call.name in own]
            if not asked:
                break
            results = await asyncio.gather(
                *(
                    ask.once(place := f"tool{number}.{index}", _running(own[call.name], call.arguments, place))
                    for index, call in enumerate(asked)
                )
            )
            for call, result in zip(asked, results, strict=True):
                used.append({"tool": call.name, "toolInput": _arguments(call.arguments), "toolOutput": result})
                if not self._link.answer_function(call, result):  # a new session does not know that it was called
                    told += f"\n\nThe function {call.name} was called and gave: {result}"
            if shown:
                break
        output: dict[str, Any] = {"intent": "", "slots": {}}
        update: list[Row] = []
        if shown:
            meant = shown[0]
            intent = intents[meant.name]
            slots, missing = _slots(intent, meant.arguments)
            yield Understood(intent=intent.intent, slots=slots)
            output = {"intent": intent.intent, "slots": slots}
            if missing is not None:
                output["awaiting"] = {"intent": intent.intent, "slot": missing.name}
                guide = render(missing.ask, ask.lookup) or f"Ask for: {missing.name}."
            else:
                guide, update = render(intent.reply, ask.lookup), intent.update_state
            for call in shown:
                self._link.answer_function(call, {"answer": guide} if call is meant and guide else {"noted": True})
            if guide and not words:  # an intent without a reply only shows the way: the next node speaks
                told += f"\n\nNow answer with this, all its names and numbers kept: {guide}"

                def second(said: str) -> Wanted:
                    return Wanted(instructions=_on(told, said))

                async for piece in self._speak(second, turn, []):
                    words.append(piece)
                    yield self._note(piece)
        if used:
            output["usedTools"] = used
        yield Answer(output={"content": "".join(words).strip(), "responder": self.name, **output}, update_state=update)

    async def _speak(self, make: Callable[[str], Wanted], turn: Turn, calls: list[FunctionCall]) -> AsyncIterator[str]:
        """The words of a response; its calls go to `calls`."""
        async with aclosing(self._mouth.speak(make, turn.generation)) as pieces:
            async for piece in pieces:
                if isinstance(piece, FunctionCall):
                    calls.append(piece)
                else:
                    yield piece

    async def choose(self, choice: Choice) -> int:
        names = [item.scenario for item in choice.scenarios]
        tool = Tool(
            name="choose",
            description="Tells which of the scenarios fits what the caller said; the last if none does.",
            parameters={
                "type": "object",
                "properties": {"scenario": {"type": "string", "enum": names}},
                "required": ["scenario"],
            },
        )
        lines = [choice.instructions, f"The caller said: {choice.question}", "The scenarios:"]
        lines += [
            f"- {item.scenario}" + (f" ({'; '.join(item.examples)})" if item.examples else "")
            for item in choice.scenarios
        ]
        chosen = await self._called(tool, "\n".join(lines))
        if (scenario := chosen.get("scenario")) in names:
            return names.index(scenario)
        log.warning("the model chose no scenario: the words decide")
        return await self._embedded.choose(choice)

    # --- parts ---------------------------------------------------------------------------------------------------

    async def _fields(self, ask: Ask) -> Answer:
        """A structured answer; it is data for the flow and is not spoken."""
        declared = {str(field["key"]): field for field in ask.schema if field.get("key")}
        tool = Tool(
            name="fill",
            description="Takes the values that the conversation gives.",
            parameters={
                "type": "object",
                "properties": {key: _property(field) for key, field in declared.items()},
                "required": list(declared),
            },
        )
        prompts = [prompt.content for prompt in ask.prompts]
        filled = await self._called(tool, "\n".join([*prompts, f"The caller said: {ask.question}"]))
        if set(declared) <= set(filled):
            fields = {key: filled[key] for key in declared}
            return Answer(output={**fields, "content": msgspec.json.encode(fields).decode(), "responder": self.name})
        log.warning("the model left fields out: the words decide")
        async for piece in self._embedded.answer(ask):
            if isinstance(piece, Answer):
                return piece
        raise Unavailable("no structured answer was made")

    async def _called(self, tool: Tool, instructions: str) -> dict[str, Any]:
        try:
            call = await self._mouth.ask(Wanted(instructions=instructions, only=tool))
        except Unavailable as error:
            log.warning("the model was asked in vain", extra={"tool": tool.name, "error": error.detail})
            return {}
        return _arguments(call.arguments) if call is not None else {}

    async def _after_earlier_words(self, turn: Turn) -> None:
        """What the flow said before in this turn comes first. The turn's reader needs one round of the loop to take
        the tokens that wait for it."""
        await asyncio.sleep(0)
        await turn.pieces.join()

    def _note(self, piece: str) -> str:
        turn = self._turn()
        if turn is not self._spoken_in:
            self._spoken_in = turn
            self._spoken.clear()
        self._spoken.append(piece)
        return piece


def _instructions(ask: Ask, turn: Turn, *, calls: bool) -> str:
    parts = [_MANNER, *(_CALL_FIRST for _ in range(calls))]
    for prompt in ask.prompts:
        if text := prompt.content.strip():
            parts.append(text if prompt.role in ("system", "developer") else f"({prompt.role}) {text}")
    if fallback := render(ask.fallback, ask.lookup):
        parts.append(f"If you do not know what the caller wants, say: {fallback}")
    if ask.question and ask.question != turn.given.text:
        parts.append(f"Answer this: {ask.question}")
    return "\n\n".join(parts)


def _own_words(told: str, instructions: str, *, last: bool) -> Callable[[str], Wanted]:
    """A response in the model's own words. It may call functions, until it has called them often enough and once
    nothing of it was said yet."""

    def make(said: str) -> Wanted:
        text = _on(told, said) if said else told if told != instructions else ""
        return Wanted(instructions=text, may_call=not said and not last)

    return make


def _offered(tool: AgentTool) -> Tool:
    return Tool(name=tool.name, description=tool.description, parameters=tool.schema)


def _running(tool: AgentTool, arguments: str, place: str) -> Callable[[], Awaitable[str]]:
    async def run() -> str:
        if tool.approve:
            # What was said while it was asked cannot be taken back and said again here, as the engine's pauses do.
            return "Not called: a person has to agree to it first, who cannot be asked in this call."
        try:
            return await tool.call(_arguments(arguments), place)
        except SwitchroomError as error:
            # The model may mend its call or do without; the turn's trace keeps what happened.
            return f"The tool failed: {error.detail}"

    return run


def _on(instructions: str, said: str) -> str:
    return f"{instructions}\n\n{_GO_ON.format(said=said)}" if said else instructions


def _tools(intents: list[Intent]) -> tuple[list[Tool], dict[str, Intent]]:
    """A function an intent, and the intents by the names of their functions."""
    tools: list[Tool] = []
    named: dict[str, Intent] = {}
    for number, intent in enumerate(intents):
        name = re.sub(r"[^A-Za-z0-9_-]", "_", intent.intent)[:60] or f"intent_{number}"
        if name in named:
            name = f"{name}_{number}"
        named[name] = intent
        examples = "; ".join(intent.examples[:12])
        tools.append(
            Tool(
                name=name,
                description=f"The caller means {intent.intent}." + (f" As in: {examples}" if examples else ""),
                parameters={
                    "type": "object",
                    "properties": {slot.name: _slot(slot) for slot in intent.slots if slot.name},
                },
            )
        )
    return tools, named


def _slot(slot: SlotSpec) -> dict[str, Any]:
    said = "Only if the caller said it."
    if slot.type in ("digits", "number"):
        return {"type": "string", "description": f"{slot.least} to {slot.most} digits, without blanks. {said}"}
    return {"type": "string", "description": f"A {slot.type}. {said}"}


def _slots(intent: Intent, arguments: str) -> tuple[dict[str, Any], SlotSpec | None]:
    """The details that the model heard, checked as the flow declares them, and the first that is missing."""
    given = _arguments(arguments)
    heard: dict[str, Any] = {}
    missing: SlotSpec | None = None
    for slot in intent.slots:
        text = str(given.get(slot.name) or "").strip()
        if slot.type in ("digits", "number"):
            text = find_slot(slot.type, text, least=slot.least, most=slot.most) or ""
        if text:
            heard[slot.name] = text
        elif missing is None:
            missing = slot
    return heard, missing


def _arguments(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        log.warning("the model called a function with arguments that are no object")
        return {}


def _property(field: dict[str, Any]) -> dict[str, Any]:
    kind = str(field.get("type", ""))
    told: dict[str, Any] = {"type": _TYPES.get(kind, "string")}
    if kind == "enum":
        told["enum"] = [value.strip() for value in str(field.get("enum", "")).split(",") if value.strip()]
    if kind == "stringArray":
        told["items"] = {"type": "string"}
    elif kind == "jsonArray":
        told["items"] = {"type": "object"}
    if field.get("description"):
        told["description"] = str(field["description"])
    return told
