"""What a model is told of the turns before: all, a window, a summary, or a summary with the newest turns.

The types are Flowise's (`allMessages`, `windowSize`, `conversationSummary`, `conversationSummaryBuffer`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec

from switchroom.engine.events import Media
from switchroom.engine.prompt import Prompt
from switchroom.engine.responder import Responder
from switchroom.engine.session import Message, Session

__all__ = ["remembered"]

_CHARS_A_TOKEN = 4
"""A rough measure: the exact one differs from model to model."""
_SUMMARISE_EVERY = 6
"""Messages that are put word for word before a summary takes them in."""


@runtime_checkable
class Summariser(Protocol):
    async def summarise(self, model: str, config: dict[str, Any], before: str, messages: list[Prompt]) -> str: ...


async def remembered(
    session: Session,
    past: int,
    responder: Responder,
    *,
    kind: str,
    window: int,
    token_limit: int,
    model: str,
    config: dict[str, Any],
    recall: Callable[[str, list[str]], Awaitable[list[Media]]] | None = None,
) -> list[Prompt]:
    """The session's first `past` messages as the memory type has them. A responder without a model keeps all words:
    a summary is only made by one that can. With `recall` a message that is told word for word brings its pictures and
    sounds."""
    messages = session.messages[:past]
    if kind == "windowSize":
        # A pair each: what the caller said and what was answered.
        return await _shown(session, messages[-2 * window :], recall) if window > 0 else []
    if kind not in ("conversationSummary", "conversationSummaryBuffer") or not model:
        return await _shown(session, messages, recall)
    session.summarised = min(session.summarised, len(messages))
    if kind == "conversationSummary":
        keep = 0 if len(messages) - session.summarised >= _SUMMARISE_EVERY else len(messages) - session.summarised
    else:
        keep = _fitting(messages[session.summarised :], token_limit * _CHARS_A_TOKEN)
    upto = len(messages) - keep
    if upto > session.summarised and isinstance(responder, Summariser):
        told = _prompts(messages[session.summarised : upto])
        session.summary = await responder.summarise(model, config, session.summary, told)
        session.summarised = upto
    prompts = await _shown(session, messages[session.summarised :], recall)
    if session.summary:
        prompts.insert(0, Prompt(role="system", content=f"The conversation so far:\n{session.summary}"))
    return prompts


async def _shown(
    session: Session,
    messages: Sequence[Message],
    recall: Callable[[str, list[str]], Awaitable[list[Media]]] | None,
) -> list[Prompt]:
    prompts = _prompts(messages)
    if recall is not None:
        for at, message in enumerate(messages):
            if message.media:
                media = await recall(session.session_id, message.media)
                prompts[at] = msgspec.structs.replace(prompts[at], media=media)
    return prompts


def _fitting(messages: Sequence[Message], chars: int) -> int:
    """How many of the newest messages fit."""
    count = 0
    for message in reversed(messages):
        chars -= len(message.text)
        if chars < 0:
            break
        count += 1
    return count


def _prompts(messages: Sequence[Message]) -> list[Prompt]:
    return [
        Prompt(role=_ROLES[message.role], content=_SAID.get(message.role, "") + message.text) for message in messages
    ]


_ROLES = {"caller": "user", "agent": "assistant", "operator": "assistant", "guide": "system"}
_SAID = {"operator": "(A person on our side said:) ", "guide": "Guidance of your supervisor, not heard by the caller: "}
