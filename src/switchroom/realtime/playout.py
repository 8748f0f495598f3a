"""What the agent says, on its way out, and how much of it was really heard.

The transport pulls one frame every 20 ms. A barge-in empties the queue at once: what was not pulled was not heard. A
transport behind which audio waits once more (a telephony provider buffers) says how far it was really played.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import numpy as np

from switchroom.realtime.audio import FRAME, SILENCE, Samples


class _Segment:
    """A clause on its way out. `text` is what its samples say."""

    __slots__ = ("heard", "on_first", "position", "samples", "text")

    def __init__(self, samples: Samples, text: str, on_first: Callable[[], None] | None) -> None:
        self.samples = samples
        self.text = text
        self.on_first = on_first
        self.position = 0
        """Samples that left."""
        self.heard = 0
        """Samples of those that were heard."""

    def heard_text(self) -> str:
        """The words whose audio was heard, by the share of the samples."""
        words = self.text.split()
        if self.heard >= self.samples.size:
            return self.text
        return " ".join(words[: int(len(words) * self.heard / max(1, self.samples.size))])


class Playout:
    """The agent's queue of audio. One reader (the transport), one writer (the engine), both on the loop.

    `tap` gets every frame that leaves, silence too: the recorder's clock. At most `limit_s` seconds wait.
    """

    def __init__(self, *, limit_s: float = 120.0) -> None:
        self._segments: deque[_Segment] = deque()
        self._leaving: deque[tuple[int, _Segment, int]] = deque()
        """Left, not known to be heard: number of the frame, segment, its position after that frame."""
        self._heard: list[str] = []
        self._limit = int(limit_s * 48_000)
        self._queued = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._background: Callable[[], Samples] | None = None
        self._paused: set[str] = set()
        self.tap: Callable[[Samples], None] | None = None
        self.on_clear: Callable[[], None] | None = None
        """Told after each `clear`: a transport empties what it has sent ahead."""
        self.confirmed_by_leg = False
        """What left counts as heard only when the transport says so by `confirm`."""
        self.frames = 0
        """Frames pulled so far."""
        self.dropped_samples = 0
        self.generation = 0
        """Grows with every `clear`: audio made for an older generation is not taken any more."""

    @property
    def left_s(self) -> float:
        """Seconds of speech that wait to leave."""
        return self._queued / 48_000

    @property
    def speaking(self) -> bool:
        return bool(self._segments or self._leaving)

    @property
    def waiting(self) -> bool:
        """Whether something is queued that has not left."""
        return bool(self._segments)

    @property
    def unconfirmed(self) -> int:
        """The last frame with speech that left and is not known to be heard; 0 for none."""
        return self._leaving[-1][0] if self._leaving else 0

    def say(self, samples: Samples, text: str, *, generation: int, on_first: Callable[[], None] | None = None) -> bool:
        """Queue a clause (48 kHz). False: it is stale, or there is no room."""
        if generation != self.generation:
            return False
        if self._queued + samples.size > self._limit:
            self.dropped_samples += samples.size
            return False
        self._segments.append(_Segment(samples, text, on_first))
        self._queued += samples.size
        self._idle.clear()
        return True

    def hold(self, background: Callable[[], Samples] | None) -> None:
        """What sounds while nothing is said: a hold tone, or None for silence."""
        self._background = background

    def pause(self, why: str) -> None:
        """Fall silent at once and keep what waits. Several reasons may hold it; each is lifted by its own `resume`."""
        self._paused.add(why)

    def resume(self, why: str) -> None:
        self._paused.discard(why)

    @property
    def heard_any(self) -> bool:
        """Whether anything left since the last `take_heard`."""
        return bool(self._heard) or any(segment.heard for segment in self._begun())

    def take_heard(self) -> str:
        """The text that was heard since the last call of this."""
        text = " ".join(part for part in self._heard if part)
        self._heard.clear()
        return text

    def clear(self) -> None:
        """Stop at once. What of the running clause was heard counts."""
        self.generation += 1
        self._heard += [segment.heard_text() for segment in self._begun() if segment.heard]
        self._segments.clear()
        self._leaving.clear()
        self._queued = 0
        self._idle.set()
        if self.on_clear is not None:
            self.on_clear()

    def confirm(self, frames: int) -> None:
        """The first `frames` frames that were pulled have been heard."""
        while self._leaving and self._leaving[0][0] <= frames:
            _, segment, position = self._leaving.popleft()
            segment.heard = position
            if position >= segment.samples.size:
                self._heard.append(segment.text)
        if not self._leaving and not self._segments:
            self._idle.set()

    def confirm_all(self) -> None:
        """Nothing will be confirmed any more: what left was heard."""
        self.confirmed_by_leg = False
        self.on_clear = None
        self.confirm(self.frames)

    def _begun(self) -> list[_Segment]:
        """The segments of which a part left and that are not heard to their end, in order."""
        begun = list(dict.fromkeys(segment for _, segment, _ in self._leaving))
        if self._segments and self._segments[0].position and self._segments[0] not in begun:
            begun.append(self._segments[0])
        return begun

    async def drained(self) -> None:
        """Wait until everything queued was heard."""
        await self._idle.wait()

    def next_frame(self) -> Samples:
        """The next 20 ms for the transport."""
        self.frames += 1
        frame = self._next()
        if self._leaving and not self.confirmed_by_leg:
            self.confirm(self.frames)
        if self.tap is not None:
            self.tap(frame)
        return frame

    def _next(self) -> Samples:
        if self._paused:
            return SILENCE
        if not self._segments:
            return self._background() if self._background is not None else SILENCE
        parts: list[Samples] = []
        need = FRAME
        while need and self._segments:
            segment = self._segments[0]
            if segment.position == 0 and segment.on_first is not None:
                segment.on_first()
            piece = segment.samples[segment.position : segment.position + need]
            segment.position += piece.size
            self._queued -= piece.size
            need -= piece.size
            parts.append(piece)
            self._leaving.append((self.frames, segment, segment.position))
            if segment.position >= segment.samples.size:
                self._segments.popleft()
        if need:
            parts.append(SILENCE[:need])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
