"""What outlives a moment: a conversation after a crash, prompts that are rendered once, a place in line."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from switchroom.engine import FlowStore
from switchroom.engine.events import TurnInput
from switchroom.engine.session import Message, Session
from switchroom.engine.voice_settings import VoiceSettings
from switchroom.errors import BadInput, Unavailable
from switchroom.realtime.audio import FRAME, Samples
from switchroom.realtime.hold import HoldLine, looped
from switchroom.realtime.memory import CallMemory, Remembered
from switchroom.realtime.playout import Playout
from switchroom.realtime.prompt_cache import CachedVoice
from switchroom.realtime.settings import MediaSettings
from switchroom.realtime.spare_voice import SpareVoice
from switchroom.realtime.talk_settings import TalkSettings
from switchroom.realtime.voice import Kept
from switchroom.store import Store

from .conftest import support_line
from .talk import QUICK, Talk, lines


class CountingVoice:
    """Says a frame a word."""

    def __init__(self) -> None:
        self.said: list[str] = []

    async def say(self, text: str) -> Samples:
        self.said.append(text)
        await asyncio.sleep(0)
        return np.full(len(text.split()) * FRAME, 500, dtype=np.int16)

    async def close(self) -> None:
        """Nothing to close."""


# --- after a crash ---------------------------------------------------------------------------------------------------


def last_kept(talk: Talk) -> Kept:
    return [one for one in talk.events if isinstance(one, Kept)][-1]


async def test_a_conversation_that_was_cut_between_turns_says_its_last_words_again() -> None:
    async with Talk(lines("Welcome.", "Your order number?")).running() as first:
        await first.turn_over(1)
        first.caller("My invoice is wrong.")
        await first.turn_over(2)
        await first.until(lambda: last_kept(first).given is None and len(last_kept(first).session.messages) == 3)
        kept = last_kept(first)

    second = Talk(lines("Four one seven two, thank you."))
    second.engine.session = kept.session
    second.engine.resumes = Remembered(session=kept.session)
    async with second.running():
        await second.agent_speaks("order number?")
        await second.until(lambda: second.said("agent"))
        second.caller("Four one seven two.")
        await second.turn_over(1)
    assert second.texts("agent") == ["Sorry, we were cut off. Your order number?", "Four one seven two, thank you."]
    assert [turn.kind for turn in second.turns] == ["utterance"]  # no second opening
    assert [one.text for one in kept.session.messages][1] == "My invoice is wrong."


async def test_a_turn_that_was_cut_is_run_again() -> None:
    session = Session(session_id="s", realtime=True, messages=[Message(role="agent", text="Welcome.")])
    talk = Talk(lines("Your order number?"))
    talk.engine.session = session
    talk.engine.resumes = Remembered(session=session, given=TurnInput(text="My invoice is wrong."))
    async with talk.running():
        await talk.turn_over(1)
    assert talk.texts("agent") == ["Sorry, we were cut off.", "Your order number?"]
    assert [one.text for one in session.messages] == ["Welcome.", "My invoice is wrong.", "Your order number?"]


async def test_memory_keeps_the_newest_and_forgets(store: Store) -> None:
    memory = CallMemory(store, "flow", "task", 1)
    assert await memory.recall() is None
    session = Session(session_id="s", realtime=True, state={"order": "4172"})
    memory.keep(session, TurnInput(text="first"))
    session.state["order"] = "changed later"
    memory.keep(session, TurnInput(text="second"))
    await memory.save()
    left = await CallMemory(store, "flow", "task", 2).recall()
    assert left is not None and left.given is not None and left.given.text == "second"
    assert left.session.state == {"order": "changed later"}
    await memory.forget()
    await memory.save()
    assert await memory.recall() is None


async def test_memory_of_another_form_is_no_memory(store: Store) -> None:
    await store.call("HSET", "sr:{flow}:talk:task", "v", b'{"session": 7}')
    assert await CallMemory(store, "flow", "task", 1).recall() is None


async def test_an_attempt_that_lost_the_call_changes_nothing(store: Store) -> None:
    earlier, later = CallMemory(store, "flow", "task", 1), CallMemory(store, "flow", "task", 2)
    later.keep(Session(session_id="later"), None)
    await later.save()
    earlier.keep(Session(session_id="earlier"), None)
    await earlier.save()
    await earlier.forget()
    left = await later.recall()
    assert left is not None and left.session.session_id == "later"


# --- prompts ---------------------------------------------------------------------------------------------------------


async def test_a_clause_is_rendered_once() -> None:
    inner = CountingVoice()
    voice = CachedVoice(inner, limit_s=1.0)
    voice.warm(["One moment, please."])
    await asyncio.sleep(0.02)
    first = await voice.say("One moment, please.")
    assert inner.said == ["One moment, please."] and voice.hits == 1
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 1
    for number in range(40):  # 40 clauses of 40 ms push the oldest out of one second
        await voice.say(f"number {number}")
    await voice.say("One moment, please.")
    assert inner.said.count("One moment, please.") == 2
    await voice.close()


class BrokenVoice(CountingVoice):
    async def say(self, text: str) -> Samples:
        raise Unavailable("the voice program does not stay up")


async def test_a_broken_voice_has_a_spare() -> None:
    spare = CountingVoice()
    voice = SpareVoice(BrokenVoice(), spare)
    assert (await voice.say("Hello there.")).size == 2 * FRAME
    assert spare.said == ["Hello there."] and voice.spoken_by_spare == 1
    with pytest.raises(Unavailable):
        await SpareVoice(BrokenVoice(), BrokenVoice()).say("Hello.")


# --- waiting for a line ----------------------------------------------------------------------------------------------


def test_audio_in_a_loop_has_no_gap() -> None:
    frame = looped(np.arange(FRAME * 2 + 10, dtype=np.int16))
    pieces = [frame() for _ in range(4)]
    assert all(piece.size == FRAME for piece in pieces)
    assert pieces[3][0] == 0 and pieces[2][9] == FRAME * 2 + 9 and not pieces[2][10:].any()


async def test_the_place_in_line_is_said_when_it_is_news() -> None:
    inner, playout = CountingVoice(), Playout()
    line = HoldLine(playout, inner, TalkSettings(hold_every_s=3600))
    for place in (0, 3, 3, 2):
        line.place(place)
        await asyncio.sleep(0.02)
    assert inner.said == ["You are number 3 in line."]  # unchanged, and better but too soon after
    assert playout.next_frame()[0] == 500
    line._told_at = 0.0  # long ago
    line.place(1)
    await asyncio.sleep(0.02)
    assert inner.said[1:] == ["You are next in line."]
    await line.stop()
    assert not playout.speaking and not playout.next_frame().any()


# --- settings of a flow ----------------------------------------------------------------------------------------------


def test_a_flow_may_set_what_a_media_process_sets() -> None:
    assert set(VoiceSettings.__struct_fields__) - {"after_call"} <= set(MediaSettings.model_fields)
    own = VoiceSettings(silence_s=3.0, backchannels=(), barge_in=False)
    settings = MediaSettings(turn_end="silence").led_by(own)
    assert (settings.silence_s, settings.backchannels, settings.barge_in) == (3.0, (), False)
    assert settings.turn_end == "silence"
    assert QUICK.led_by(VoiceSettings()) == QUICK


async def test_a_wrong_setting_is_named(store: Store) -> None:
    wrong = (({"silence_s": 0}, "voice.silence_s"), ({"silence": 3}, "silence"), ({"turn_end": "x"}, "turn_end"))
    for voice, named in wrong:
        with pytest.raises(BadInput, match=named):
            await FlowStore(store).save(support_line(), flow_id="support", settings={"voice": voice})
    flow = await FlowStore(store).save(support_line(), flow_id="support", settings={"voice": {"silence_s": 3}})
    assert flow.settings.voice == VoiceSettings(silence_s=3)
