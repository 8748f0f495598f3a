"""Agent and LLM: they hear words and answer through a responder."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from switchroom.compact.model import Node
from switchroom.engine.nodes.base import Result, Step, params, update_state
from switchroom.engine.responder import Answer, Ask, Intent, Prompt, Row, Understood
from switchroom.engine.scope import merge

__all__ = ["Agent", "Llm"]

_GREETING = "Hello, how can I help you?"


class LlmParams(msgspec.Struct, frozen=True, kw_only=True):
    """`model` names a provider; with none the embedded responder answers."""

    model: str = ""
    messages: list[Prompt] = []
    memory: bool = False
    input: str = ""
    schema: list[dict[str, Any]] = []
    update: list[Row] = msgspec.field(name="updateState", default_factory=list)


class AgentParams(LlmParams, frozen=True, kw_only=True):
    """`greeting` opens a call; `intents` and `fallback` are what the embedded responder answers from."""

    greeting: str = ""
    intents: list[Intent] = []
    fallback: str = ""


async def _answer(step: Step, declared: LlmParams, intents: list[Intent], fallback: str) -> Result:
    scope = step.scope
    question = step.render(declared.input) if declared.input else scope.question
    ask = Ask(
        question=question,
        prompts=[Prompt(role=prompt.role, content=step.render(prompt.content)) for prompt in declared.messages],
        history=scope.session.messages if declared.memory else [],
        intents=intents,
        fallback=fallback,
        schema=declared.schema,
        previous=previous if isinstance(previous := scope.output(step.node.id), dict) else {},
        lookup=scope.lookup,
    )
    output: dict[str, Any] = {"content": "", "responder": step.responder.name}
    extra: list[Row] = []
    async for piece in step.responder.answer(ask):
        if isinstance(piece, Understood):
            scope.session.outputs["$intent"] = piece.intent
            scope.session.outputs["$slots"] = merge(scope.slots, piece.slots)
        elif isinstance(piece, Answer):
            output, extra = piece.output, piece.update_state
        elif step.speaks:
            await step.say(piece)
    update_state(step, [*extra, *declared.update], output)
    return Result(output, {"question": question})


class Llm:
    """Answers its input; without one it answers the caller's words."""

    kind: ClassVar[str] = "llm"
    params: ClassVar[type[msgspec.Struct]] = LlmParams

    def listens(self, node: Node) -> bool:
        return not node.inputs.get("input") and all(row.get("role") != "user" for row in node.rows("messages"))

    async def run(self, step: Step) -> Result:
        if step.may_wait and not step.fresh and self.listens(step.node):
            return Result(wait=True)
        return await _answer(step, params(step.node, LlmParams), [], "")


class Agent:
    """Hears the caller and answers. With nothing said yet it greets, and waits."""

    kind: ClassVar[str] = "agent"
    params: ClassVar[type[msgspec.Struct]] = AgentParams

    def listens(self, node: Node) -> bool:
        return True

    async def run(self, step: Step) -> Result:
        declared = params(step.node, AgentParams)
        if step.may_wait and not step.fresh:
            greeting = ""
            if step.greet:
                greeting = step.render(declared.greeting) or _GREETING
            if greeting:
                await step.say(greeting)
            return Result({"content": greeting, "responder": step.responder.name} if greeting else None, wait=True)
        return await _answer(step, declared, declared.intents, declared.fallback)
