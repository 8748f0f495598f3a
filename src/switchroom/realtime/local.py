"""The local voice engine: the caller's words through the flow engine to the agent's voice, all on this machine."""

from __future__ import annotations

import time

from switchroom.engine.session import Session
from switchroom.realtime.audio import Samples
from switchroom.realtime.conversation import Conversation
from switchroom.realtime.ears import Ears, SpeechParts
from switchroom.realtime.running_turn import Turn
from switchroom.realtime.settings import MediaSettings
from switchroom.realtime.speaker import RunTurn


class LocalEngine(Conversation):
    """One conversation by the models of this process. See `voice.VoiceEngine`."""

    def __init__(self, parts: SpeechParts, run_turn: RunTurn, session: Session, settings: MediaSettings) -> None:
        super().__init__(run_turn, session, settings)
        self._parts = parts
        self._ears = Ears(parts, settings, self)

    def _hear(self, frame: Samples) -> None:
        self._ears.feed(frame)

    async def _listen(self) -> None:
        await self._ears.run()

    def _pressed(self) -> None:
        self._ears.press()

    def _released(self) -> None:
        self._ears.release()

    async def _say(self, text: str, turn: Turn | None) -> None:
        assert self._playout is not None
        generation = turn.generation if turn is not None else self._playout.generation
        samples = await self._parts.voice.say(text)
        if turn is not None:
            turn.first_made_at = turn.first_made_at or time.monotonic()
        if samples.size:
            self._playout.say(samples, text, generation=generation, on_first=lambda: self._first_frame(text, turn))

    def _first_frame(self, clause: str, turn: Turn | None) -> None:
        if turn is not None:
            turn.text = f"{turn.text} {clause}".strip()
        self._sounds(turn.text if turn is not None else clause, turn)
