from __future__ import annotations

import itertools

import pytest

from switchroom.queue.model import State
from switchroom.queue.transitions import TRANSITIONS, Event, next_state

ALLOWED = {
    None: {"enqueued": "pending", "scheduled": "scheduled", "requeued": "pending"},
    "scheduled": {"due": "pending", "cancelled": "ended", "removed": "ended", "expired": "ended"},
    "pending": {
        "claimed": "offered",
        "postponed": "scheduled",
        "cancelled": "ended",
        "removed": "ended",
        "expired": "ended",
    },
    "offered": {
        "answered": "live",
        "released": "pending",
        "refused": "pending",
        "no_answer": "pending",
        "lease_expired": "pending",
        "postponed": "scheduled",
        "exhausted": "ended",
        "cancelled": "ended",
    },
    "live": {
        "hung_up": "wrapup",
        "released": "pending",
        "lease_expired": "pending",
        "postponed": "scheduled",
        "exhausted": "ended",
    },
    "wrapup": {"finished": "ended", "wrapup_over": "ended"},
    "ended": {},
}


@pytest.mark.parametrize(("state", "event"), list(itertools.product([None, *State], Event)))
def test_every_pair_of_the_table(state: State | None, event: Event) -> None:
    assert next_state(state, event) == ALLOWED[state].get(event)


def test_ended_is_final_and_every_state_is_reached() -> None:
    assert not [pair for pair in TRANSITIONS if pair[0] is State.ENDED]
    assert set(TRANSITIONS.values()) == set(State)
