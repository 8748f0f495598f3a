"""The `openai` voice engine: a Realtime service hears and speaks, the flow engine decides. See
docs/decisions/realtime-openai.md for how a flow maps to it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any

from switchroom.engine.responder import Responder
from switchroom.engine.session import Message, Session
from switchroom.realtime.audio import SILENCE, Samples
from switchroom.realtime.conversation import Conversation
from switchroom.realtime.openai_cost import cost
from switchroom.realtime.openai_link import Link
from switchroom.realtime.openai_model import ModelResponder, rest_of
from switchroom.realtime.openai_mouth import Mouth
from switchroom.realtime.openai_wire import add_usage
from switchroom.realtime.playout import Playout
from switchroom.realtime.running_turn import Turn
from switchroom.realtime.settings import MediaSettings
from switchroom.realtime.speaker import RunTurn
from switchroom.realtime.voice import Concluded, Emit, Used


class OpenAiEngine(Conversation):
    """One conversation over a Realtime service. See `voice.VoiceEngine`.

    `bind` gives the flow engine that asks this call's model for an Agent's words.
    """

    def __init__(self, bind: Callable[[Responder], RunTurn], session: Session, settings: MediaSettings) -> None:
        self._link = self._make_link(settings)
        self._mouth = self._make_mouth()
        self._model = ModelResponder(self._link, self._mouth, lambda: self._turn)
        self._usage: dict[str, Any] = {"provider": "openai", "model": settings.openai_model}
        super().__init__(bind(self._model), session, settings)

    def _make_link(self, settings: MediaSettings) -> Link:
        return Link(settings, self)

    def _make_mouth(self) -> Mouth:
        return Mouth(self._link, self._words_leave, self._audio_came)

    def _hear(self, frame: Samples) -> None:
        # Without its button down the service hears silence: its own detection ends the utterance.
        self._link.hear(frame if self._button is None or self._button.down else SILENCE)

    async def run(self, playout: Playout, emit: Emit) -> Concluded:
        self._mouth.playout = playout
        return await super().run(playout, emit)

    def _pressed(self) -> None:
        """The service hears the caller from now on."""

    def _released(self) -> None:
        """It hears silence."""

    def _free_to_fill(self) -> bool:
        return super()._free_to_fill() and not self._link.answering

    def _overheard(self, message: Message) -> None:
        super()._overheard(message)
        if message.role != "caller":  # those the service heard itself
            self._link.add(message)

    def _audio_came(self) -> None:
        if self._turn is not None:
            self._turn.first_made_at = self._turn.first_made_at or time.monotonic()

    async def _listen(self) -> None:
        await self._link.run()

    async def _say(self, text: str, turn: Turn | None) -> None:
        assert self._playout is not None
        generation = turn.generation if turn is not None else self._playout.generation
        async with aclosing(self._mouth.speak(rest_of(text), generation)) as pieces:
            async for _ in pieces:
                pass

    def _sayable(self, turn: Turn, token: str) -> list[str]:
        if self._model.has_spoken(token):
            return []
        return [text] if (text := token.strip()) else []

    def _take_heard(self, *, interrupted: bool) -> str:
        return self._mouth.take_heard(interrupted=interrupted)

    def _words_leave(self, text: str) -> None:
        self._sounds(text, self._turn)

    # --- Listener of the link; what is heard comes through the conversation's own methods ---------------------------

    def said_so_far(self) -> Sequence[Message]:
        """What the running turn says is told when it was heard."""
        messages = self.session.messages
        if self._messages_before is None:
            return messages
        mine = (one for one in messages[self._messages_before :] if one.role == "caller")
        return [*messages[: self._messages_before], *mine]

    def resting(self) -> bool:
        return self._turn is None

    def used(self, what: str, usage: dict[str, Any]) -> None:
        counted = self._usage.setdefault(what, {"count": 0})
        counted["count"] += 1
        add_usage(counted, usage)
        if self._settings.openai_prices:
            amount = cost(self._usage, self._settings.openai_prices)
            self._usage["cost"] = {"amount": amount, "currency": self._settings.openai_currency}
        self._emit(Used(usage=copy.deepcopy(self._usage)))
