"""The client's functions, as tools of the flow, and its instructions, as prompts of the flow's Agents.

A model is offered the functions beside an Agent's own tools. Where the embedded responder answers, which has no model,
a function is called when the caller's words mean its name or description better than any intent of the Agent, with
arguments that were really said; its output is then said as it is. A Tool node of the flow may name a function too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from switchroom.engine.custom_tool import LiveTool
from switchroom.engine.match import HEARD, best, find_slot, words
from switchroom.engine.prompt import Prompt
from switchroom.engine.responder import Answer, Ask, Choice, Choosing, Responder, Tool, Understood
from switchroom.realtime.served.config import Config, Function
from switchroom.realtime.served.protocol import new_id

_NO_OUTPUT = "No output was given."
_SAID_FIRST = ("answer", "message", "text", "content", "result", "output")


class Called(NamedTuple):
    """The flow calls a function of the client's; `arguments` is JSON."""

    call_id: str
    name: str
    arguments: str


class Desk:
    """Calls on their way: each waits for the client's output. `on_call` is told of each."""

    def __init__(self, on_call: Callable[[Called], None]) -> None:
        self._on_call = on_call
        self._open: dict[str, asyncio.Future[str]] = {}
        self.chosen: set[str] = set()
        """Functions that this turn's words have called: another Agent of the flow does not call them again."""

    def begin(self) -> None:
        """A turn begins."""
        self.chosen.clear()

    async def call(self, name: str, given: dict[str, Any]) -> str:
        """The client's output. Waits for as long as the turn may last."""
        call_id = new_id("call")
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._open[call_id] = done
        self._on_call(Called(call_id, name, msgspec.json.encode(given).decode()))
        try:
            return await done
        finally:
            self._open.pop(call_id, None)

    def answer(self, call_id: str, output: str) -> bool:
        """False: nobody waits for it."""
        done = self._open.get(call_id)
        if done is None or done.done():
            return False
        done.set_result(output)
        return True

    def go_on(self) -> None:
        """The client wants an answer now: what it gave no output for stays without."""
        for done in self._open.values():
            if not done.done():
                done.set_result(_NO_OUTPUT)

    def for_flow(self, functions: Sequence[Function]) -> list[LiveTool]:
        """For the flow's Tool nodes and Agents, by name."""
        return [
            LiveTool(name=one.name, description=one.description, schema=_schema(one), call=self._caller(one.name))
            for one in functions
        ]

    def for_model(self, functions: Sequence[Function]) -> list[Tool]:
        return [
            Tool(name=one.name, description=one.description, schema=_schema(one), call=self._caller(one.name))
            for one in functions
        ]

    def _caller(self, name: str) -> Callable[[dict[str, Any], str], Awaitable[str]]:
        async def call(given: dict[str, Any], place: str) -> str:
            return await self.call(name, given)

        return call


class ServedResponder:
    """The flow's responder with what the client adds. `asked` gives the running response's configuration and the texts
    that stand beside the flow's own prompts."""

    def __init__(
        self,
        inner: Responder,
        desk: Desk,
        asked: Callable[[], tuple[Config, Sequence[str]]],
        has_model: Callable[[str], bool],
    ) -> None:
        self.name = inner.name
        self._inner = inner
        self._desk = desk
        self._asked = asked
        self._has_model = has_model

    async def answer(self, ask: Ask) -> AsyncIterator[Understood | str | Answer]:
        config, standing = self._asked()
        functions = [] if config.tool_choice == "none" or ask.schema else config.tools
        by_model = self._has_model(ask.model)
        named = None if ask.schema else forced(config)
        chosen = named or (None if by_model or not functions else meant(ask, functions, config.tool_choice))
        if chosen is not None and chosen.name not in self._desk.chosen:
            self._desk.chosen.add(chosen.name)
            given = arguments(chosen, ask.question)
            output = await self._desk.call(chosen.name, given)
            text = sayable(output)
            if text:
                yield text
            used = [{"tool": chosen.name, "toolInput": given, "toolOutput": output}]
            yield Answer(output={"content": text, "responder": self.name, "usedTools": used})
            return
        prompts = [*ask.prompts, *(Prompt(role="system", content=text) for text in standing)]
        tools = [*ask.tools, *self._desk.for_model(functions)] if by_model else ask.tools
        async for piece in self._inner.answer(msgspec.structs.replace(ask, prompts=prompts, tools=tools)):
            yield piece

    async def choose(self, choice: Choice) -> int | Choosing:
        return await self._inner.choose(choice)

    async def summarise(self, model: str, config: dict[str, Any], before: str, messages: list[Prompt]) -> str:
        summarise = getattr(self._inner, "summarise", None)
        return await summarise(model, config, before, messages) if summarise is not None else before


def _schema(function: Function) -> dict[str, Any]:
    return function.parameters or {"type": "object", "properties": {}}


def forced(config: Config) -> Function | None:
    """The function that `tool_choice` names."""
    if isinstance(config.tool_choice, dict):
        return next((one for one in config.tools if one.name == config.tool_choice.get("name")), None)
    return None


def meant(ask: Ask, functions: Sequence[Function], choice: str | dict[str, Any]) -> Function | None:
    """The function that the words mean, if they do not mean an intent of the Agent's more. `required`: the nearest."""
    if isinstance(awaited := ask.previous.get("awaiting"), dict) and awaited and choice != "required":
        return None  # the Agent has asked for a detail: these words are for it
    intents = [[" ".join(words(intent.intent.replace("_", " "))), *intent.examples] for intent in ask.intents]
    offered = [[one.name.replace("_", " ").replace("-", " "), one.description[:HEARD]] for one in functions]
    found = best(ask.question, [*intents, *offered])
    if found is not None and found.candidate >= len(intents):
        return functions[found.candidate - len(intents)]
    return functions[0] if choice == "required" and functions else None


def arguments(function: Function, said: str) -> dict[str, Any]:
    """What of the function's arguments was said. A required one that is free text gets the words themselves."""
    properties = _schema(function).get("properties")
    required = _schema(function).get("required") or []
    given: dict[str, Any] = {}
    for name, schema in properties.items() if isinstance(properties, dict) else ():
        value = _argument(name, schema if isinstance(schema, dict) else {}, said, needed=name in required)
        if value is not None:
            given[name] = value
    return given


def _argument(name: str, schema: dict[str, Any], said: str, *, needed: bool) -> Any:
    kind = schema.get("type")
    hints = {*name.casefold().replace("-", "_").split("_"), *words(str(schema.get("description", "")))}
    if isinstance(values := schema.get("enum"), list) and values:
        found = best(said, [[str(value)] for value in values], threshold=0.34)
        return values[found.candidate] if found else (values[0] if needed else None)
    if kind in ("integer", "number"):
        digits = find_slot("number", said)
        return int(digits[:15]) if digits else (0 if needed else None)
    if kind == "boolean":
        found = best(said, [["yes", "true", "correct"], ["no", "false"]])
        return found.candidate == 0 if found else (False if needed else None)
    if kind == "array":
        return [said] if needed else None
    if kind == "object":
        return {} if needed else None
    if hints & {"number", "order", "code", "phone", "zip", "id", "digits", "account"}:
        return find_slot("digits", said) or (said if needed else None)
    for slot, about in (("date", {"date", "day", "when"}), ("name", {"name"})):
        if hints & about and (value := find_slot(slot, said)):
            at = said.casefold().find(value.casefold())
            return said[at : at + len(value)] if at >= 0 else value
    return said if needed else None


def sayable(output: str) -> str:
    """A function's output as words: a text as it is; of an object its answer, else its values in order."""
    try:
        value = msgspec.json.decode(output)
    except msgspec.DecodeError:
        return output.strip()
    return _words_of(value)


def _words_of(value: Any) -> str:
    if isinstance(value, dict):
        first = next((value[key] for key in _SAID_FIRST if isinstance(value.get(key), str)), None)
        if first is not None:
            return str(first).strip()
        return ". ".join(f"{key.replace('_', ' ')}: {_words_of(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(_words_of(one) for one in value)
    if value is None:
        return ""
    return str(value).strip()
