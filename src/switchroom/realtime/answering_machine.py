"""Who answered a call that we placed: a person, or a machine? By what it says and for how long, as Asterisk's AMD does
(https://docs.asterisk.org/Asterisk_20_Documentation/API_Documentation/Dialplan_Applications/AMD/): a person says a word
or two and waits, a machine reads its greeting out."""

from __future__ import annotations

import re
from enum import Enum, auto

import numpy as np

from switchroom.realtime.audio import FRAME, FRAME_S, RATE, Samples, level_dbfs

_PHRASES = re.compile(
    r"voice ?mail|mail ?box|leave (?:us |me )?(?:a|your) (?:message|name)|(?:after|at) the (?:tone|beep)|"
    r"record (?:your|a) message|(?:not|isn't|un)\W*(?:available|able to (?:come|take|answer))|"
    r"can(?:not|'t)(?: come to| take| answer| get to)|you(?: ha|')ve reached|press (?:pound|hash|star|one|1)\b",
    re.IGNORECASE,
)


class Answered(Enum):
    PERSON = auto()
    MACHINE = auto()


class MachineDetector:
    """Pure: is told what was heard since the call was answered, in seconds."""

    def __init__(self, *, greeting_s: float = 3.5, silence_s: float = 4.0) -> None:
        self._greeting_s = greeting_s
        self._silence_s = silence_s
        self._said = ""

    def heard(self, text: str, seconds: float) -> Answered | None:
        """An utterance (or what is known of one), and how long it lasted so far. None: not decided."""
        self._said = f"{self._said} {text}".strip()
        if _PHRASES.search(self._said) or seconds >= self._greeting_s:
            return Answered.MACHINE
        return Answered.PERSON if text else None

    def quiet(self, seconds: float) -> Answered | None:
        """Nobody has spoken for so long since the call was answered: whoever waits for us is a person."""
        return Answered.PERSON if seconds >= self._silence_s else None


class BeepDetector:
    """A steady single tone of 400 to 2,000 Hz: where a machine begins to record. Costs an FFT a frame, so it is fed
    only while a beep is awaited."""

    _LEAST_S = 0.16
    _SHARE = 0.75
    """Of a frame's power in three neighbouring bins (50 Hz each): voices spread over their overtones."""

    def __init__(self) -> None:
        self._frames = 0
        self._bin = 0
        self._window = np.hanning(FRAME)
        self._low, self._high = (round(hertz * FRAME / RATE) for hertz in (400, 2000))

    def feed(self, frame: Samples) -> bool:
        """20 ms at 48 kHz; True once a beep has lasted long enough."""
        power = np.abs(np.fft.rfft(frame * self._window)) ** 2
        peak = int(np.argmax(power))
        pure = float(power[max(0, peak - 1) : peak + 2].sum()) >= self._SHARE * float(power.sum())
        if level_dbfs(frame) < -40 or not pure or not self._low <= peak <= self._high:
            self._frames = 0
            return False
        self._frames = self._frames + 1 if abs(peak - self._bin) <= 1 else 1
        self._bin = peak
        return self._frames * FRAME_S >= self._LEAST_S
