"""What of a served session goes on record, as every other call's: lines with their times, and what a turn took."""

from __future__ import annotations

import asyncio
import time

from switchroom.realtime.ears import Heard
from switchroom.realtime.served.hearing import Utterance
from switchroom.realtime.served.items import Item
from switchroom.realtime.voice import AgentSpeaking, CallerSpeaking, Emit, Said, TurnDone, VoiceEvent
from switchroom.records.model import TurnTiming

_TRUNCATE_S = 3.0
"""A client that plays the sound itself says within this time how far it came; after it our own count stands."""


class Timing:
    """One turn's moments, monotonic seconds; None where it has not happened."""

    def __init__(self, number: int, since: Utterance | None, transcript_at: float | None) -> None:
        self.number = number
        self.began = since.ended_at if since is not None else time.monotonic()
        self.endpoint = since.endpoint_at if since is not None else None
        self.transcript = transcript_at
        self.first_token: float | None = None
        self.first_audio: float | None = None
        self.told = False

    def token(self) -> None:
        self.first_token = self.first_token or time.monotonic()

    def as_record(self, *, interrupted: bool, zero: float) -> TurnTiming:
        """`zero`: when the conversation began."""

        def since(moment: float | None) -> float | None:
            return None if moment is None else round((moment - self.began) * 1000, 1)

        return TurnTiming(
            turn=self.number,
            speech_end_ms=max(0, round((self.began - zero) * 1000)) if self.endpoint is not None else None,
            endpoint_ms=since(self.endpoint),
            transcript_ms=since(self.transcript),
            first_token_ms=since(self.first_token),
            first_audio_ms=since(self.first_audio),
            interrupted=interrupted,
        )


class Transcript:
    """`emit` is set when the conversation runs; times count from then."""

    def __init__(self) -> None:
        self._emit: Emit = lambda event: None
        self._zero = time.monotonic()
        self._turns = 0
        self._from: dict[str, float] = {}
        """When the sound of an item began, until its line is written."""
        self._waiting: dict[str, tuple[Item, float, asyncio.TimerHandle]] = {}
        self._speaking = False

    def start(self, emit: Emit) -> None:
        self._emit = emit
        self._zero = time.monotonic()

    def emit(self, event: VoiceEvent) -> None:
        self._emit(event)

    # --- the caller ----------------------------------------------------------------------------------------------

    def caller_speaks(self, active: bool) -> None:
        self._emit(CallerSpeaking(active=active))

    def heard(self, utterance: Utterance, text: str) -> None:
        """The words of the caller's audio."""
        self._caller(text, utterance.started_at, utterance.ended_at)

    def typed(self, item: Item) -> None:
        """A message that the caller wrote."""
        if item.role == "user" and item.words is None:
            self._caller(item.text(), time.monotonic(), time.monotonic())

    def operator(self, spoken: Heard) -> None:
        """An operator's words to the caller."""
        started, ended = self._ms(spoken.started), self._ms(spoken.ended)
        self._emit(Said(role="operator", text=spoken.text, final=True, start_ms=started, end_ms=ended))

    def _caller(self, text: str, started: float, ended: float) -> None:
        if text:
            line = Said(role="caller", text=text, final=True, start_ms=self._ms(started), end_ms=self._ms(ended))
            self._emit(line)

    # --- the agent -----------------------------------------------------------------------------------------------

    def timing(self, since: Utterance | None, transcript_at: float | None) -> Timing:
        self._turns += 1
        return Timing(self._turns, since, transcript_at)

    def turn_done(self, timing: Timing | None, *, interrupted: bool) -> None:
        if timing is not None and not timing.told:
            timing.told = True
            self._emit(TurnDone(timing=timing.as_record(interrupted=interrupted, zero=self._zero)))

    def sounds(self, item: Item) -> None:
        """The first frame of an item leaves."""
        self._from[item.id] = time.monotonic()
        if not self._speaking:
            self._speaking = True
            self._emit(AgentSpeaking(active=True))

    def silent(self) -> None:
        if self._speaking:
            self._speaking = False
            self._emit(AgentSpeaking(active=False))

    def wrote(self, item: Item) -> None:
        """An item that has no sound is complete."""
        now = time.monotonic()
        self._agent(item.text(), now, now, interrupted=False)

    def whole(self, item: Item) -> None:
        """An item was played out to its end."""
        started = self._from.pop(item.id, None)
        if started is not None:
            self._agent(item.text(), started, time.monotonic(), interrupted=False)

    def cut(self, item: Item, *, wait: bool) -> None:
        """An item was cut where its `heard` says. With `wait` the client may still say it better."""
        _, ended, timer = self._waiting.pop(item.id, (item, time.monotonic(), None))
        if timer is not None:
            timer.cancel()
        if wait:
            again = asyncio.get_running_loop().call_later(_TRUNCATE_S, lambda: self.cut(item, wait=False))
            self._waiting[item.id] = (item, ended, again)
            return
        started = self._from.pop(item.id, None)
        if started is not None:
            self._agent(item.text(), started, ended, interrupted=True)

    def flush(self) -> None:
        """Write what waits for a better word."""
        for item, _, _ in tuple(self._waiting.values()):
            self.cut(item, wait=False)
        self.silent()

    def _agent(self, text: str, started: float, ended: float, *, interrupted: bool) -> None:
        if text:
            self._emit(
                Said(
                    role="agent",
                    text=text,
                    final=True,
                    start_ms=self._ms(started),
                    end_ms=self._ms(max(started, ended)),
                    interrupted=interrupted,
                )
            )

    def _ms(self, moment: float) -> int:
        return max(0, round((moment - self._zero) * 1000))
