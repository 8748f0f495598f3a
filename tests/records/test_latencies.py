"""A call's latencies in a few numbers."""

from __future__ import annotations

from switchroom.records.latencies import Percentiles, percentiles
from switchroom.records.model import TurnTiming


def test_each_number_was_measured_and_openings_do_not_count() -> None:
    timings = [TurnTiming(turn=1, first_audio_ms=9000.0)]
    timings += [TurnTiming(turn=n + 2, speech_end_ms=n, first_audio_ms=float(n)) for n in range(100, 0, -1)]
    timings.append(TurnTiming(turn=200, speech_end_ms=1, endpoint_ms=320.0, interrupted=True))
    assert percentiles(timings) == {
        "firstAudio": Percentiles(p50=50.0, p90=90.0, p99=99.0, count=100),
        "endpoint": Percentiles(p50=320.0, p90=320.0, p99=320.0, count=1),
    }
    assert percentiles([]) == {}
