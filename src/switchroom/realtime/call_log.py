"""The record of a live call while it runs, and the same events on their way to the caller's client."""

from __future__ import annotations

import asyncio
import bisect
import logging
import time
import uuid
from collections.abc import Callable
from typing import Any

import msgspec

from switchroom import metrics
from switchroom.errors import SwitchroomError
from switchroom.queue import EndReason, Held
from switchroom.realtime.call_trace import CallTrace
from switchroom.realtime.memory import CallMemory
from switchroom.realtime.voice import (
    AgentSpeaking,
    CallerSpeaking,
    Concluded,
    Kept,
    NodeDone,
    Said,
    TurnDone,
    Used,
    VoiceEvent,
)
from switchroom.records import Executions
from switchroom.records.model import (
    Execution,
    ExecutionState,
    OperatorAction,
    Recording,
    TurnTiming,
    Utterance,
    state_of_end,
)

log = logging.getLogger(__name__)

_CONVERSATIONS = uuid.UUID("5c8b54a1-6a3a-4c5e-9a58-1d2f2a7e6b90")
"""All attempts of a call are one conversation."""
MAX_NODES = 2000
"""Nodes kept in one record; more are counted in its detail."""


def observe(timing: TurnTiming) -> None:
    """A turn's latencies, as this process's figures."""
    metrics.TURNS.labels(str(timing.interrupted).lower()).inc()
    if timing.speech_end_ms is None:
        return  # an opening: nobody waited for it to answer
    for stage, member in metrics.STAGES.items():
        if (value_ms := getattr(timing, member)) is not None:
            metrics.TURN_SECONDS.labels(stage).observe(max(0.0, value_ms / 1000))


class CallLog:
    """One attempt's `Execution`: saved when it begins, after each turn, and at its end."""

    def __init__(
        self, executions: Executions, held: Held, memory: CallMemory, tell: Callable[[dict[str, Any]], None]
    ) -> None:
        call = held.call
        self._executions = executions
        self.memory = memory
        self._tell = tell
        self._dirty = asyncio.Event()
        self._saver: asyncio.Task[None] | None = None
        self._trace = CallTrace()
        self.nodes_dropped = 0
        self.recording: Callable[[], Recording | None] = lambda: None
        """Where the audio is so far: each save names it, so that a crash does not lose it."""
        self.execution = Execution(
            id=str(uuid.uuid4()),
            flow_id=call.flow_id,
            session_id=str(uuid.uuid5(_CONVERSATIONS, f"{call.flow_id}/{call.task_id}")),
            kind="realtime",
            task_id=call.task_id,
            attempt=held.attempt,
            caller_id=call.caller_id,
            form=call.form,
            memory=call.memory,
        )

    async def begin(self) -> None:
        self.execution.recording = self.recording()
        await self._executions.begin(self.execution)
        self._trace.begin(self.execution)
        self._saver = asyncio.get_running_loop().create_task(self._save(), name="call-record")

    def talks(self) -> None:
        """The conversation begins: from now on its times count."""
        self._trace.talks()

    def on_event(self, event: VoiceEvent) -> None:
        """Takes what the voice engine says; never blocks."""
        match event:
            case Said():
                self._said(event)
            case NodeDone():
                if len(self.execution.nodes) < MAX_NODES:
                    self.execution.nodes.append(msgspec.to_builtins(event.node))
                else:
                    self.nodes_dropped += 1
                self.execution.final_state = event.node.state
            case TurnDone():
                self.execution.timings.append(event.timing)
                observe(event.timing)
                self._trace.turn(event.timing)
                self._dirty.set()
                self._tell({"type": "turn", **msgspec.to_builtins(event.timing)})
            case AgentSpeaking():
                self._tell({"type": "speaking", "role": "agent", "active": event.active})
            case CallerSpeaking():
                self._tell({"type": "speaking", "role": "caller", "active": event.active})
            case Kept():
                self.memory.keep(event.session, event.given)
                self._dirty.set()
            case Used():
                self.execution.usage = event.usage
                self._dirty.set()
            case Concluded():
                pass

    def operator(self, action: OperatorAction) -> None:
        """What an operator did."""
        self.execution.operators.append(action)
        self._dirty.set()

    def _said(self, said: Said) -> None:
        self._tell({"type": "transcript", **msgspec.to_builtins(said)})
        if not said.final:
            return
        line = Utterance(
            role=said.role,
            text=said.text,
            start_ms=said.start_ms,
            end_ms=said.end_ms,
            interrupted=said.interrupted,
            words=said.words,
        )
        # An interrupted answer is settled after the words that interrupted it: its place is where it began.
        bisect.insort(self.execution.transcript, line, key=lambda one: one.start_ms)
        self._dirty.set()

    async def finish(self, reason: EndReason | None, detail: str, recording: Recording | None) -> None:
        """The last save. Without a reason the call goes on elsewhere: this attempt was stopped."""
        await self.close()
        await (self.memory.save() if reason is None else self.memory.forget())
        self.execution.end_reason = reason.value if reason is not None else ""
        self.execution.detail = detail
        if self.nodes_dropped:
            self.execution.detail += f" ({self.nodes_dropped} more nodes were run than are kept)"
        self.execution.recording = recording
        final = state_of_end(reason) if reason is not None else ExecutionState.STOPPED
        if not await self._executions.finish(self.execution, final):
            log.info("the record was ended by somebody else", extra={"execution_id": self.execution.id})
        await (self.memory.save() if reason is None else self.memory.forget())
        self._trace.end(self.execution)
        metrics.CALLS.labels(self.execution.end_reason or "handed_back").inc()
        if self.execution.created_ms:
            metrics.CALL_SECONDS.observe(max(0, time.time() - self.execution.created_ms / 1000))

    async def close(self) -> None:
        if self._saver is not None:
            self._saver.cancel()
            await asyncio.gather(self._saver, return_exceptions=True)
            self._saver = None

    async def _save(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            self.execution.recording = self.recording()
            try:
                await self._executions.save(self.execution)
                await self.memory.save()
            except SwitchroomError as error:
                log.warning("a record could not be saved", extra={"error": error.detail})
                await asyncio.sleep(1)
                self._dirty.set()
