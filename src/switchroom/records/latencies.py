"""A call's latencies in a few numbers: p50, p90, p99 of each stage of its turns."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from switchroom.records.model import TurnTiming


class Percentiles(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds from the end of the caller's speech, by the nearest rank: each is one that was measured."""

    p50: float
    p90: float
    p99: float
    count: int


_STAGES = {
    "endpoint": "endpoint_ms",
    "transcript": "transcript_ms",
    "firstToken": "first_token_ms",
    "firstAudioMade": "first_audio_made_ms",
    "firstAudio": "first_audio_ms",
}


def percentiles(timings: Sequence[TurnTiming]) -> dict[str, Percentiles]:
    """By stage; only turns that answer the caller count, and only stages that happened."""
    answers = [timing for timing in timings if timing.speech_end_ms is not None]
    found: dict[str, Percentiles] = {}
    for stage, member in _STAGES.items():
        values = sorted(value for timing in answers if (value := getattr(timing, member)) is not None)
        if values:
            p50, p90, p99 = (values[math.ceil(share * len(values)) - 1] for share in (0.5, 0.9, 0.99))
            found[stage] = Percentiles(p50=p50, p90=p90, p99=p99, count=len(values))
    return found
