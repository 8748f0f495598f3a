"""Clauses that were rendered before are not rendered again: greetings, fillers, questions that every call hears."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterable

from switchroom.errors import SwitchroomError
from switchroom.realtime.audio import RATE, Samples
from switchroom.realtime.tts import Voice, speakable

log = logging.getLogger(__name__)


class CachedVoice:
    """A voice with the newest `limit_s` seconds of what it said kept (96 kB a second), by the text."""

    def __init__(self, inner: Voice, *, limit_s: float = 180.0) -> None:
        self.inner = inner
        self._limit = int(limit_s * RATE)
        self._clauses: OrderedDict[str, Samples] = OrderedDict()
        self._size = 0
        self._warming: asyncio.Task[None] | None = None
        self.hits = 0

    async def say(self, text: str) -> Samples:
        """See `Voice`. The samples are shared: they cannot be written to."""
        line = speakable(text)
        known = self._clauses.get(line)
        if known is not None:
            self._clauses.move_to_end(line)
            self.hits += 1
            return known
        samples = await self.inner.say(line)
        if 0 < samples.size <= self._limit // 4:
            self._keep(line, samples)
        return samples

    def warm(self, texts: Iterable[str]) -> None:
        """Render these one after another, behind whatever a call wants said."""
        self._warming = asyncio.get_running_loop().create_task(self._warm(tuple(texts)), name="warm-prompts")

    async def _warm(self, texts: tuple[str, ...]) -> None:
        for text in texts:
            try:
                await self.say(text)
            except SwitchroomError as error:
                log.warning("a prompt could not be rendered ahead", extra={"error": error.detail})

    def _keep(self, line: str, samples: Samples) -> None:
        samples.setflags(write=False)
        if line not in self._clauses:
            self._clauses[line] = samples
            self._size += samples.size
        while self._size > self._limit:
            self._size -= self._clauses.popitem(last=False)[1].size

    async def close(self) -> None:
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.gather(self._warming, return_exceptions=True)
        await self.inner.close()
