"""Every metric's name, and how the figures of several processes become one page (Prometheus text format 0.0.4).

Each process counts in `REGISTRY`. Those that serve no HTTP for scrapers (media, crawl) leave a snapshot in the store
every few seconds (`snapshots.py`); `/metrics` of an API process shows its own figures and theirs, told apart by the
label `process`. Durations are seconds, as Prometheus wants them.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY = CollectorRegistry()
ProcessCollector(namespace="switchroom", registry=REGISTRY)

TASKS = Gauge("switchroom_process_tasks", "Tasks of the event loop", registry=REGISTRY)
THREADS = Gauge("switchroom_process_threads", "Threads that Python knows of", registry=REGISTRY)

_LATENCIES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.5, 5.0, 10.0)

TURN_SECONDS = Histogram(
    "switchroom_turn_seconds",
    "From the end of the caller's speech to a stage of the answer",
    ["stage"],
    buckets=_LATENCIES,
    registry=REGISTRY,
)
TURNS = Counter(
    "switchroom_turns",
    "Turns of live calls, and whether the caller interrupted them",
    ["interrupted"],
    registry=REGISTRY,
)
CALLS = Counter("switchroom_calls", "Attempts of calls that ended here, by their reason", ["reason"], registry=REGISTRY)
CALL_SECONDS = Histogram(
    "switchroom_call_seconds",
    "How long a live call took",
    buckets=(5, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600),
    registry=REGISTRY,
)
LEGS_LOST = Counter("switchroom_legs_lost", "Legs of callers that died while their call was live", registry=REGISTRY)
LEG_PACKETS = Counter(
    "switchroom_leg_packets",
    "Packets of callers' audio over WebRTC, by what became of them on their path",
    ["outcome"],
    registry=REGISTRY,
)
LEG_JITTER = Histogram(
    "switchroom_leg_jitter_seconds",
    "Interarrival jitter of callers' packets (RFC 3550), of each leg once a second",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2),
    registry=REGISTRY,
)
LEG_SENT_LOSS = Histogram(
    "switchroom_leg_sent_loss_ratio",
    "Share of our packets that a caller's side reports as lost, of each report",
    buckets=(0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    registry=REGISTRY,
)
RECORDING_DROPPED = Counter(
    "switchroom_recording_frames_dropped", "Frames of 20 ms that are missing in recordings", registry=REGISTRY
)
RECORDING_FAILED = Counter("switchroom_recordings_failed", "Recordings that could not be written", registry=REGISTRY)
HTTP_SECONDS = Histogram(
    "switchroom_http_request_seconds",
    "Requests by route and status, streams and long polls left out",
    ["method", "route", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
    registry=REGISTRY,
)
CRAWL_JOBS = Gauge("switchroom_crawl_jobs", "Crawl jobs that are not over, by state", ["state"], registry=REGISTRY)
CRAWL_PAGES = Gauge(
    "switchroom_crawl_pages",
    "Pages of crawl jobs that are not over, by what becomes of them",
    ["state"],
    registry=REGISTRY,
)

QUEUE_CALLS = "switchroom_queue_calls"
QUEUE_ENDED = "switchroom_queue_calls_ended"
QUEUE_LONGEST = "switchroom_queue_longest_waiting_seconds"
QUEUE_FREE = "switchroom_queue_free_lines"
MEDIA_LEGS = "switchroom_media_legs"
MEDIA_ROOM = "switchroom_media_legs_max"
MEDIA_LAG = "switchroom_media_loop_lag_seconds"
STORE_UP = "switchroom_store_up"
STORE_PING = "switchroom_store_ping_seconds"
STORE_MEMORY = "switchroom_store_memory_bytes"
STORE_CLIENTS = "switchroom_store_clients"
STORE_WRITES_OK = "switchroom_store_last_write_ok"

STAGES = {
    "endpoint": "endpoint_ms",
    "transcript": "transcript_ms",
    "first_token": "first_token_ms",
    "audio_made": "first_audio_made_ms",
    "first_audio": "first_audio_ms",
}
"""Label of `TURN_SECONDS` -> the member of a turn's timing."""


def process_name(role: str) -> str:
    """The value of the label `process`: which machine, which program."""
    return f"{role}-{socket.gethostname()}-{os.getpid()}"


async def own_figures() -> str:
    """This process's figures, as text."""
    TASKS.set(len(asyncio.all_tasks()))
    THREADS.set(threading.active_count())
    return await asyncio.to_thread(lambda: generate_latest(REGISTRY).decode())  # it reads files of the kernel


def page(by_process: Mapping[str, str], shared: Iterable[Metric]) -> bytes:
    """One page of the figures of several processes (name -> text) and of those that are the same in all."""
    families: dict[str, Metric] = {}
    for process, text in by_process.items():
        for family in text_string_to_metric_families(text):
            found = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                labels = {**sample.labels, "process": process}
                found.samples.append(sample._replace(labels=labels))
    return generate_latest(_Page([*families.values(), *shared]))


class _Page(CollectorRegistry):
    """What `generate_latest` reads."""

    def __init__(self, families: list[Metric]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)
