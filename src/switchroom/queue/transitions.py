"""The pure table of a call's states. Nothing else decides a state: the server-side function runs on this very table."""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType

from switchroom.queue.model import State


class Event(StrEnum):
    """What can happen to a call."""

    ENQUEUED = "enqueued"
    SCHEDULED = "scheduled"
    REQUEUED = "requeued"
    DUE = "due"
    CLAIMED = "claimed"
    ANSWERED = "answered"
    RELEASED = "released"
    REFUSED = "refused"
    NO_ANSWER = "no_answer"
    LEASE_EXPIRED = "lease_expired"
    POSTPONED = "postponed"
    EXHAUSTED = "exhausted"
    HUNG_UP = "hung_up"
    FINISHED = "finished"
    WRAPUP_OVER = "wrapup_over"
    CANCELLED = "cancelled"
    REMOVED = "removed"
    EXPIRED = "expired"


NEW = None
"""The state of a call that is not in the queue yet."""

TRANSITIONS: MappingProxyType[tuple[State | None, Event], State] = MappingProxyType(
    {
        (NEW, Event.ENQUEUED): State.PENDING,
        (NEW, Event.SCHEDULED): State.SCHEDULED,
        # a dead letter comes back: a new call, for `ended` is final
        (NEW, Event.REQUEUED): State.PENDING,
        # the time of a callback, or of the next attempt, has come
        (State.SCHEDULED, Event.DUE): State.PENDING,
        (State.SCHEDULED, Event.CANCELLED): State.ENDED,
        (State.SCHEDULED, Event.REMOVED): State.ENDED,
        (State.SCHEDULED, Event.EXPIRED): State.ENDED,
        (State.PENDING, Event.CLAIMED): State.OFFERED,
        # asked for at a later time
        (State.PENDING, Event.POSTPONED): State.SCHEDULED,
        (State.PENDING, Event.CANCELLED): State.ENDED,
        (State.PENDING, Event.REMOVED): State.ENDED,
        (State.PENDING, Event.EXPIRED): State.ENDED,
        (State.OFFERED, Event.ANSWERED): State.LIVE,
        # back to its old place: handed back by a holder that stops, refused, not answered in time, or the holder died
        (State.OFFERED, Event.RELEASED): State.PENDING,
        (State.OFFERED, Event.REFUSED): State.PENDING,
        (State.OFFERED, Event.NO_ANSWER): State.PENDING,
        (State.OFFERED, Event.LEASE_EXPIRED): State.PENDING,
        # the same after a failed attempt, in a flow that lets some time pass before the next
        (State.OFFERED, Event.POSTPONED): State.SCHEDULED,
        (State.OFFERED, Event.EXHAUSTED): State.ENDED,
        (State.OFFERED, Event.CANCELLED): State.ENDED,
        (State.LIVE, Event.HUNG_UP): State.WRAPUP,
        (State.LIVE, Event.RELEASED): State.PENDING,
        (State.LIVE, Event.LEASE_EXPIRED): State.PENDING,
        (State.LIVE, Event.POSTPONED): State.SCHEDULED,
        (State.LIVE, Event.EXHAUSTED): State.ENDED,
        # the record is complete
        (State.WRAPUP, Event.FINISHED): State.ENDED,
        (State.WRAPUP, Event.WRAPUP_OVER): State.ENDED,
    }
)


def next_state(state: State | None, event: Event) -> State | None:
    """The state after `event`, or None where the event is not allowed in `state`."""
    return TRANSITIONS.get((state, event))


def as_lua() -> str:
    """The table as a Lua table `T[state][event] = state`; a new call's state is the empty string."""
    rows: dict[State | None, list[str]] = {state: [] for state in (NEW, *State)}
    for (before, event), after in TRANSITIONS.items():
        rows[before].append(f"{event}='{after}'")
    table = ",".join(f"['{state or ''}']={{{','.join(of_it)}}}" for state, of_it in rows.items())
    return f"local T={{{table}}}\n"
