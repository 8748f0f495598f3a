"""The values of the queue: a call, what a holder holds, and the closed sets of states and reasons."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import msgspec


class State(StrEnum):
    """Where a call is. `ended` is final; the design's order is the usual way through."""

    SCHEDULED = "scheduled"
    PENDING = "pending"
    OFFERED = "offered"
    LIVE = "live"
    WRAPUP = "wrapup"
    ENDED = "ended"


class EndReason(StrEnum):
    """Why a call ended: a closed set."""

    COMPLETED = "completed"
    CANCELLED = "cancelled"
    REMOVED = "removed"
    ABANDONED = "abandoned"
    EXPIRED = "expired"
    NO_ANSWER = "no_answer"
    BUSY = "busy"
    REJECTED = "rejected"
    TRANSFERRED = "transferred"
    TIMEOUT = "timeout"
    FAILED = "failed"


class NewCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call as it is put in the queue.

    `form` holds a normalised, non-empty `ID` (string); `state` is the caller's structured session memory.
    Times are Unix milliseconds. `payload_digest` identifies the content for `idempotency_key`.
    """

    form: dict[str, Any]
    state: dict[str, Any] = {}
    cc_base_url: str | None = None
    priority: int = 0
    not_before_ms: int | None = None
    expires_at_ms: int | None = None
    max_attempts: int | None = None
    skills: tuple[str, ...] = ()
    callback_url: str | None = None
    idempotency_key: str | None = None
    payload_digest: str = ""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A call's stored record. Times are Unix milliseconds, 0 where it has not happened."""

    flow_id: str
    task_id: str
    caller_id: str
    state: State
    form: dict[str, Any]
    memory: dict[str, Any]
    priority: int = 0
    enqueued_at_ms: int = 0
    not_before_ms: int = 0
    expires_at_ms: int = 0
    attempt: int = 0
    max_attempts: int = 0
    owner: str = ""
    offered_at_ms: int = 0
    live_at_ms: int = 0
    waiting_since_ms: int = 0
    """Since when its caller waits: the enqueue, a callback's time, or the opening of the line, whichever is last."""
    answer_by_ms: int = 0
    """Until when its holder may answer the offer (0: as long as it lives)."""
    wrapup_at_ms: int = 0
    ended_at_ms: int = 0
    end_reason: EndReason | None = None
    detail: str = ""
    outcome: str = ""
    result: Any = None
    skills: tuple[str, ...] = ()
    cc_base_url: str | None = None
    callback_url: str | None = None
    token: int = 0
    """Of its last hold: see `Held.token`."""
    requeued_from: str = ""
    """The dead letter that this call is the return of."""
    requeued_as: str = ""
    """The call that this dead letter came back as."""


MAX_TOKEN = 2**53
"""The greatest whole number that the server-side function counts to."""
Token = Annotated[int, msgspec.Meta(ge=1, le=MAX_TOKEN)]
"""Fencing token of a hold: greater than those of all claims before in the flow. Calls of one claim share theirs."""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A hold on a call. Every later write by this holder carries `owner` and `token`: a stale one is refused."""

    call: Call
    owner: str
    attempt: int
    token: Token
    lease_ms: int

    @property
    def flow_id(self) -> str:
        return self.call.flow_id

    @property
    def task_id(self) -> str:
        return self.call.task_id


class QueueEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One change of one call, as it stands in the flow's event stream (`id` is the stream's own ID)."""

    id: str
    flow_id: str
    task_id: str
    caller_id: str
    at_ms: int
    state: State
    previous: State | None
    attempt: int
    owner: str = ""
    cause: str = ""
    """What brought the change: `enqueued`, `claimed`, `answered`, `hung_up`, `finished`, `lease_expired`, …"""
    end_reason: EndReason | None = None
    detail: str = ""
