"""Condition expressions: JavaScript such as `"${$question}" === "OPERATOR"`.

The names `$question $form $flow $state $vars $intent $slots $iteration` and each node's ID are bound as values. `${…}`
means the same wherever it stands: a quoted text that holds one is read as a template literal (`"${$question}"` is
`` `${$question}` ``), a bare one as its expression. Nothing that a caller says is ever part of the source, so
`"; while(true){}//` is only a text. `{{ path }}` works too, as a bound value.

With `spoken=True` (realtime flows) a comparison (`=== == !== !=`) of a quoted text that is only one `${…}` with a
quoted text is a comparison of words as they sound: case, punctuation and blanks do not matter, so that the
transcript `Operator.` equals `"OPERATOR"`. Every other comparison is JavaScript's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from switchroom.compact import templates
from switchroom.compact.sandbox import Sandbox, syntax_fault

__all__ = ["BOUND", "Expression", "compile_expression", "evaluate", "fault_of"]

BOUND = ("$question", "$form", "$flow", "$state", "$vars", "$intent", "$slots", "$iteration")

_SOUND = (
    "const $same = (a, b) => { const x = String(a), y = String(b);"
    " if (Math.abs(x.length - y.length) > 1000) return false;"
    " const f = s => s.normalize('NFKC').toLowerCase().replace(/[^\\p{L}\\p{N}]+/gu, ' ').trim();"
    " return f(x) === f(y) };"
)
"""What is a thousand characters longer is not the same words: a caller's letter of 120 kB is not looked through."""
_WORD = re.compile(r"[A-Za-z_$][\w$]*")
_BEFORE_REGEX = frozenset("(,=:[!&|?{};+-*%<>~^")


class Expression(NamedTuple):
    """A translated expression: the function body, and the `{{ }}` references that it binds as `$m0`, `$m1`, …"""

    body: str
    refs: tuple[templates.Ref, ...]
    names: tuple[str, ...]
    """Every identifier in it, so that only the nodes that it names are bound."""


class _Part(NamedTuple):
    code: str
    text: str
    """`plain` a quoted text, `lone` a quoted text that is one placeholder, `` anything else."""


@lru_cache(maxsize=512)
def compile_expression(source: str, *, spoken: bool = False) -> Expression:
    """Translates; does not say whether it parses (`fault_of`)."""
    refs: list[templates.Ref] = []
    parts = list(_lex(source, refs))
    code = _compare_spoken(parts) if spoken else "".join(part.code for part in parts)
    code = code.strip().rstrip(";").rstrip()
    body = f"return (\n{code}\n)"
    if re.search(r"\breturn\b", code) and syntax_fault(body, BOUND) is not None:
        body = code
    return Expression(_SOUND + body if spoken else body, tuple(refs), tuple(dict.fromkeys(_WORD.findall(code))))


def _compare_spoken(parts: list[_Part]) -> str:
    out: list[str] = []
    at = 0
    while at < len(parts):
        if at + 2 < len(parts) and {parts[at].text, parts[at + 2].text} == {"lone", "plain"}:
            operator = re.fullmatch(r"\s*(===|==|!==|!=)\s*", parts[at + 1].code)
            if operator:
                out.append(f"{'!' if operator[1][0] == '!' else ''}$same({parts[at].code}, {parts[at + 2].code})")
                at += 3
                continue
        out.append(parts[at].code)
        at += 1
    return "".join(out)


def _lex(source: str, refs: list[templates.Ref]) -> list[_Part]:
    """Cuts the source into quoted texts and the rest, with placeholders translated."""
    parts: list[_Part] = []
    rest: list[str] = []
    at, size = 0, len(source)
    last = ""

    def flush() -> None:
        if rest:
            parts.append(_Part("".join(rest), ""))
            rest.clear()

    while at < size:
        char = source[at]
        if char in "\"'":
            end = _string_end(source, at)
            flush()
            parts.append(_quoted(source[at:end], refs))
            at, last = end, "x"
        elif char == "`":
            end = _string_end(source, at)
            rest.append(source[at:end])
            at, last = end, "x"
        elif source.startswith("//", at):
            end = source.find("\n", at)
            at = size if end < 0 else end
        elif source.startswith("/*", at):
            end = source.find("*/", at + 2)
            at = size if end < 0 else end + 2
        elif char == "/" and (not last or last in _BEFORE_REGEX or _after_keyword(rest)):
            end = _regex_end(source, at)
            rest.append(source[at:end])
            at, last = end, "x"
        elif source.startswith("${", at) and (end := _brace_end(source, at + 1)) > 0:
            rest.append(f"({source[at + 2 : end - 1]})")
            at, last = end, "x"
        elif source.startswith("{{", at) and (close := source.find("}}", at)) > 0:
            ref = templates.parse(source[at : close + 2])[0]
            assert isinstance(ref, templates.Ref)
            rest.append(f"$m{len(refs)}")
            refs.append(ref)
            at, last = close + 2, "x"
        else:
            rest.append(char)
            last = char if not char.isspace() else last
            at += 1
    flush()
    return parts


def _after_keyword(rest: list[str]) -> bool:
    return bool(re.search(r"\b(?:return|typeof|case|in|of)\s*$", "".join(rest[-12:])))


def _quoted(literal: str, refs: list[templates.Ref]) -> _Part:
    """A quoted text; one with placeholders becomes a template literal."""
    inner = literal[1:-1]
    if "${" not in inner and "{{" not in inner:
        return _Part(literal, "plain")
    pieces: list[str] = []
    at, holes, solid = 0, 0, False
    while at < len(inner):
        if inner.startswith("${", at) and (end := _brace_end(inner, at + 1)) > 0:
            pieces.append("${" + inner[at + 2 : end - 1] + "}")
            at, holes = end, holes + 1
        elif inner.startswith("{{", at) and (close := inner.find("}}", at)) > 0:
            ref = templates.parse(inner[at : close + 2])[0]
            assert isinstance(ref, templates.Ref)
            pieces.append(f"${{$m{len(refs)}}}")
            refs.append(ref)
            at, holes = close + 2, holes + 1
        elif inner[at] == "\\":
            pieces.append(inner[at : at + 2])
            at, solid = at + 2, True
        else:
            pieces.append({"`": "\\`", "$": "\\$"}.get(inner[at], inner[at]))
            solid = solid or not inner[at].isspace()
            at += 1
    if not holes:
        return _Part(literal, "plain")
    return _Part("`" + "".join(pieces) + "`", "lone" if holes == 1 and not solid else "")


def _string_end(source: str, at: int) -> int:
    quote, at = source[at], at + 1
    while at < len(source):
        if source[at] == "\\":
            at += 2
            continue
        if quote == "`" and source.startswith("${", at):
            end = _brace_end(source, at + 1)
            at = end if end > 0 else at + 2
            continue
        if source[at] == quote:
            return at + 1
        at += 1
    return len(source)


def _brace_end(source: str, at: int) -> int:
    """The place after the brace that closes the one at `at`; -1 if none does."""
    depth = 0
    while at < len(source):
        char = source[at]
        if char == "`" or (char in "\"'" and source.find(char, at + 1) > 0):
            at = _string_end(source, at)
            continue
        depth += (char == "{") - (char == "}")
        at += 1
        if depth == 0:
            return at
    return -1


def _regex_end(source: str, at: int) -> int:
    at += 1
    in_class = False
    while at < len(source) and source[at] != "\n":
        char = source[at]
        if char == "\\":
            at += 1
        elif char == "[":
            in_class = True
        elif char == "]":
            in_class = False
        elif char == "/" and not in_class:
            return at + 1
        at += 1
    return at


async def evaluate(
    expression: Expression, bound: Mapping[str, Any], lookup: templates.Lookup, sandbox: Sandbox
) -> bool:
    """Whether the expression holds. `bound` gives the names of `BOUND` and each node's output by its ID.

    Raises ScriptError."""
    names = {name: bound[name] for name in bound if name in BOUND or name in expression.names}
    for index, ref in enumerate(expression.refs):
        value = lookup(ref.path)
        names[f"$m{index}"] = None if value is templates.MISSING else value
    return bool(await sandbox.call(expression.body.replace("return (", "return !!(", 1), names))


def fault_of(source: str) -> str | None:
    """Why an expression does not parse, in a sentence; None if it does."""
    expression = compile_expression(source)
    return syntax_fault(expression.body, (*BOUND, *(f"$m{index}" for index in range(len(expression.refs)))))
