"""The call's table, walked in full: every reachable state with every event, and the invariants of its docstring."""

from __future__ import annotations

import itertools

from switchroom.queue.model import EndReason
from switchroom.realtime.lifecycle import Do, Event, Happened, Phase, State, advance

EVENTS = [
    Event(what, reason)
    for what in Happened
    for reason in (
        (None, EndReason.COMPLETED, EndReason.TIMEOUT)
        if what in (Happened.CONCLUDED, Happened.HOLD_LOST, Happened.ENDED_BY_VERB, Happened.WAIT_OVER)
        else (None,)
    )
]
TO_THE_QUEUE = {Do.ANSWER, Do.HANG_UP, Do.FINISH, Do.RELEASE}


def reachable() -> dict[State, list[tuple[State, Event]]]:
    """All states that any sequence of events leads to, with one way to each."""
    ways: dict[State, list[tuple[State, Event]]] = {State(): []}
    fresh = [State()]
    while fresh:
        state = fresh.pop()
        for event in EVENTS:
            after, _ = advance(state, event)
            if after not in ways:
                ways[after] = [*ways[state], (state, event)]
                fresh.append(after)
    return ways


def test_every_phase_is_reached() -> None:
    assert {state.phase for state in reachable()} == set(Phase)


def test_ended_is_final() -> None:
    ended = [state for state in reachable() if state.phase is Phase.ENDED]
    assert ended
    for state, event in itertools.product(ended, EVENTS):
        assert advance(state, event) == (state, ())


def test_ending_is_idempotent() -> None:
    for state, event in itertools.product(reachable(), EVENTS):
        if state.phase is not Phase.ENDING:
            continue
        after, effects = advance(state, event)
        assert effects == ()
        assert (after.reason, after.detail) == (state.reason, state.detail)
        assert after.phase is (Phase.ENDED if event.what is Happened.TORN_DOWN else Phase.ENDING)


def test_the_way_out_settles_the_hold_exactly_once() -> None:
    for state, event in itertools.product(reachable(), EVENTS):
        after, effects = advance(state, event)
        if state.phase in (Phase.ENDING, Phase.ENDED) or after.phase is not Phase.ENDING:
            continue
        settled = [effect for effect in effects if effect in (Do.FINISH, Do.RELEASE, Do.ABANDON)]
        held = state.held and event.what is not Happened.HOLD_LOST
        left = event.what is Happened.CALLER_HUNG_UP and not state.began
        assert len(settled) == (1 if held or left else 0), (state, event, effects)
        assert (Do.ABANDON in effects) == left
        assert Do.CLOSE_LEG in effects
        assert (Do.HANG_UP in effects) <= (Do.FINISH in effects)
        if Do.FINISH in effects or Do.HANG_UP in effects:
            assert after.reason is not None


def test_the_record_is_finalised_before_anything_is_told_or_torn_down() -> None:
    for state, event in itertools.product(reachable(), EVENTS):
        _, effects = advance(state, event)
        if Do.CLOSE_LEG not in effects:
            continue
        assert (Do.FINALISE_RECORD in effects) == state.began
        if state.began:
            record = effects.index(Do.FINALISE_RECORD)
            later = (Do.HANG_UP, Do.SAY_ENDED, Do.CLOSE_LEG, Do.FINISH, Do.RELEASE)
            assert all(effects.index(step) > record for step in later if step in effects)
            assert effects.index(Do.STOP_ENGINE) < record


def test_a_lost_hold_is_never_written_to() -> None:
    for state in reachable():
        _, effects = advance(state, Event(Happened.HOLD_LOST, EndReason.TIMEOUT))
        assert not TO_THE_QUEUE & set(effects)
        if not state.held:
            for event in EVENTS:
                if event.what is not Happened.CLAIMED:
                    _, effects = advance(state, event)
                    assert not TO_THE_QUEUE & set(effects), (state, event)


def test_a_conversation_begins_once_and_only_with_a_hold_and_media() -> None:
    for state, event in itertools.product(reachable(), EVENTS):
        after, effects = advance(state, event)
        if Do.CONVERSE in effects:
            assert not state.began and after.began and after.held and after.phase is Phase.LIVE
            assert effects == (Do.ANSWER, Do.CONVERSE)
        elif state.phase is not Phase.LOST:
            assert (after.phase is Phase.LIVE) <= (state.phase is Phase.LIVE)


def test_the_usual_ways() -> None:
    def walk(*events: Event) -> tuple[State, list[Do]]:
        state, done = State(), []
        for event in events:
            state, effects = advance(state, event)
            done += effects
        return state, done

    claimed, up = Event(Happened.CLAIMED), Event(Happened.MEDIA_UP)
    out = [Do.STOP_ENGINE, Do.FINALISE_RECORD, Do.HANG_UP, Do.SAY_ENDED, Do.CLOSE_LEG, Do.FINISH]

    state, done = walk(claimed, up, Event(Happened.CONCLUDED, EndReason.COMPLETED), Event(Happened.TORN_DOWN))
    assert state.phase is Phase.ENDED and state.reason is EndReason.COMPLETED
    assert done == [Do.ANSWER, Do.CONVERSE, *out]

    state, done = walk(up, claimed, Event(Happened.CALLER_HUNG_UP))
    assert state.reason is EndReason.COMPLETED
    assert done == [Do.HOLD_TONE, Do.CLAIM, Do.ANSWER, Do.CONVERSE, *out]

    state, done = walk(claimed, up, Event(Happened.LEG_DEAD), Event(Happened.LEG_REPLACED))
    assert state.phase is Phase.LIVE and done == [Do.ANSWER, Do.CONVERSE, Do.PAUSE, Do.RESUME]

    state, done = walk(claimed, up, Event(Happened.LEG_DEAD), Event(Happened.GRACE_OVER))
    assert state.reason is EndReason.TIMEOUT

    state, done = walk(claimed, Event(Happened.LEG_FAILED))
    assert done == [Do.SAY_ENDED, Do.CLOSE_LEG, Do.RELEASE]  # nobody was there: the call keeps its place

    for before in ((), (up,), (claimed,)):  # a caller who leaves before the call began is not waited for
        state, done = walk(*before, Event(Happened.CALLER_HUNG_UP))
        assert state.reason is EndReason.ABANDONED and done[-3:] == [Do.SAY_ENDED, Do.CLOSE_LEG, Do.ABANDON]

    state, done = walk(claimed, up, Event(Happened.DRAINED))
    assert done[2:] == [Do.STOP_ENGINE, Do.FINALISE_RECORD, Do.SAY_ENDED, Do.CLOSE_LEG, Do.RELEASE]

    state, done = walk(claimed, up, Event(Happened.ENDED_BY_VERB, EndReason.CANCELLED))
    assert state.reason is EndReason.CANCELLED and Do.HANG_UP not in done and done[-1] is Do.FINISH
