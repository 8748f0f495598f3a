"""The caller's sound on its way to the session's ears. It waits while words sound that must be heard: voice detection
would interrupt them, and what is said into them is answered afterwards."""

from __future__ import annotations

import asyncio
from collections import deque

from switchroom.realtime.audio import RATE, Samples
from switchroom.realtime.served.hearing import Hearing
from switchroom.realtime.served.preface import Preface

_MOST = 60 * RATE
"""Samples that may wait: a client may send faster than it speaks. The oldest are forgotten."""


class Intake:
    """One session's. Everything goes in by its order, one piece at a time."""

    def __init__(self, hearing: Hearing, preface: Preface) -> None:
        self._hearing = hearing
        self._preface = preface
        self._waiting: deque[Samples] = deque()
        self._size = 0
        self._one = asyncio.Lock()
        self._release: asyncio.Task[None] | None = None
        self.samples_dropped = 0

    async def feed(self, samples: Samples, *, by_voice: bool) -> None:
        """48 kHz of the caller. `by_voice`: voice detection finds the turns, and not the client."""
        async with self._one:
            if by_voice and self._preface.sounding:
                self._keep(samples)
                return
            await self._let_in()
            await self._hearing.feed(samples)

    async def flush(self) -> None:
        """What waits goes in now."""
        async with self._one:
            await self._let_in()

    def forget(self) -> None:
        """What waits is not heard."""
        self._waiting.clear()
        self._size = 0

    async def close(self) -> None:
        if self._release is not None:
            self._release.cancel()
            await asyncio.gather(self._release, return_exceptions=True)

    def _keep(self, samples: Samples) -> None:
        self._waiting.append(samples)
        self._size += samples.size
        while self._size > _MOST:
            gone = self._waiting.popleft().size
            self._size -= gone
            self.samples_dropped += gone
        if self._release is None or self._release.done():
            self._release = asyncio.get_running_loop().create_task(self._let_in_later(), name="served-intake")

    async def _let_in_later(self) -> None:
        """A client may send nothing more by then."""
        await self._preface.over()
        await self.flush()

    async def _let_in(self) -> None:
        while self._waiting:
            samples = self._waiting.popleft()
            self._size -= samples.size
            await self._hearing.feed(samples)
