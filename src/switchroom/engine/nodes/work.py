"""The kinds that do one thing: Direct Reply, Custom Function, Wait."""

from __future__ import annotations

import asyncio
import math
import time
from datetime import UTC, datetime
from typing import Any, ClassVar

import msgspec

from switchroom.compact.model import Node
from switchroom.compact.sandbox import modules_of
from switchroom.compact.templates import as_text
from switchroom.engine.nodes.base import NodeFault, Result, Step, params, update_state
from switchroom.engine.responder import Row

__all__ = ["CustomFunction", "DirectReply", "Wait"]


class DirectReplyParams(msgspec.Struct, frozen=True, kw_only=True):
    message: str = ""


class DirectReply:
    """Says a text. Output: `content`."""

    kind: ClassVar[str] = "directReply"
    params: ClassVar[type[msgspec.Struct]] = DirectReplyParams

    def listens(self, node: Node) -> bool:
        return False

    async def run(self, step: Step) -> Result:
        text = step.render(params(step.node, DirectReplyParams).message)
        if text:
            await step.say(text)
        return Result({"content": text})


class Variable(msgspec.Struct, frozen=True, kw_only=True):
    name: str = ""
    value: Any = ""


class CustomFunctionParams(msgspec.Struct, frozen=True, kw_only=True):
    """`code` is the body of a JavaScript function; `variables` are its inputs, `$name` each."""

    code: str = ""
    variables: list[Variable] = []
    update: list[Row] = msgspec.field(name="updateState", default_factory=list)


class CustomFunction:
    """Runs JavaScript for 200 ms at most, in 16 MB, without modules, network, files or timers. `$name` is an input
    variable; `$flow.state`, `$vars`, `$form` and `$question` are there too. Output: what it returns."""

    kind: ClassVar[str] = "customFunction"
    params: ClassVar[type[msgspec.Struct]] = CustomFunctionParams

    def listens(self, node: Node) -> bool:
        return False

    async def run(self, step: Step) -> Result:
        declared = params(step.node, CustomFunctionParams)
        if modules := modules_of(declared.code):
            names = ", ".join(f"`{name}`" for name in modules)
            raise NodeFault(
                f"The function of `{step.label}` asks for the modules {names}. Functions run in a sandbox without "
                "modules, files or network: reach a database or an API through an HTTP node or a tool instead.",
                code="script_needs_modules",
            )
        given = {"$" + row.name.lstrip("$"): step.value(row.value) for row in declared.variables if row.name}
        known = {
            "$flow": step.scope.flow(),
            "$vars": step.scope.known,
            "$form": step.scope.session.form,
            "$state": step.scope.session.state,
            "$question": step.scope.question,
        }
        value = await step.sandbox.call(declared.code, known | given)
        output = {"content": as_text(value), "value": value}
        if isinstance(value, dict):
            output = {**value, "content": value.get("content", as_text(value))}
        update_state(step, declared.update, output)
        return Result(output, given)


_UNITS_S = {"milliseconds": 0.001, "seconds": 1.0, "minutes": 60.0, "hours": 3600.0, "days": 86400.0}
_LONGEST_S = 366 * 86400.0


class WaitParams(msgspec.Struct, frozen=True, kw_only=True):
    amount: float = 0
    unit: str = "seconds"


class Wait:
    """Pauses. A wait that is longer than what is left of the turn outlives it: the run goes on by itself at its time,
    in any process (in a live call there is none to wait for: the turn fails)."""

    kind: ClassVar[str] = "wait"
    params: ClassVar[type[msgspec.Struct]] = WaitParams

    def listens(self, node: Node) -> bool:
        return False

    async def run(self, step: Step) -> Result:
        declared = params(step.node, WaitParams)
        if declared.unit not in _UNITS_S or declared.amount < 0:
            raise NodeFault(f"`{step.node.label or step.node.id}` has no such time to wait.", code="bad_node")
        wait_s = declared.amount * _UNITS_S[declared.unit]
        if wait_s > _LONGEST_S:
            raise NodeFault(f"`{step.label}` waits {wait_s:g} s; a year is the longest.", code="wait_too_long")

        async def until() -> float:
            return time.time() + wait_s

        # Kept: a run that goes on elsewhere waits only for what is left.
        until_s = float(await step.once("until", until))
        rest_s = until_s - time.time()
        left_s = step.deadline - asyncio.get_running_loop().time()
        if rest_s > left_s and step.can_park:
            return Result(input={"until": _rfc3339(until_s)}, until_ms=math.ceil(until_s * 1000))
        if rest_s > left_s:
            detail = f"`{step.label}` waits {wait_s:g} s, but the turn ends in {left_s:.0f} s."
            raise NodeFault(detail, code="wait_too_long")
        await asyncio.sleep(max(0.0, rest_s))
        return Result({"waited_s": wait_s}, {"until": _rfc3339(until_s)})


def _rfc3339(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
