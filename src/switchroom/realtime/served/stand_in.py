"""An operator in the agent's place, as the session's clients see it: an answer that a person speaks.

Over a WebSocket the operator's voice goes out as the sound of a response, 100 ms at a time, since a client of the
protocol plays nothing else. It is one response until somebody ends it (the caller speaks, the client cancels); the
operator's next sound begins another. Over WebRTC the voice takes the agent's track, and a response brings the words.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

import numpy as np

from switchroom.realtime.audio import Decimator, Samples
from switchroom.realtime.ears import Heard
from switchroom.realtime.served.codec import on_the_wire
from switchroom.realtime.served.config import Config
from switchroom.realtime.served.dialogue import Dialogue
from switchroom.realtime.served.response import Response
from switchroom.realtime.served.transcript import Transcript

_FRAMES = 5
"""In one event."""


class StandIn:
    """One session's. `sounds`: the operator's voice goes out in events."""

    def __init__(
        self, dialogue: Dialogue, transcript: Transcript, config: Callable[[], Config], *, sounds: bool
    ) -> None:
        self._dialogue = dialogue
        self._transcript = transcript
        self._config = config
        self._sounds = sounds
        self._response: Response | None = None
        self._down: Decimator | None = None
        self._frames: list[Samples] = []
        self._unworded = 0
        """Samples whose words have not come."""
        self.talks = False
        """The operator has the call."""

    def begin(self) -> None:
        """The agent falls silent; the turn that it was in did not happen."""
        self.talks = True
        self._dialogue.give_way()

    def end(self) -> None:
        """What was said meanwhile is no question to the agent."""
        self.talks = False
        self._finish()
        self._frames.clear()
        self._dialogue.items.all_answered()

    def frame(self, frame: Samples) -> None:
        """20 ms of the operator, 48 kHz, in real time."""
        if not (self.talks and self._sounds and self._config().speaks):
            return
        self._frames.append(frame)
        if len(self._frames) < _FRAMES:
            return
        samples = np.concatenate(self._frames)
        self._frames.clear()
        response = self._opened()
        item = response.message()
        item.made += samples.size
        item.left = item.made
        self._unworded += samples.size
        assert self._down is not None
        raw = on_the_wire(self._down.feed(samples), response.config.audio.output.format)
        response.sound(base64.b64encode(raw).decode("ascii"))

    def said(self, spoken: Heard) -> None:
        """The operator's words, once they are understood."""
        self._transcript.operator(spoken)
        response = self._opened()
        item = response.message()
        response.words(f" {spoken.text}" if item.clauses else spoken.text)
        item.clauses.append((spoken.text, self._unworded))
        self._unworded = 0
        if not (self._sounds and response.config.speaks):
            self._finish()

    def _opened(self) -> Response:
        if self._response is None or not self._response.alive:
            config = self._config()
            self._response = self._dialogue.open_for_operator(config)
            self._down = Decimator(config.audio.output.format.hz)
            self._unworded = 0
        return self._response

    def _finish(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            self._dialogue.end_of_operator(response)
