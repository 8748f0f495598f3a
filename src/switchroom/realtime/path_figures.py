"""What a leg's path does to its packets, as this process's figures: looked at once a second."""

from __future__ import annotations

from switchroom import metrics
from switchroom.realtime.jitter import JitterBuffer

_COUNTED = {"received": "received", "lost": "lost", "late": "late", "reordered": "reordered", "duplicate": "duplicates"}
"""Label of `LEG_PACKETS` -> the buffer's count."""


class PathFigures:
    """One leg's, over all its streams."""

    def __init__(self) -> None:
        self._buffer: JitterBuffer | None = None
        self._told: dict[str, int] = {}

    def look(self, buffer: JitterBuffer | None, jitter_s: float | None = None) -> None:
        """`buffer` is that of the stream that flows now; `jitter_s` its interarrival jitter (RFC 3550 §6.4.1)."""
        if buffer is not self._buffer:
            self._count()  # the rest of the stream before
            self._buffer, self._told = buffer, {}
        self._count()
        if jitter_s is not None:
            metrics.LEG_JITTER.observe(jitter_s)

    def _count(self) -> None:
        if self._buffer is None:
            return
        for label, member in _COUNTED.items():
            value: int = getattr(self._buffer, member)
            metrics.LEG_PACKETS.labels(label).inc(value - self._told.get(label, 0))
            self._told[label] = value


def sent_lost(ratio: float) -> None:
    """What the other side reports of our packets: the share that did not arrive, of the last seconds."""
    metrics.LEG_SENT_LOSS.observe(ratio)
