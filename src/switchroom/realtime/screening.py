"""The first seconds of a call that we placed: wait for who answers, and leave a message where it is a machine."""

from __future__ import annotations

import asyncio
import time

from switchroom.realtime.answering_machine import Answered, BeepDetector, MachineDetector
from switchroom.realtime.audio import Samples
from switchroom.realtime.ears import Heard

_AT_MOST_S = 30.0
"""A machine's greeting; after it we speak, beep or not."""
_AFTER_GREETING_S = 2.0
_LOOK_S = 0.05


class Screening:
    """Is told everything that is heard while it runs."""

    def __init__(self) -> None:
        self._detector = MachineDetector()
        self._began = time.monotonic()
        self._speaks_since: float | None = None
        self._quiet_since = self._began
        self._verdict: Answered | None = None
        self._beep: BeepDetector | None = None
        self._beeped = asyncio.Event()

    def frame(self, samples: Samples) -> None:
        if self._beep is not None and self._beep.feed(samples):
            self._beeped.set()

    def started(self) -> None:
        self._speaks_since = time.monotonic()

    def ended(self) -> None:
        self._speaks_since, self._quiet_since = None, time.monotonic()

    def heard(self, spoken: Heard) -> None:
        self._verdict = self._verdict or self._detector.heard(spoken.text, spoken.ended - spoken.started)

    async def answered_by(self) -> Answered:
        while self._verdict is None:
            now = time.monotonic()
            if self._speaks_since is not None:
                self._verdict = self._detector.heard("", now - self._speaks_since)
            elif self._quiet_since == self._began:
                self._verdict = self._detector.quiet(now - self._began)
            if self._verdict is None:
                await asyncio.sleep(_LOOK_S)
        return self._verdict

    async def greeting_over(self) -> None:
        """The machine listens: it has beeped, or fallen silent."""
        self._beep = BeepDetector()
        try:
            async with asyncio.timeout(_AT_MOST_S):
                while not self._beeped.is_set():
                    silent_s = time.monotonic() - self._quiet_since
                    if self._speaks_since is None and silent_s > _AFTER_GREETING_S:
                        return
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            return
        finally:
            self._beep = None
