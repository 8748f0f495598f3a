"""Answers that the flow's graph has no part in: a response aside from the conversation, or one for which nobody said
anything new. The flow's responder gives them, by the instructions that the client sends."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from switchroom.compact import CompactGraph
from switchroom.compact.templates import MISSING
from switchroom.engine.prompt import Prompt
from switchroom.engine.responder import Answer, Ask, Responder
from switchroom.realtime.served.items import Item
from switchroom.realtime.served.response import Response

_EXACTLY = r"\bsay (?:exactly|only|just|verbatim)\b[^\n\"“]*\n\s*\n(.+)"
_QUOTED = r"\bsay(?: (?:exactly|only|just))?:? [\"“]([^\"“”]+)[\"”]"
_VERBATIM = re.compile(f"{_EXACTLY}|{_QUOTED}", re.IGNORECASE | re.DOTALL)
_ROLES = {"user": "user", "assistant": "assistant"}


class Aside:
    """`graph` tells which model its first Agent names: that one answers."""

    def __init__(self, responder: Responder, graph: CompactGraph, has_model: Callable[[str], bool]) -> None:
        self._responder = responder
        self._has_model = has_model
        named = [node for node in graph.nodes if node.kind in ("agent", "llm") and node.inputs.get("model")]
        self._model = str(named[0].inputs["model"]) if named else ""
        config = named[0].inputs.get("modelConfig") if named else None
        self._config: dict[str, Any] = config if isinstance(config, dict) else {}

    def verbatim(self, instructions: str) -> str:
        """The text that instructions give to be said word for word, where no model reads them; "" for none."""
        found = None if self._has_model(self._model) else _VERBATIM.search(instructions)
        return next(text.strip() for text in found.groups() if text) if found else ""

    async def answer(
        self, question: str, standing: Sequence[str], context: Sequence[Item], response: Response
    ) -> AsyncIterator[str]:
        """Pieces of text. `context` are the messages that it may know; what a model counts goes to `response`."""
        past = [
            Prompt(role=_ROLES[item.role], content=text)
            for item in context
            if item.type == "message" and item.role in _ROLES and (text := item.text()) and text != question
        ]
        ask = Ask(
            question=question,
            prompts=[Prompt(role="system", content=text) for text in standing],
            history=[],
            intents=[],
            fallback="",
            schema=[],
            previous={},
            lookup=lambda path: MISSING,
            model=self._model,
            config=self._config,
            past=past,
            puts_question=bool(question),
        )
        async for piece in self._responder.answer(ask):
            if isinstance(piece, str):
                yield piece
            elif isinstance(piece, Answer):
                response.count(piece.usage)
