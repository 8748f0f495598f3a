"""The strategies of a call, from its settings."""

from __future__ import annotations

from switchroom.realtime.talk_settings import TalkSettings
from switchroom.realtime.turns.backchannel import Backchannels
from switchroom.realtime.turns.base import EndOfTurn, Interruption
from switchroom.realtime.turns.minimum_words import MinimumWords
from switchroom.realtime.turns.must_hear import MustHear
from switchroom.realtime.turns.transcript import AtOnce, ByTranscript


def interruptions(settings: TalkSettings) -> list[Interruption]:
    """In the order in which they are asked."""
    chosen: list[Interruption] = [MustHear(always=not settings.barge_in)]
    if settings.backchannels:
        chosen.append(Backchannels(settings.backchannels))
    if settings.barge_in_words > 1:
        chosen.append(MinimumWords(settings.barge_in_words))
    return chosen


def end_of_turn(settings: TalkSettings) -> EndOfTurn:
    return ByTranscript(settings.turn_patience_s) if settings.turn_end == "transcript" else AtOnce()
