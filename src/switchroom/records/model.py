"""An execution's record: one row for a text turn or for a realtime call."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

import msgspec


class ExecutionState(StrEnum):
    INPROGRESS = "INPROGRESS"
    FINISHED = "FINISHED"
    ERROR = "ERROR"
    TERMINATED = "TERMINATED"
    TIMEOUT = "TIMEOUT"
    STOPPED = "STOPPED"


_RUNNING = frozenset({ExecutionState.INPROGRESS, ExecutionState.STOPPED})


def is_final(state: ExecutionState) -> bool:
    """Whether a row in this state never changes again. STOPPED waits for a human, so it is not."""
    return state not in _RUNNING


_STATE_OF_END = {
    "completed": ExecutionState.FINISHED,
    "transferred": ExecutionState.FINISHED,
    "timeout": ExecutionState.TIMEOUT,
    "expired": ExecutionState.TIMEOUT,
    "no_answer": ExecutionState.TIMEOUT,
    "cancelled": ExecutionState.TERMINATED,
    "removed": ExecutionState.TERMINATED,
    "abandoned": ExecutionState.TERMINATED,
    "rejected": ExecutionState.TERMINATED,
    "busy": ExecutionState.TERMINATED,
}


def state_of_end(end_reason: str) -> ExecutionState:
    """The record's state for a call's end reason; whatever is not in the closed set is an ERROR, as `failed` is."""
    return _STATE_OF_END.get(end_reason, ExecutionState.ERROR)


class Word(msgspec.Struct, frozen=True, kw_only=True):
    """One word of an utterance, with its place in the recording (milliseconds from its start)."""

    text: str
    start_ms: int
    end_ms: int


class Utterance(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the transcript: what was heard, with its place in the recording (milliseconds from its start). `words`
    is empty where the recogniser does not tell them apart."""

    role: Literal["caller", "agent", "operator"]
    text: str
    start_ms: int
    end_ms: int
    interrupted: bool = False
    words: tuple[Word, ...] = ()


class TurnTiming(msgspec.Struct, frozen=True, kw_only=True):
    """One turn's latencies, in milliseconds from the end of the caller's speech; None where it did not happen."""

    turn: int
    speech_end_ms: int | None = None
    """When the caller stopped, from the call's beginning; None for a turn that the agent opens, whose latencies count
    from its own start."""
    endpoint_ms: float | None = None
    """VAD decided that the caller stopped."""
    transcript_ms: float | None = None
    first_token_ms: float | None = None
    first_audio_made_ms: float | None = None
    """The first words of the answer were rendered."""
    first_audio_ms: float | None = None
    """First frame of the answer handed to the transport: what the caller waits for."""
    interrupted: bool = False


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """Audio of a call. `blob` is a name in the blob store; channel 0 is the caller, 1 the agent."""

    blob: str
    format: str
    sample_rate: int
    channels: int
    duration_ms: int
    bytes: int


class Artefact(msgspec.Struct, frozen=True, kw_only=True):
    """What a flow made of a call after its end: a summary, the fields that were asked for. `name` is the node's label;
    the text is the flow's own and nobody has cleaned its HTML."""

    name: str
    format: Literal["markdown", "html", "json"]
    text: str


class OperatorAction(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator did at a live call, at `at_ms` (Unix): `operator_joined`, `operator_left`, `whispering` (by
    voice), `whispered` (words in `detail`), `taken_over`, `given_back`, `transfer_offered`, `transferred_to_operator`,
    `transfer_started` (to the number in `detail`)."""

    at_ms: int
    action: str
    operator: str
    detail: str = ""


class Execution(msgspec.Struct, kw_only=True):
    """A record. Times are Unix milliseconds, 0 where it has not happened. `id` is a UUID.

    `kind` is `turn` or `realtime`. For a realtime call there is one row an attempt: `task_id`, `attempt`,
    `caller_id`, `form`, `memory` (the state as it was enqueued), and at the end `end_reason` and `detail`.
    `nodes` is the trace: the engine's finished nodes in order. `usage` is what a voice service counted, in its units.
    """

    id: str
    flow_id: str
    session_id: str
    kind: Literal["turn", "realtime"]
    state: ExecutionState = ExecutionState.INPROGRESS
    graph_hash: str = ""
    created_ms: int = 0
    updated_ms: int = 0
    stopped_ms: int = 0
    task_id: str = ""
    attempt: int = 0
    caller_id: str = ""
    form: dict[str, Any] = {}
    memory: dict[str, Any] = {}
    final_state: dict[str, Any] = {}
    nodes: list[dict[str, Any]] = []
    transcript: list[Utterance] = []
    timings: list[TurnTiming] = []
    operators: list[OperatorAction] = []
    recording: Recording | None = None
    artefacts: list[Artefact] = []
    usage: dict[str, Any] = {}
    end_reason: str = ""
    detail: str = ""
