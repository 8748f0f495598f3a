"""The kinds that hand over to a person: Human Input, Load Realtime Agent."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from switchroom.compact.model import Node
from switchroom.compact.templates import as_text
from switchroom.engine.nodes.base import NodeFault, Question, Result, Step, params
from switchroom.engine.prompt import Prompt
from switchroom.engine.responder import Answer, Ask

__all__ = ["HumanInput", "LoadRealtimeAgent"]

_PROMPT = (
    "Say in a few sentences what was done so far and what would follow, so that a person can approve or reject it."
)


class HumanInputParams(msgspec.Struct, frozen=True, kw_only=True):
    """`how`: `fixed`, the question is `description`; `dynamic`, the model writes it by `prompt`."""

    how: str = "fixed"
    description: str = ""
    model: str = ""
    config: dict[str, Any] = msgspec.field(name="modelConfig", default_factory=dict)
    prompt: str = ""
    feedback: bool = False

    @property
    def fixed(self) -> bool:
        return self.how != "dynamic" or not self.model


class HumanInput:
    """Stops the run until a person says proceed (output 0) or reject (output 1), however long that takes. What the
    person adds is heard by the nodes after it. In a call the person is the caller, who is asked aloud."""

    kind: ClassVar[str] = "humanInput"
    params: ClassVar[type[msgspec.Struct]] = HumanInputParams

    def listens(self, node: Node) -> bool:
        return False

    async def run(self, step: Step) -> Result:
        declared = params(step.node, HumanInputParams)
        said = step.human
        if said is None:
            question = Question(
                await self._question(step, declared), declared.feedback, shown=_shown(step) if declared.fixed else ""
            )
            return Result({"content": question.whole}, stop=question)
        feedback = said.feedback.strip()
        if feedback:
            step.scope.session.runtime.append(Prompt(role="user", content=feedback))
        outcomes = [{"type": one, "isFulfilled": one == said.type} for one in ("proceed", "reject")]
        output = {
            "content": feedback or said.type,
            "type": said.type,
            "feedback": feedback,
            "conditions": outcomes,
        }
        return Result(output, {"type": said.type, "feedback": feedback}, branch=0 if said.type == "proceed" else 1)

    async def _question(self, step: Step, declared: HumanInputParams) -> str:
        if declared.fixed:
            return step.render(declared.description) or "Proceed?"
        ask = Ask(
            question=step.scope.question,
            prompts=[Prompt(role="system", content=step.render(declared.prompt) or _PROMPT)],
            history=[],
            intents=[],
            fallback=step.render(declared.description),
            schema=[],
            previous={},
            lookup=step.scope.lookup,
            model=declared.model,
            config=declared.config,
            turn=list(step.scope.session.runtime),
            puts_question=not step.scope.session.runtime,
            once=step.once,
        )
        text = ""
        async for piece in step.responder.answer(ask):
            if isinstance(piece, Answer):
                text = as_text(piece.output.get("content"))
        return text or "Proceed?"


def _shown(step: Step) -> str:
    """What a fixed question is about: the last that a model of this run said. In a call the caller has heard it."""
    runtime = step.scope.session.runtime
    return "" if step.realtime or not runtime else runtime[-1].content.strip()


class LoadRealtimeAgentParams(msgspec.Struct, frozen=True, kw_only=True):
    flow: str = ""


class LoadRealtimeAgent:
    """Hands over to a realtime flow: its output names the flow that the client is to open a call with."""

    kind: ClassVar[str] = "loadRealtimeAgent"
    params: ClassVar[type[msgspec.Struct]] = LoadRealtimeAgentParams

    def listens(self, node: Node) -> bool:
        return False

    async def run(self, step: Step) -> Result:
        declared = params(step.node, LoadRealtimeAgentParams)
        flow = await step.flows.get(step.render(declared.flow)) if declared.flow else None
        if flow is None or flow.kind != "realtime":
            detail = f"`{step.label}` hands over to the realtime flow `{declared.flow}`, which does not exist."
            raise NodeFault(detail, code="unknown_flow")
        session = step.scope.session
        output = {
            "content": "",
            "realtimeFlowId": flow.id,
            "name": flow.name,
            "call": {"form": session.form, "state": session.state},
        }
        return Result(output)
