"""The kinds that steer: Start, Condition Agent, Loop, Execute Flow, Iteration."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import msgspec

from switchroom.compact.model import Node
from switchroom.compact.templates import as_text
from switchroom.engine.memory import remembered
from switchroom.engine.nodes.base import NodeFault, Result, Step, drawn, params, update_state
from switchroom.engine.prompt import Prompt
from switchroom.engine.responder import ANSWER_ROLES, Choice, Choosing, Row, Scenario
from switchroom.engine.scope import merge

__all__ = ["ConditionAgent", "ExecuteFlow", "Iteration", "Loop", "Start"]

_HEARS = re.compile(r"\$?question\b")
_MAX_ITEMS = 1000


class StartParams(msgspec.Struct, frozen=True, kw_only=True):
    """`form` declares the fields, `state` the session memory with its defaults."""

    form: list[dict[str, Any]] = []
    state: list[Row] = []


class Start:
    """Where a run begins. Output: `question` and `form`. A form's values are read as `{{ $form.name }}`, the state as
    `{{ $flow.state.key }}`."""

    kind: ClassVar[str] = "start"
    params: ClassVar[type[msgspec.Struct]] = StartParams

    def listens(self, node: Node) -> bool:
        return False

    async def run(self, step: Step) -> Result:
        return Result({"question": step.scope.question, "form": step.scope.session.form})


class ConditionAgentParams(msgspec.Struct, frozen=True, kw_only=True):
    """`scenarios`: one output each; a scenario may list phrases that mean it. With `memory` the model is told of the
    conversation, as an LLM node is."""

    model: str = ""
    config: dict[str, Any] = msgspec.field(name="modelConfig", default_factory=dict)
    instructions: str = ""
    input: str = "{{question}}"
    scenarios: list[Scenario] = []
    override: bool = False
    system: str = ""
    memory: bool = False
    memory_type: str = msgspec.field(name="memoryType", default="allMessages")
    window: int = 20
    token_limit: int = msgspec.field(name="tokenLimit", default=2000)


class ConditionAgent:
    """A model decides which scenario fits; its output is taken. Without a model what the words speak of decides; where
    nothing fits, the scenario that stands for the rest is taken, else the last. Output: `scenario`."""

    kind: ClassVar[str] = "conditionAgent"
    params: ClassVar[type[msgspec.Struct]] = ConditionAgentParams

    def listens(self, node: Node) -> bool:
        return bool(_HEARS.search(str(node.inputs.get("input", "question"))))

    async def run(self, step: Step) -> Result:
        if step.may_wait and not step.fresh and self.listens(step.node):
            return Result(wait=True)
        declared = params(step.node, ConditionAgentParams)
        if not declared.scenarios:
            raise NodeFault(f"`{step.node.label or step.node.id}` has no scenario.", code="bad_node")
        choice = Choice(
            question=step.render(declared.input),
            instructions=step.render(declared.instructions),
            scenarios=declared.scenarios,
            model=declared.model,
            config=declared.config,
            system=step.render(declared.system) if declared.override else "",
            past=await self._past(step, declared),
        )
        made = await step.responder.choose(choice)
        if isinstance(made, int):
            made = Choosing(index=made, responder=step.responder.name)
        scenario = declared.scenarios[made.index].scenario
        weighed = [
            {"scenario": one.scenario, "isFulfilled": index == made.index}
            for index, one in enumerate(declared.scenarios)
        ]
        output = {"scenario": scenario, "responder": made.responder, "conditions": weighed}
        return Result(output, {"question": choice.question}, branch=made.index, usage=made.usage)

    async def _past(self, step: Step, declared: ConditionAgentParams) -> list[Prompt]:
        if not declared.memory:
            return []
        told = await remembered(
            step.scope.session,
            step.past,
            step.responder,
            kind=declared.memory_type,
            window=declared.window,
            token_limit=declared.token_limit,
            model=declared.model,
            config=declared.config,
        )
        return [*told, *step.scope.session.runtime]


class LoopParams(msgspec.Struct, frozen=True, kw_only=True):
    """`to` is the node to go back to, `max` how often, `fallback` what is said when that is spent."""

    to: str = ""
    max: int | None = None
    fallback: str = ""
    update: list[Row] = msgspec.field(name="updateState", default_factory=list)


class Loop:
    """Goes back to a node: at once in text flows, and with the caller's next words where a call would have to answer
    the same words twice. At its limit (10 in text flows and 100 in calls, unless set) the fallback is said."""

    kind: ClassVar[str] = "loop"
    params: ClassVar[type[msgspec.Struct]] = LoopParams

    def listens(self, node: Node) -> bool:
        return False

    async def run(self, step: Step) -> Result:
        declared = params(step.node, LoopParams)
        if declared.to not in step.graph.by_id:
            raise NodeFault(f"The Loop `{step.node.label or step.node.id}` has no target.", code="bad_node")
        update_state(step, declared.update, None)
        return Result({"nodeId": declared.to}, jump=declared.to)


class ExecuteFlowParams(msgspec.Struct, frozen=True, kw_only=True):
    """`override`: `{vars, startState}` for the other flow, as an object or JSON text; `answers_as` how the nodes after
    it see its answer, where no model of it said anything."""

    flow: str = ""
    input: str = ""
    override: Any = None
    answers_as: str = msgspec.field(name="as", default="userMessage")
    update: list[Row] = msgspec.field(name="updateState", default_factory=list)


class ExecuteFlow:
    """Runs another saved flow in the same conversation: same form, state and memory. Output: `content`, what the flow
    said or else its last output."""

    kind: ClassVar[str] = "executeFlow"
    params: ClassVar[type[msgspec.Struct]] = ExecuteFlowParams

    def listens(self, node: Node) -> bool:
        return False

    async def run(self, step: Step) -> Result:
        declared = params(step.node, ExecuteFlowParams)
        flow = await step.flows.get(step.render(declared.flow))
        if flow is None:
            detail = f"`{step.node.label or step.node.id}` runs the flow `{declared.flow}`, which does not exist."
            raise NodeFault(detail, code="unknown_flow")

        async def render() -> Any:
            question = step.render(declared.input) if declared.input else step.scope.question
            return {"question": question, "override": _override(step, declared)}

        # Kept: when the run goes on elsewhere the state may be further than it was here.
        given = await step.once("question", render)
        question, override = given["question"], given["override"]
        runtime = step.scope.session.runtime
        said = len(runtime)
        ended = await step.nested(flow, question, override["vars"], override["startState"])
        output = {"content": ended.text, "flowId": flow.id}
        if not ended.stays:
            update_state(step, declared.update, output)
            if ended.text and len(runtime) == said:
                runtime += [
                    *([] if runtime else [Prompt(role="user", content=question)]),
                    Prompt(role=ANSWER_ROLES.get(declared.answers_as, "user"), content=ended.text),
                ]
        return Result(
            output, {"question": question}, wait=ended.wait is not None, inner=ended.wait, stopped=ended.stopped
        )


def _override(step: Step, declared: ExecuteFlowParams) -> dict[str, dict[str, Any]]:
    given = declared.override
    shape = step.value(drawn(given) if isinstance(given, str) else given)
    if isinstance(shape, str):  # the whole of it came from a template
        shape = drawn(shape) if shape.strip() else {}
    if shape is None:
        shape = {}
    if not isinstance(shape, dict):
        raise NodeFault(f"The override config of `{step.label}` is no JSON object.", code="bad_node")
    taken: dict[str, dict[str, Any]] = {"vars": {}, "startState": {}}
    for name, into in (("vars", "vars"), ("tenantVariables", "vars"), ("startState", "startState")):
        value = shape.get(name) or {}
        if isinstance(value, list):
            value = {row["key"]: row.get("value") for row in value if isinstance(row, dict) and row.get("key")}
        if not isinstance(value, dict):
            raise NodeFault(f"`{name}` in the override config of `{step.label}` is no object.", code="bad_node")
        taken[into] = merge(taken[into], value)
    return taken


class IterationParams(msgspec.Struct, frozen=True, kw_only=True):
    """`input` is a template that gives an array, or JSON text of one."""

    input: Any = ""


class Iteration:
    """Runs the nodes inside of it once an item (at most 1,000), one item after another; `{{ $iteration }}` is the item.
    Output: `items`, the last output for each, and `content`, these as text."""

    kind: ClassVar[str] = "iteration"
    params: ClassVar[type[msgspec.Struct]] = IterationParams

    def listens(self, node: Node) -> bool:
        return False

    async def run(self, step: Step) -> Result:
        async def given() -> Any:
            return _items(step)

        items = await step.once("items", given)
        outputs: list[Any] = []
        for index, item in enumerate(items):
            child = await step.children(item, index)
            if child.stopped:
                return Result(None, {"items": items}, stopped=True)
            outputs.append(child.output)
        texts = [as_text(item.get("content", item) if isinstance(item, dict) else item) for item in outputs]
        return Result({"content": "\n".join(texts), "items": outputs}, {"items": items})


def _items(step: Step) -> list[Any]:
    items = step.value(params(step.node, IterationParams).input)
    if isinstance(items, str):
        text, items = items, drawn(items) if items.strip() else []
        if items is text:
            raise NodeFault(f"The input of `{step.label}` is no JSON array: {text[:100]!r}.", code="bad_items")
    if not isinstance(items, list):
        items = [items]
    if len(items) > _MAX_ITEMS:
        raise NodeFault(f"An Iteration takes at most {_MAX_ITEMS} items, not {len(items)}.", code="too_many_items")
    return items
