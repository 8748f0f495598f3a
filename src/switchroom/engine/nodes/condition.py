"""Condition: strict routing. The output taken is the first whose condition holds, else the last."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import msgspec

from switchroom.compact.expressions import compile_expression, evaluate
from switchroom.compact.model import Node
from switchroom.compact.templates import as_text
from switchroom.engine.nodes.base import NodeFault, Result, Step, params

__all__ = ["Condition"]

_HEARS = re.compile(r"\$question\b|\{\{\s*question\b")
_EMPHASIS = re.compile(r"(?<![\w*`~])(\*{1,3}|_{1,3}|`|~~)(?=\S)([^\n]{0,500}?\S)\1(?![\w*`~])")
_SHOWN = 200
"""Characters of a value in a trace."""
_MARKED_MOST = 2_000
"""Characters: longer texts are compared as they are."""
_HEADING = re.compile(r"^#{1,6}[ \t]+", re.M)
_FLOAT = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)")
_REGEX = "return new RegExp($pattern, $flags).test($text)"


class Test(msgspec.Struct, frozen=True, kw_only=True):
    """One condition, as an operation on two templates or as an expression."""

    type: str = "string"
    value1: Any = ""
    operation: str = "equal"
    value2: Any = ""
    expression: str = ""


class ConditionParams(msgspec.Struct, frozen=True, kw_only=True):
    """Either `expression` (output 0 where it holds, else 1), or `conditions` (output n for the n-th, else the last)."""

    expression: str = ""
    conditions: list[Test] = []


class Condition:
    """Takes the output of the first condition that holds, else the last one. Expressions are JavaScript; in a call
    texts are compared as they sound (`Operator.` equals `OPERATOR`). Output: `conditions`, what was compared."""

    kind: ClassVar[str] = "condition"
    params: ClassVar[type[msgspec.Struct]] = ConditionParams

    def listens(self, node: Node) -> bool:
        return bool(_HEARS.search(msgspec.json.encode(node.inputs).decode()))

    async def run(self, step: Step) -> Result:
        if step.may_wait and not step.fresh and self.listens(step.node):
            return Result(wait=True)
        declared = params(step.node, ConditionParams)
        tests = declared.conditions or [Test(type="expression", expression=declared.expression)]
        if declared.expression and declared.conditions:
            tests = [Test(type="expression", expression=declared.expression), *declared.conditions]
        seen: list[dict[str, Any]] = []
        for index, test in enumerate(tests):
            holds, shown = await _judged(step, test)
            seen.append({**shown, "isFulfilled": holds})
            if holds:
                return Result({"condition": index, "conditions": seen}, branch=index)
        # The else, as Flowise's clients know it.
        seen.append({"type": "string", "value1": "", "operation": "equal", "value2": "", "isFulfilled": True})
        return Result({"condition": None, "conditions": seen}, branch=len(tests))


async def _judged(step: Step, test: Test) -> tuple[bool, dict[str, Any]]:
    """Whether it holds, and what was compared, for the trace."""
    if test.type == "expression" or test.expression:
        return await _expressed(step, test.expression), {"type": "expression", "expression": test.expression}
    one, two = step.value(test.value1), step.value(test.value2)
    shown = {"value1": as_text(one)[:_SHOWN], "operation": test.operation, "value2": as_text(two)[:_SHOWN]}
    return await _compare(step, test, one, two), {"type": test.type, **shown}


async def _expressed(step: Step, text: str) -> bool:
    if not text.strip():
        return False
    expression = compile_expression(text, spoken=step.realtime)
    return await evaluate(expression, step.scope.bound(), step.scope.lookup, step.sandbox)


async def _compare(step: Step, test: Test, one: Any, two: Any) -> bool:
    if test.operation in ("isEmpty", "notEmpty"):
        return (as_text(one).strip() == "") == (test.operation == "isEmpty")
    if test.type == "number":
        return _compare_numbers(test.operation, _number(one), _number(two))
    if test.type == "boolean":
        return (_truth(one) == _truth(two)) == (test.operation != "notEqual")
    return await _compare_texts(step, test.operation, as_text(one), as_text(two))


def sound(text: str) -> str:
    """A text as it sounds: small letters, no punctuation, single blanks."""
    return " ".join(re.findall(r"[^\W_]+", text.casefold()))


def unmarked(text: str) -> str:
    """A text without Markdown's marks of emphasis and headings, which models set as they like (as Flowise compares)."""
    if len(text) > _MARKED_MOST or not any(mark in text for mark in "*_`~#"):
        return text
    return _HEADING.sub("", _EMPHASIS.sub(r"\2", _EMPHASIS.sub(r"\2", text)))


async def _compare_texts(step: Step, operation: str, one: str, two: str) -> bool:
    if operation == "regex":
        bound = {"$pattern": two, "$flags": "iu" if step.realtime else "", "$text": one}
        return bool(await step.sandbox.call(_REGEX, bound))
    if step.realtime and sound(two):
        one, two = sound(one), sound(two)
    else:
        one, two = unmarked(one), unmarked(two)
    match operation:
        case "equal":
            return one == two
        case "notEqual":
            return one != two
        case "contains":
            return two in one
        case "notContains":
            return two not in one
        case "startsWith":
            return one.startswith(two)
        case "endsWith":
            return one.endswith(two)
    raise NodeFault(f"`{step.node.label or step.node.id}` has the unknown operation `{operation}`.", code="bad_node")


def _compare_numbers(operation: str, one: float, two: float) -> bool:
    match operation:
        case "equal":
            return one == two
        case "notEqual":
            return one != two
        case "smaller":
            return one < two
        case "smallerEqual":
            return one <= two
        case "larger":
            return one > two
        case "largerEqual":
            return one >= two
    raise NodeFault(f"The number operation `{operation}` is not known.", code="bad_node")


def _number(value: Any) -> float:
    """The number that a text begins with, 0 where there is none (as Flowise compares: JavaScript's `parseFloat`)."""
    found = _FLOAT.match(as_text(value))
    return float(found[1]) if found else 0.0


def _truth(value: Any) -> bool:
    return as_text(value).strip().lower() in ("true", "1", "yes")
