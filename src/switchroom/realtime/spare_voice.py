"""A second voice for when the first one fails: the caller hears another timbre instead of nothing."""

from __future__ import annotations

import logging

from switchroom.errors import TimedOut, Unavailable
from switchroom.realtime.audio import Samples
from switchroom.realtime.tts import Voice

log = logging.getLogger(__name__)


class SpareVoice:
    """Each clause is asked of the first voice, and of the spare one where that fails."""

    def __init__(self, first: Voice, spare: Voice) -> None:
        self.first = first
        self.spare = spare
        self.spoken_by_spare = 0

    async def say(self, text: str) -> Samples:
        """See `Voice`; raises what the spare voice raises when both fail."""
        try:
            return await self.first.say(text)
        except (Unavailable, TimedOut) as error:
            self.spoken_by_spare += 1
            log.warning("the voice failed: the spare one speaks", extra={"error": error.detail})
            return await self.spare.say(text)

    async def close(self) -> None:
        await self.first.close()
        await self.spare.close()
