"""The caller's audio on its way to a Realtime service, and the utterances that the service makes of it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from switchroom.realtime.audio import Decimator, Samples
from switchroom.realtime.ears import Heard
from switchroom.realtime.openai_wire import PREFIX_MS, WIRE_RATE

_KEPT_FRAMES = 500
"""Ten seconds of the caller, for a session that begins in the middle of an utterance."""
_QUIET_FRAMES = 15
"""What is kept while nobody speaks: the lead-in of the next utterance."""


class Hearer(Protocol):
    """Who is told of the caller's words."""

    def speech_started(self) -> None: ...
    def speech_ended(self) -> None: ...
    def partial(self, text: str, started: float) -> None: ...
    def heard(self, utterance: Heard) -> None: ...


class _Utterance:
    """The caller's words on their way; monotonic seconds, 0 where it has not happened."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.ended = 0.0
        self.endpoint = 0.0
        self.guess = ""


class WireEars:
    """`send` takes a piece at the wire's rate and says whether there was room for it."""

    def __init__(self, hearer: Hearer, send: Callable[[Samples], bool], *, hangover_ms: int) -> None:
        self._hearer = hearer
        self._send = send
        self._hangover_ms = hangover_ms
        self._decimator = Decimator(WIRE_RATE)
        self._kept: deque[Samples] = deque(maxlen=_KEPT_FRAMES)
        self._utterances: dict[str, _Utterance] = {}
        self._sent_samples = 0
        self._sent_at = 0.0

    def hear(self, frame: Samples, *, up: bool) -> None:
        """20 ms of the caller at 48 kHz; while the session is not `up` they are kept for the next one."""
        samples = self._decimator.feed(frame)
        self._kept.append(samples)
        if not up:
            return
        if not self._utterances:
            while len(self._kept) > _QUIET_FRAMES:
                self._kept.popleft()
        self._pass_on(samples)

    @property
    def hearing(self) -> bool:
        """The caller speaks, or said what is not understood yet."""
        return bool(self._utterances)

    def begin(self) -> None:
        """A session begins: it hears what the one before it had not understood yet."""
        self._sent_samples = 0
        for samples in self._kept:
            self._pass_on(samples)

    def lost(self) -> None:
        """The session is gone. What was being said is kept for the next; until that hears it, the agent may go on."""
        speaking = any(not one.ended for one in self._utterances.values())
        open_words = bool(self._utterances)
        self._utterances.clear()
        if speaking:
            self._hearer.speech_ended()
        if open_words:
            now = time.monotonic()
            self._hearer.heard(Heard(text="", started=now, ended=now, endpoint=now, decoded=now))

    def _pass_on(self, samples: Samples) -> None:
        if self._send(samples):
            self._sent_samples += samples.size
            self._sent_at = time.monotonic()

    def _moment(self, audio_ms: int) -> float:
        """The monotonic time of a place in the audio that this session was sent; now, where it hears another way."""
        if not self._sent_samples:
            return time.monotonic()
        return self._sent_at - (self._sent_samples / WIRE_RATE - audio_ms / 1000)

    # --- what the service hears ----------------------------------------------------------------------------------

    def started(self, item_id: str, audio_ms: int) -> None:
        """`audio_ms` counts the lead-in of the utterance in."""
        self._utterances[item_id] = _Utterance(self._moment(audio_ms + PREFIX_MS))
        self._hearer.speech_started()

    def stopped(self, item_id: str, audio_ms: int) -> None:
        """`audio_ms` counts the silence in by which the end was known."""
        spoken = self._utterances.get(item_id)
        if spoken is None:
            return
        spoken.ended = max(spoken.began, self._moment(audio_ms - self._hangover_ms))
        spoken.endpoint = time.monotonic()
        self._hearer.speech_ended()

    def guess(self, item_id: str, more: str) -> None:
        spoken = self._utterances.get(item_id)
        if spoken is not None and more:
            spoken.guess += more
            self._hearer.partial(spoken.guess.strip(), spoken.began)

    def understood(self, item_id: str, text: str) -> None:
        """The final words, "" for none."""
        spoken = self._utterances.pop(item_id, None)
        if spoken is None:
            return  # as far as the service told, nobody spoke
        if not self._utterances:
            self._kept.clear()
        now = time.monotonic()
        self._hearer.heard(
            Heard(
                text=text,
                started=spoken.began,
                ended=spoken.ended or now,
                endpoint=spoken.endpoint or now,
                decoded=now,
            )
        )
