"""What a node sees: the caller's words, form, state, variables and the outputs of the nodes before it."""

from __future__ import annotations

import copy
import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from switchroom.compact.model import CompactGraph
from switchroom.compact.templates import MISSING, as_text, walk
from switchroom.engine.session import Session

__all__ = ["Scope", "merge", "seed_state", "set_path"]

_DOCUMENTS = re.compile(r"(?:<doc name=[^>]*>[^<]*</doc>\n?)+")
"""The texts of a turn's files, as they stand before its question."""


class Scope:
    """Names of one running graph. `prefix` sets a nested flow's outputs apart from its caller's. `$vars` is
    `runtime` (what came with the turn) over `variables` (those of the server and of the flows). `loop_count` is how
    often the Loop that was taken last has gone back."""

    loop_count = 0

    def __init__(
        self,
        graph: CompactGraph,
        session: Session,
        *,
        question: str,
        variables: dict[str, Any],
        runtime: dict[str, Any] | None = None,
        prefix: str = "",
        iteration: Any = MISSING,
        flow_id: str = "",
    ) -> None:
        self.graph = graph
        self.session = session
        self.question = question
        self.variables = variables
        self.runtime = runtime or {}
        self.known = merge(variables, self.runtime) if runtime else variables
        self.prefix = prefix
        self.iteration = iteration
        self.flow_id = flow_id

    def output(self, node_id: str) -> Any:
        return self.session.outputs.get(self.prefix + node_id, MISSING)

    @property
    def intent(self) -> str:
        """The intent that an Agent matched in this conversation last."""
        return as_text(self.session.outputs.get("$intent"))

    @property
    def slots(self) -> dict[str, Any]:
        slots = self.session.outputs.get("$slots")
        return slots if isinstance(slots, dict) else {}

    def flow(self) -> dict[str, Any]:
        session = self.session
        return {
            "state": session.state,
            "sessionId": session.session_id,
            "chatId": session.session_id,
            "chatflowId": self.flow_id,
            "chatflowid": self.flow_id,
            "input": self.question,
            "runtimeChatHistoryLength": len(session.runtime),
        }

    def history(self) -> str:
        """The conversation, with what the nodes of this run said to each other."""
        session = self.session
        heard = session.messages[: session.began] if session.runtime else session.messages
        lines = [f"{message.role}: {message.text}" for message in heard]
        return "\n".join([*lines, *(f"{prompt.role}: {prompt.content}" for prompt in session.runtime)])

    def lookup(self, path: tuple[str, ...]) -> Any:
        """The value of a template's path; MISSING if it names nothing."""
        head, rest = path[0], path[1:]
        match head:
            case "question" | "$question":
                return walk(self.question, rest)
            case "$form":
                return walk(self.session.form, rest)
            case "$flow":
                return walk(self.flow(), rest)
            case "$state":
                return walk(self.session.state, rest)
            case "$vars":
                return walk(self.known, rest)
            case "$iteration":
                found = walk(self.iteration, rest)
                # Of an item that is a text, every member is the text.
                return self.iteration if found is MISSING and isinstance(self.iteration, str) else found
            case "$intent":
                return self.intent
            case "$slot" | "$slots":
                return walk(self.slots, rest)
            case "chat_history":
                return self.history()
            case "runtime_messages_length":
                return len(self.session.runtime)
            case "loop_count":
                return self.loop_count
            case "file_attachment":
                texts = _DOCUMENTS.match(self.question)
                return texts[0].strip() if texts else ""
            case "current_date_time" | "now":
                return datetime.now(UTC).isoformat(timespec="seconds")
        value = self.output(head)
        if value is MISSING:
            return MISSING
        if rest[:1] == ("output",):
            rest = rest[1:]
        if not rest and isinstance(value, dict) and "content" in value:
            return value["content"]
        return walk(value, rest)

    def bound(self) -> dict[str, Any]:
        """The names of an expression (`compact/expressions.py`)."""
        names: dict[str, Any] = {
            node.id: {"output": value} if not isinstance(value, dict) else {**value, "output": value}
            for node in self.graph.nodes
            if (value := self.output(node.id)) is not MISSING
        }
        return names | {
            "$question": self.question,
            "$form": self.session.form,
            "$flow": self.flow(),
            "$state": self.session.state,
            "$vars": self.known,
            "$intent": self.intent,
            "$slots": self.slots,
            "$iteration": None if self.iteration is MISSING else self.iteration,
        }


def merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` over `under`, key by key, also inside of objects."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def set_path(target: dict[str, Any], key: str, value: Any) -> None:
    """Sets `crm.tier` inside of objects; a key that exists as it is written, or has no dot, is set as it is."""
    head, dot, rest = key.partition(".")
    if not dot or key in target:
        target[key] = value
        return
    below = target.get(head)
    if not isinstance(below, dict):
        below = target[head] = {}
    set_path(below, rest, value)


def seed_state(graph: CompactGraph, given: dict[str, Any]) -> dict[str, Any]:
    """The first state: what Start declares, with what came with the call merged over it."""
    declared: dict[str, Any] = {}
    for start in graph.starts:
        for row in start.rows("state"):
            if row.get("key"):
                set_path(declared, str(row["key"]), _declared(row.get("value", "")))
    return merge(declared, copy.deepcopy(given))


def _declared(value: Any) -> Any:
    """A default that is written as a JSON object or array is that object."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return msgspec.json.decode(value)
        except msgspec.DecodeError:
            return value
    return value
