"""Agent and LLM: they hear words and answer through a responder."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from switchroom.compact.model import Node
from switchroom.compact.templates import as_text
from switchroom.engine.events import HumanAnswer
from switchroom.engine.memory import remembered
from switchroom.engine.nodes.base import AskPerson, Parked, Question, Result, Step, params, update_state
from switchroom.engine.prompt import Prompt
from switchroom.engine.responder import ANSWER_ROLES, Answer, Ask, Consent, Intent, Row, Tool, Understood, asks_model
from switchroom.engine.retriever import Passage, Passages, passages_of, source_documents
from switchroom.engine.scope import merge
from switchroom.engine.tools.registry import MissingStore, agent_tools, search, store_tool

__all__ = ["Agent", "Llm"]

_GREETING = "Hello, how can I help you?"


class LlmParams(msgspec.Struct, frozen=True, kw_only=True):
    """`model` is its name in the canvas, with its settings in `config`; without one the embedded responder answers.
    `memory_type`, `window` and `token_limit` say what of the conversation it is told; `answers_as` how the nodes after
    it see its answer."""

    model: str = ""
    config: dict[str, Any] = msgspec.field(name="modelConfig", default_factory=dict)
    messages: list[Prompt] = []
    memory: bool = False
    memory_type: str = msgspec.field(name="memoryType", default="allMessages")
    window: int = 20
    token_limit: int = msgspec.field(name="tokenLimit", default=2000)
    input: str = ""
    answers_as: str = msgspec.field(name="as", default="userMessage")
    schema: list[dict[str, Any]] = []
    update: list[Row] = msgspec.field(name="updateState", default_factory=list)


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """A tool of an Agent; `approve`: a person has to agree before it is called."""

    tool: str = ""
    config: dict[str, Any] = msgspec.field(name="toolConfig", default_factory=dict)
    approve: bool = False


class Knowledge(msgspec.Struct, frozen=True, kw_only=True):
    store: str = ""
    name: str = ""
    description: str = ""


class AgentParams(LlmParams, frozen=True, kw_only=True):
    """`tools`, `stores` and `vectors` are what a model may call; `greeting` opens a call; `intents` and `fallback` are
    what the embedded responder answers from."""

    tools: list[Used] = []
    stores: list[Knowledge] = []
    vectors: list[Knowledge] = []
    greeting: str = ""
    intents: list[Intent] = []
    fallback: str = ""


async def _answer(
    step: Step,
    declared: LlmParams,
    tools: list[Tool],
    intents: list[Intent],
    fallback: str,
    stores: Sequence[str] = (),
    found: Sequence[Passage] = (),
) -> Result:
    """`found` is what the tools add to while the answer is made: its sources."""
    scope = step.scope
    session = scope.session
    own = step.render(declared.input) if declared.input else ""
    question = own or scope.question
    prompts = [Prompt(role=prompt.role, content=step.render(prompt.content)) for prompt in declared.messages]
    asks = bool(own) or not (session.runtime or any(prompt.role == "user" for prompt in prompts))
    past: list[Prompt] = []
    sees = bool(declared.model) and declared.config.get("allowImageUploads") is not False
    if declared.memory:
        past = await remembered(
            session,
            step.past,
            step.responder,
            kind=declared.memory_type,
            window=declared.window,
            token_limit=declared.token_limit,
            model=declared.model,
            config=declared.config,
            recall=step.recall if sees else None,
        )
    ask = Ask(
        question=question,
        prompts=prompts,
        history=session.messages if declared.memory else [],
        intents=intents,
        fallback=fallback,
        schema=declared.schema,
        previous=previous if isinstance(previous := scope.output(step.node.id), dict) else {},
        lookup=scope.lookup,
        model=declared.model,
        config=declared.config,
        past=past,
        turn=list(session.runtime) if declared.memory else [],
        puts_question=asks,
        tools=tools,
        media=step.media if sees else (),
        once=step.once,
        consent=_consent(step),
        words=scope.question.strip(),
        passages=_passages(step, stores, question, [own, *(prompt.content for prompt in prompts)]),
        spoken=step.realtime,
    )
    answer = Answer(output={"content": "", "responder": step.responder.name})
    try:
        async for piece in step.responder.answer(ask):
            if isinstance(piece, Understood):
                session.outputs["$intent"] = piece.intent
                session.outputs["$slots"] = merge(scope.slots, piece.slots)
            elif isinstance(piece, Answer):
                answer = piece
            elif step.speaks:
                await step.say(piece)
    except AskPerson as asked:
        waiting = {"content": asked.question.text, "calledTools": asked.question.calls}
        return Result(waiting, {"question": question}, stop=asked.question)
    except Parked:
        return Result(None, {"question": question}, stopped=True)
    if found:
        answer.output["sourceDocuments"] = source_documents(found)
    if asks and question:
        session.runtime.append(Prompt(role="user", content=question))
    content = as_text(answer.output.get("content"))
    if content:
        session.runtime.append(Prompt(role=ANSWER_ROLES.get(declared.answers_as, "user"), content=content))
    update_state(step, [*answer.update_state, *declared.update], answer.output)
    return Result(answer.output, {"question": question}, usage=answer.usage)


def _passages(step: Step, stores: Sequence[str], question: str, told: list[str]) -> Passages | None:
    """What the node knows: its own stores, and what Retrievers before it found and its words pass on."""
    retrieved = [
        passage
        for node in step.graph.nodes
        if node.kind == "retriever" and isinstance(output := step.scope.output(node.id), dict)
        if (content := as_text(output.get("content"))) and any(content in text for text in told)
        for passage in passages_of(output.get("sourceDocuments"))
    ]
    if not stores and not retrieved:
        return None

    async def find() -> list[Passage]:
        found = list(retrieved)
        for store in stores:
            with contextlib.suppress(MissingStore):  # in the log; what else the node knows may answer
                found += await search(step, store, question)
        return found

    return find


def _consent(step: Step) -> Consent:
    """Has a person asked; the answer that came with this run of the node is good for one question."""
    given = [step.human] if step.human is not None else []

    async def consent(place: str, calls: list[dict[str, Any]]) -> HumanAnswer:
        async def had() -> Any:
            if not given:
                raise AskPerson(Question(_question(step, calls), True, calls))
            return msgspec.to_builtins(given.pop())

        return msgspec.convert(await step.once(place, had), HumanAnswer)

    return consent


def _question(step: Step, calls: list[dict[str, Any]]) -> str:
    if step.realtime:
        wanted = " and ".join(_spoken(call) for call in calls)
        return f"May I use {wanted}?"
    wanted = ", ".join(f"`{call['tool']}` with `{as_text(call['toolInput'])}`" for call in calls)
    return f"{step.label} wants to call {wanted}. Proceed?"


def _spoken(call: dict[str, Any]) -> str:
    given = call["toolInput"]
    told = ", ".join(f"{key} {as_text(value)}" for key, value in given.items()) if isinstance(given, dict) else ""
    name = str(call["tool"]).replace("_", " ")
    return f"{name} with {told}" if told else name


class Llm:
    """Answers its input; without one it answers the caller's words. Output: `content`, and the fields of a structured
    output by their keys."""

    kind: ClassVar[str] = "llm"
    params: ClassVar[type[msgspec.Struct]] = LlmParams

    def listens(self, node: Node) -> bool:
        return not node.inputs.get("input") and all(row.get("role") != "user" for row in node.rows("messages"))

    async def run(self, step: Step) -> Result:
        if step.may_wait and not step.fresh and self.listens(step.node):
            return Result(wait=True)
        return await _answer(step, params(step.node, LlmParams), [], [], "")


class Agent:
    """Hears the caller and answers, with tools and knowledge. In a call with nothing said yet it greets, and waits. A
    tool that requires human input stops the run until a person agrees. Output: `content`, `usedTools`,
    `sourceDocuments`, and the fields of a structured output."""

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
        tools: list[Tool] = []
        found: list[Passage] = []
        known = [row for row in (*declared.stores, *declared.vectors) if row.store]
        if asks_model(step.responder, declared.model):
            for used in declared.tools:
                tools += await agent_tools(step, used.tool, used.config, approve=used.approve)
            for row in known:
                tools.append(store_tool(step, row.store, row.name, row.description, found))
        stores = [row.store for row in known]
        return await _answer(step, declared, tools, declared.intents, declared.fallback, stores, found)
