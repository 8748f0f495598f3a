"""A live call as spans: the call, its turns, and the stages of each turn from the end of the caller's speech on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from switchroom import tracing
from switchroom.records.model import Execution, TurnTiming

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

_MS = 1_000_000


class CallTrace:
    """One attempt's. Does nothing where no exporter is set. A span has the times of what it tells, not of its making: a
    turn is known when it is over."""

    def __init__(self) -> None:
        self._span: Span | None = None
        self._inside: Context | None = None
        self._zero_ns = time.time_ns()
        self._last_ns = self._zero_ns

    def begin(self, execution: Execution) -> None:
        tracer = tracing.tracer()
        if tracer is None:
            return
        from opentelemetry.trace import set_span_in_context

        self._span = tracer.start_span(
            tracing.CALL,
            attributes={
                tracing.FLOW_ID: execution.flow_id,
                tracing.TASK_ID: execution.task_id,
                tracing.EXECUTION_ID: execution.id,
                tracing.ATTEMPT: execution.attempt,
            },
        )
        self._inside = set_span_in_context(self._span)

    def talks(self) -> None:
        """The conversation begins: a turn's times count from now."""
        self._zero_ns = self._last_ns = time.time_ns()

    def turn(self, timing: TurnTiming) -> None:
        """A turn is over, and its voice with it. One that the agent opened began where the one before ended."""
        tracer = tracing.tracer()
        if tracer is None or self._inside is None:
            return
        from opentelemetry.trace import set_span_in_context

        said_ms = timing.speech_end_ms
        begin = self._last_ns if said_ms is None else self._zero_ns + said_ms * _MS
        turn = tracer.start_span(
            tracing.TURN,
            context=self._inside,
            start_time=begin,
            attributes={tracing.TURN_NUMBER: timing.turn, tracing.INTERRUPTED: timing.interrupted},
        )
        inside = set_span_in_context(turn)
        at = begin
        for stage, member in tracing.STAGES.items() if said_ms is not None else ():
            if (value_ms := getattr(timing, member)) is not None:
                end = max(at, begin + round(value_ms * _MS))
                tracer.start_span(stage, context=inside, start_time=at).end(end)
                at = end
        self._last_ns = max(at, time.time_ns())
        turn.end(self._last_ns)

    def end(self, execution: Execution) -> None:
        span, self._span, self._inside = self._span, None, None
        if span is None:
            return
        from opentelemetry.trace import StatusCode

        span.set_attribute(tracing.END_REASON, execution.end_reason or "handed_back")
        if execution.end_reason == "failed":
            span.set_status(StatusCode.ERROR, execution.detail)
        span.end()
