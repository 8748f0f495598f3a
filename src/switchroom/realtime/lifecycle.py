"""One call's life as a pure function: `advance(state, event) -> (state, effects)`. No clock, no I/O.

Numbered invariants, held by a test that walks every state with every event:
1. `ENDED` is reached exactly once and nothing follows it.
2. Ending is idempotent: in `ENDING` a further cause of an end changes nothing.
3. A hold that was lost is never written to again: no queue effect after `HOLD_LOST`.
4. Whoever holds the call when it ends either finishes or releases it: exactly one of the two.
5. The record is finalised before the queue is told and before the leg is closed.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from switchroom.queue.model import EndReason


class Phase(StrEnum):
    """`CONNECTING`: an answer is out, no media, no line. `OFFERED`: a line is held, no media yet. `WAITING`: media
    flows, no line is free. `LIVE`: they talk. `LOST`: live, but the caller's leg is gone and may come back."""

    CONNECTING = "connecting"
    OFFERED = "offered"
    WAITING = "waiting"
    LIVE = "live"
    LOST = "lost"
    ENDING = "ending"
    ENDED = "ended"


class State(NamedTuple):
    phase: Phase = Phase.CONNECTING
    held: bool = False
    """We hold the call in the queue."""
    began: bool = False
    """It was live: there is a conversation and a record."""
    reason: EndReason | None = None
    detail: str = ""


class Happened(StrEnum):
    CLAIMED = "claimed"
    MEDIA_UP = "media_up"
    LEG_REPLACED = "leg_replaced"
    """The caller's client came back (or a second one took over): a new leg's media flows."""
    LEG_FAILED = "leg_failed"
    """Media never came."""
    LEG_DEAD = "leg_dead"
    CALLER_HUNG_UP = "caller_hung_up"
    GRACE_OVER = "grace_over"
    WAIT_OVER = "wait_over"
    """No line became free in time, or the call ended in the queue while its caller waited."""
    CONCLUDED = "concluded"
    """The engine has said all it had to say; reason in the event."""
    HOLD_LOST = "hold_lost"
    ENDED_BY_VERB = "ended_by_verb"
    """Somebody ended the call in the queue (`complete`, `cancel`); we still hold it for its wrap-up."""
    DRAINED = "drained"
    """This process stops and its deadline has passed."""
    TORN_DOWN = "torn_down"


class Event(NamedTuple):
    what: Happened
    reason: EndReason | None = None
    detail: str = ""


class Do(StrEnum):
    """Effects, run in the order given."""

    CLAIM = "claim"
    HOLD_TONE = "hold_tone"
    ANSWER = "answer"
    """Tell the queue that the call is live."""
    CONVERSE = "converse"
    PAUSE = "pause"
    RESUME = "resume"
    FINALISE_RECORD = "finalise_record"
    HANG_UP = "hang_up"
    """Tell the queue that the call is over (wrap-up)."""
    STOP_ENGINE = "stop_engine"
    SAY_ENDED = "say_ended"
    CLOSE_LEG = "close_leg"
    FINISH = "finish"
    RELEASE = "release"
    ABANDON = "abandon"
    """Tell the queue that the caller left before the call began."""


Step = tuple[State, tuple[Do, ...]]

_END_EVENTS = {
    Happened.LEG_FAILED,
    Happened.CALLER_HUNG_UP,
    Happened.GRACE_OVER,
    Happened.WAIT_OVER,
    Happened.CONCLUDED,
    Happened.HOLD_LOST,
    Happened.ENDED_BY_VERB,
    Happened.DRAINED,
}


def advance(state: State, event: Event) -> Step:
    """The next state and what is to be done. An event that means nothing in a state changes nothing."""
    phase, what = state.phase, event.what
    if phase is Phase.ENDED:
        return state, ()
    if phase is Phase.ENDING:
        if what is Happened.TORN_DOWN:
            return state._replace(phase=Phase.ENDED), ()
        if what is Happened.HOLD_LOST:
            return state._replace(held=False), ()
        return state, ()
    if what is Happened.CLAIMED:
        return _claimed(state)
    if what is Happened.MEDIA_UP:
        return _media_up(state)
    if what is Happened.LEG_REPLACED:
        if phase is Phase.LOST:
            return state._replace(phase=Phase.LIVE), (Do.RESUME,)
        return _media_up(state)
    if what is Happened.LEG_DEAD:
        if phase is Phase.LIVE:
            return state._replace(phase=Phase.LOST), (Do.PAUSE,)
        if phase is Phase.LOST:
            return state, ()
        return _end(state, EndReason.ABANDONED, "the caller's leg died before the call began")
    if what in _END_EVENTS:
        return _ending(state, event)
    return state, ()


def _claimed(state: State) -> Step:
    if state.phase is Phase.CONNECTING:
        return state._replace(phase=Phase.OFFERED, held=True), ()
    if state.phase is Phase.WAITING:
        return state._replace(phase=Phase.LIVE, held=True, began=True), (Do.ANSWER, Do.CONVERSE)
    return state, ()


def _media_up(state: State) -> Step:
    if state.phase is Phase.OFFERED:
        return state._replace(phase=Phase.LIVE, began=True), (Do.ANSWER, Do.CONVERSE)
    if state.phase is Phase.CONNECTING:
        return state._replace(phase=Phase.WAITING), (Do.HOLD_TONE, Do.CLAIM)
    return state, ()


def _ending(state: State, event: Event) -> Step:
    match event.what:
        case Happened.LEG_FAILED:
            return _end(state, EndReason.NO_ANSWER, event.detail or "the caller's media never came")
        case Happened.CALLER_HUNG_UP:
            reason = EndReason.COMPLETED if state.began else EndReason.ABANDONED
            return _end(state, reason, event.detail or "the caller hung up", left=not state.began)
        case Happened.GRACE_OVER:
            return _end(state, EndReason.TIMEOUT, event.detail or "the caller's leg died and did not come back")
        case Happened.HOLD_LOST:
            return _end(state._replace(held=False), event.reason, event.detail or "the hold on the call was lost")
        case Happened.ENDED_BY_VERB:
            return _end(state, event.reason or EndReason.COMPLETED, event.detail, told=True)
        case Happened.DRAINED:
            return _end(state, None, event.detail or "this media process stops")
        case _:
            return _end(state, event.reason or EndReason.FAILED, event.detail)


def _end(state: State, reason: EndReason | None, detail: str, *, told: bool = False, left: bool = False) -> Step:
    """The way out. A call that was not live, or that a stopping process gives up (`reason` None), goes back to its
    place in the queue; the others are over. `told`: the queue knows already that it is over. `left`: the caller said so
    before the call began: nobody waits for it any more."""
    ended = state._replace(phase=Phase.ENDING, reason=reason, detail=detail)
    effects: list[Do] = []
    over = state.held and reason is not None and (state.began or told)
    if state.began:
        effects += [Do.STOP_ENGINE, Do.FINALISE_RECORD]
    if over and not told:
        effects.append(Do.HANG_UP)
    effects += [Do.SAY_ENDED, Do.CLOSE_LEG]
    if left:
        effects.append(Do.ABANDON)
    elif over:
        effects.append(Do.FINISH)
    elif state.held:
        effects.append(Do.RELEASE)
    return ended, tuple(effects)
