"""What a placed call comes to, as plain data for a program or a person."""

from __future__ import annotations

from typing import Any

import msgspec


class HeardTurn(msgspec.Struct, kw_only=True):
    """One utterance of ours and the answer to it, as the caller's ear has it.

    `answer_after_ms`: from the last sample of our speech sent to the first voice heard; None without an answer.
    """

    wav: str
    answer_after_ms: float | None = None
    answer_s: float = 0.0


class CallReport(msgspec.Struct, kw_only=True):
    """What became of a call. `transcript` and `server_turns` come from the event channel, the rest from our ear."""

    flow_id: str
    task_id: str
    call_id: str = ""
    connected_ms: float | None = None
    seconds: float = 0.0
    ended_by: str = ""
    """`caller`, `agent` or `lost`."""
    end_reason: str = ""
    greeted: bool = False
    turns: list[HeardTurn] = []
    server_turns: list[dict[str, Any]] = []
    transcript: list[dict[str, Any]] = []
    heard_s: float = 0.0
    """Seconds of voice heard."""
    heard_dbfs: float = -96.0
    """Mean level of the voice heard."""
    recording: str | None = None
