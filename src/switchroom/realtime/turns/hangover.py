"""End of turn by voice detection: the rule that makes utterances of speech probabilities."""

from __future__ import annotations

from enum import Enum, auto

WINDOW_MS = 32
"""One probability a window of so long (Silero's)."""


class Cue(Enum):
    """What a window meant for the conversation."""

    NONE = auto()
    STARTED = auto()
    """The caller speaks: enough voiced windows in a row."""
    PAUSED = auto()
    """A short silence: a good moment to decode ahead."""
    RESUMED = auto()
    """It was only a pause."""
    ENDED = auto()
    """The utterance is over."""


class Endpointer:
    """Turns probabilities into utterances: onset, pause, hangover. Pure: no clock, no I/O.

    `onset_ms` of voice starts an utterance, so that a click does not; `speculative_ms` of silence is a pause,
    `hangover_ms` of silence ends it. The threshold to go on speaking is lower than the one to start (Silero's own
    advice: 0.15 less).
    """

    def __init__(
        self, *, hangover_ms: int = 320, speculative_ms: int = 96, onset_ms: int = 96, threshold: float = 0.5
    ) -> None:
        self.hangover_windows = max(1, round(hangover_ms / WINDOW_MS))
        self._pause = max(1, round(speculative_ms / WINDOW_MS))
        self.onset_windows = max(1, round(onset_ms / WINDOW_MS))
        self._threshold = threshold
        self.keep_threshold = threshold - 0.15
        self._voiced = 0
        self._silent = 0
        self.speaking = False

    def step(self, probability: float) -> Cue:
        voiced = probability >= (self.keep_threshold if self.speaking else self._threshold)
        if not self.speaking:
            self._voiced = self._voiced + 1 if voiced else 0
            if self._voiced < self.onset_windows:
                return Cue.NONE
            self.speaking = True
            self._voiced = 0
            self._silent = 0
            return Cue.STARTED
        if voiced:
            paused = self._silent >= self._pause
            self._silent = 0
            return Cue.RESUMED if paused else Cue.NONE
        self._silent += 1
        if self._silent >= self.hangover_windows:
            self.speaking = False
            self._silent = 0
            return Cue.ENDED
        return Cue.PAUSED if self._silent == self._pause else Cue.NONE
