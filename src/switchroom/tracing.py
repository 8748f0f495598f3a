"""Spans for OpenTelemetry, where an exporter is set by its own environment variables, and nothing at all elsewhere.

`OTEL_EXPORTER_OTLP_ENDPOINT` (or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`) turns it on; names, headers, sampling and limits
are read from the other `OTEL_…` variables by the SDK (extra `tracing`). Spans go out from a thread of its own, in
batches over HTTP; what a dead collector does not take is dropped. Names of spans and of their attributes stand here.
No personal data is in them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from switchroom import metrics

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

log = logging.getLogger(__name__)

CALL = "call"
TURN = "turn"
STAGES = {stage: member for stage, member in metrics.STAGES.items() if stage != "audio_made"}
"""Spans of a turn, one after another -> the member of its timing at which each ends. The first audio is made and sent
in one span."""
FLOW_ID = "switchroom.flow_id"
TASK_ID = "switchroom.task_id"
EXECUTION_ID = "switchroom.execution_id"
ATTEMPT = "switchroom.attempt"
END_REASON = "switchroom.end_reason"
TURN_NUMBER = "switchroom.turn"
INTERRUPTED = "switchroom.interrupted"
CORRELATION_ID = "switchroom.correlation_id"

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_SHUTDOWN_S = 5.0

_tracer: Tracer | None = None


def tracer() -> Tracer | None:
    """What makes spans; None where no exporter is set."""
    return _tracer


def use(provider: TracerProvider | None) -> None:
    """Make spans by this provider from now on; None: none."""
    global _tracer
    _tracer = provider.get_tracer("switchroom") if provider is not None else None


@contextlib.asynccontextmanager
async def traced(role: str) -> AsyncIterator[None]:
    """Makes spans meanwhile, where an exporter is set. A process without the extra goes on without, and says so."""
    if not _wanted():
        yield
        return
    try:
        provider = await asyncio.to_thread(_provider, role)
    except ImportError as error:
        log.error("no spans are sent: pip install 'switchroom[tracing]'", extra={"error": str(error)})
        yield
        return
    use(provider)
    try:
        yield
    finally:
        use(None)
        try:
            async with asyncio.timeout(_SHUTDOWN_S):
                await asyncio.to_thread(provider.shutdown)
        except TimeoutError:
            log.warning("the last spans were not taken in time")


def _wanted() -> bool:
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if os.environ.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return False
    return any(os.environ.get(name) for name in _ENDPOINTS)


def _provider(role: str) -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    about = {"service.instance.id": metrics.process_name(role), "switchroom.role": role}
    if "OTEL_SERVICE_NAME" not in os.environ:
        about["service.name"] = "switchroom"
    # Its own hook at the end of the process would wait for a dead collector once more.
    provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
