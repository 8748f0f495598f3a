"""What the queue answers: to an enqueue, a claim, a question about one call, about all of them, about the past."""

from __future__ import annotations

from typing import Any

import msgspec

from switchroom.errors import Conflict
from switchroom.queue.codec import Change
from switchroom.queue.model import Call, EndReason, Held, State


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to an enqueue. `position` is 0 and `estimate_ms` 0 for a call that is not waiting in line;
    `overtaken` says that calls of a higher priority pushed it back since it was told a place."""

    task_id: str
    state: State
    pending: int
    position: int
    estimate_ms: int
    overtaken: bool = False
    duplicate: bool = False


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a claim of one call that must wait for a free line: `place` 1 is next."""

    place: int


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """A call that its holder closes while it asks for the next."""

    held: Held
    reason: EndReason = EndReason.COMPLETED
    detail: str = ""
    outcome: str = ""
    result: Any = None


class Detail(msgspec.Struct, frozen=True, kw_only=True):
    """One call with its history, and the place it is told while it waits (0 otherwise)."""

    call: Call
    history: list[Change]
    position: int
    estimate_ms: int
    overtaken: bool = False


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """A call that waits, after a change; `position` is 0 where it is scheduled."""

    state: State
    position: int
    estimate_ms: int
    overtaken: bool


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the status: a held or a waiting call."""

    task_id: str
    state: State
    caller_id: str
    enqueued_at_ms: int
    started_at_ms: int
    attempt: int
    owner: str
    position: int = 0
    estimate_ms: int = 0
    overtaken: bool = False


class Idle(msgspec.Struct, frozen=True, kw_only=True):
    """A holder that waits for a call, since when, and the skills that it offers."""

    owner: str
    skills: tuple[str, ...]
    since_ms: int


class Holders(msgspec.Struct, frozen=True, kw_only=True):
    """Who is there: holders that wait, those that rest after a call (until when), and the calls that are held. At most
    a thousand of each."""

    waiting: list[Idle]
    resting: dict[str, int]
    held: list[Row]


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Statistics of some time. Sums in milliseconds; the averages are None where there is nothing to average.

    The service level is answered in time / (answered + abandoned - short-abandoned), the formula of call centres.
    """

    answered: int = 0
    abandoned: int = 0
    short_abandoned: int = 0
    failed: int = 0
    ended: int = 0
    in_sl: int = 0
    wait_ms: int = 0
    handled: int = 0
    handle_ms: int = 0
    longest_ms: int = 0

    @property
    def service_level(self) -> float:
        counted = self.answered + self.abandoned - self.short_abandoned
        return self.in_sl / counted if counted > 0 else 1.0

    @property
    def average_wait_ms(self) -> float | None:
        return self.wait_ms / self.answered if self.answered else None

    @property
    def average_handle_ms(self) -> float | None:
        return self.handle_ms / self.handled if self.handled else None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A flow's queue at one moment. `last_event` names the newest change; `free` is the number of idle lines;
    `open` is false outside the opening hours, and `opens_at_ms` (0: unknown) says when they begin; `next_after` is
    where the next page of waiting calls begins ('' for the last)."""

    enabled: bool
    open: bool
    opens_at_ms: int
    lines: int
    free: int
    pending_count: int
    scheduled_count: int
    dead_count: int
    active: list[Row]
    pending: list[Row]
    next_after: str
    stats: Figures
    last_event: str
    average_handle_ms: int
    service_level_ms: int
    now_ms: int


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """A flow's figures: ever, in the window of the last minutes, and by day (ISO date in the flow's own time zone)."""

    now_ms: int
    service_level_ms: int
    longest_waiting_ms: int
    ever: Figures
    window: Figures
    days: dict[str, Figures]


class LeaseLost(Conflict):
    """The hold is not the call's any more: whoever writes must stop. `state` and `end_reason` say what became of it."""

    code = "lease_lost"
    title = "The hold was lost"

    def __init__(self, task_id: str, state: str, reason: str) -> None:
        self.state = State(state) if state else None
        self.end_reason = EndReason(reason) if reason else None
        super().__init__(
            f"the call {task_id} is not held by this holder any more (it is {state or 'gone'})",
            extra={"state": self.state, "endReason": self.end_reason},
        )


class StaleRules(Conflict):
    """The flow was changed or deleted after its rules were read: read it again."""

    code = "stale_rules"
    title = "The flow was changed meanwhile"

    def __init__(self, flow_id: str) -> None:
        super().__init__(f"the flow {flow_id} was changed while a call was put in its queue")
