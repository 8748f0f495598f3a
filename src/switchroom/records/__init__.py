"""Records: one row for each text turn or attempt of a call, its transcript and its recording."""

from switchroom.records.executions import ExecutionFilter, Executions
from switchroom.records.model import (
    Execution,
    ExecutionState,
    Recording,
    TurnTiming,
    Utterance,
    Word,
    is_final,
    state_of_end,
)

__all__ = [
    "Execution",
    "ExecutionFilter",
    "ExecutionState",
    "Executions",
    "Recording",
    "TurnTiming",
    "Utterance",
    "Word",
    "is_final",
    "state_of_end",
]
