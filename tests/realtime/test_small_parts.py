"""Playout, clauses, endpointing, frames: the pure parts."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchroom.engine.voice_settings import VoiceSettings
from switchroom.realtime import MediaSettings
from switchroom.realtime.audio import FRAME, SILENCE, SILENT_DBFS, Framer, Samples, level_dbfs, to_mono
from switchroom.realtime.clauses import ClauseSplitter
from switchroom.realtime.ears import Heard
from switchroom.realtime.minutes import Minutes
from switchroom.realtime.playout import Playout
from switchroom.realtime.stt import SpokenWord
from switchroom.realtime.tts import speakable
from switchroom.realtime.turns.hangover import Cue, Endpointer
from switchroom.realtime.voice import Said, VoiceEvent


def tone(frames: float, value: int = 1000) -> Samples:
    return np.full(int(frames * FRAME), value, dtype=np.int16)


async def test_playout_hands_out_whole_frames_and_says_what_was_heard() -> None:
    playout = Playout()
    firsts: list[str] = []
    assert playout.say(tone(1.5), "one two three", generation=0, on_first=lambda: firsts.append("a"))
    assert playout.say(tone(1.5, 2000), "four", generation=0, on_first=lambda: firsts.append("b"))
    frames = [playout.next_frame() for _ in range(3)]
    assert all(frame.size == FRAME for frame in frames)
    assert frames[1][0] == 1000 and frames[1][-1] == 2000
    assert firsts == ["a", "b"]
    assert playout.take_heard() == "one two three four"
    assert not playout.speaking
    await playout.drained()
    assert playout.next_frame() is SILENCE


async def test_barge_in_keeps_what_was_heard_and_drops_the_stale() -> None:
    playout = Playout()
    playout.say(tone(10), "one two three four five six seven eight nine ten", generation=0)
    playout.say(tone(10), "never", generation=0)
    for _ in range(4):
        playout.next_frame()
    playout.pause("caller")
    assert playout.next_frame() is SILENCE and playout.speaking
    playout.clear()
    playout.resume("caller")
    assert playout.take_heard() == "one two three four"
    assert not playout.say(tone(1), "made before the barge-in", generation=0)
    assert playout.say(tone(1), "fresh", generation=1)


async def test_what_a_provider_buffers_is_heard_once_it_says_so() -> None:
    playout = Playout()
    playout.confirmed_by_leg = True
    cleared: list[str] = []
    playout.on_clear = lambda: cleared.append("clear")
    playout.say(tone(2), "one two", generation=0)
    playout.say(tone(4), "three four five six", generation=0)
    for _ in range(6):
        playout.next_frame()
    assert playout.speaking and not playout.heard_any  # all of it left, nothing is known to be heard
    drained = asyncio.ensure_future(playout.drained())
    playout.confirm(3)
    await asyncio.sleep(0)
    assert playout.heard_any and not drained.done()
    playout.clear()
    assert cleared == ["clear"]
    assert playout.take_heard() == "one two three"
    await drained
    playout.confirm(6)  # marks of what was cleared come back too
    assert playout.take_heard() == ""

    playout.say(tone(1), "seven", generation=1)
    playout.next_frame()
    playout.confirm_all()  # another leg takes over: nobody will say any more
    assert playout.take_heard() == "seven" and not playout.speaking


async def test_a_pause_is_lifted_by_its_own_reason_only() -> None:
    playout = Playout()
    playout.say(tone(2), "x", generation=0)
    playout.pause("caller")
    playout.pause("leg")
    playout.resume("caller")
    assert not playout.next_frame().any()
    playout.resume("leg")
    assert playout.next_frame().any()


async def test_playout_is_bounded() -> None:
    playout = Playout(limit_s=0.1)
    assert playout.say(tone(5), "fits", generation=0)
    assert not playout.say(tone(1), "too much", generation=0)
    assert playout.dropped_samples == FRAME


def clauses_of(*pieces: str) -> list[str]:
    splitter = ClauseSplitter()
    found = [clause for piece in pieces for clause in splitter.feed(piece)]
    rest = splitter.flush()
    return [*found, rest] if rest else found


def test_clauses() -> None:
    assert clauses_of("Thanks for calling, how can ", "I help you? Say ", "invoice.") == [
        "Thanks for calling,",
        "how can I help you?",
        "Say invoice.",
    ]
    assert clauses_of("It costs 4.50 euros. Is that all right?") == ["It costs 4.50 euros.", "Is that all right?"]
    assert clauses_of("Yes. Done.") == ["Yes.", "Done."]
    assert clauses_of("   ") == []
    long = "I have looked at your account and I can see that the last invoice was sent to you on Monday. It is paid."
    first = ["I have looked at your account", "and I can see that the last invoice was sent to you on Monday."]
    assert clauses_of(long) == clauses_of(*(word + " " for word in long.split())) == [*first, "It is paid."]
    assert clauses_of("A shorter one is said in one piece and not in two. Yes.")[1:] == ["Yes."]


@given(st.text(alphabet="ab,.;!? \n", max_size=600), st.integers(1, 40))
def test_clauses_lose_nothing(text: str, size: int) -> None:
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    assert "".join("".join(clauses_of(*pieces)).split()) == "".join(text.split())


@given(st.lists(st.integers(0, 3000), max_size=30))
def test_framer_loses_nothing(sizes: list[int]) -> None:
    framer, count = Framer(), 0
    for size in sizes:
        for frame in framer.feed(np.ones(size, dtype=np.int16)):
            assert frame.size == FRAME
            count += 1
    assert count == sum(sizes) // FRAME


def cues(voiced: str) -> list[Cue]:
    endpointer = Endpointer(hangover_ms=320, speculative_ms=96)
    return [cue for mark in voiced if (cue := endpointer.step(0.9 if mark == "#" else 0.05)) is not Cue.NONE]


@pytest.mark.parametrize(
    ("voiced", "expected"),
    [
        ("..##....", []),  # a click
        ("..####" + "." * 10, [Cue.STARTED, Cue.PAUSED, Cue.ENDED]),
        ("####....####" + "." * 10, [Cue.STARTED, Cue.PAUSED, Cue.RESUMED, Cue.PAUSED, Cue.ENDED]),
        ("####..####", [Cue.STARTED]),
        ("####" + "." * 9, [Cue.STARTED, Cue.PAUSED]),
    ],
)
def test_endpointer(voiced: str, expected: list[Cue]) -> None:
    assert cues(voiced) == expected


def test_levels() -> None:
    assert level_dbfs(SILENCE) == SILENT_DBFS
    assert level_dbfs(np.full(100, 32767, dtype=np.int16)) == pytest.approx(0.0, abs=0.01)
    assert level_dbfs(np.full(100, 3277, dtype=np.int16)) == pytest.approx(-20.0, abs=0.05)
    stereo = np.array([100, 200, -300, -100], dtype=np.int16)
    assert to_mono(stereo, 2).tolist() == [150, -200]


def test_speakable_is_one_clean_line() -> None:
    assert speakable("**Hello**\n<b>there</b>\x07 | you") == "Hello b there /b you"
    assert "\n" not in speakable("a\nb")
    assert len(speakable("x" * 10_000)) == 500


def test_times_of_words_count_from_the_calls_beginning() -> None:
    told: list[VoiceEvent] = []
    minutes = Minutes()
    minutes.begin(told.append)
    zero = minutes.zero
    words = (SpokenWord("my", 0.1, 0.4), SpokenWord("number", 0.5, 1.3))
    minutes.caller(
        Heard(
            text="my number",
            started=zero + 2.2,
            ended=zero + 3.0,
            endpoint=zero + 3.4,
            decoded=zero + 3.5,
            words=words,
            audio_from=zero + 2.0,
        )
    )
    (said,) = told
    assert isinstance(said, Said) and (said.start_ms, said.end_ms) == (2100, 3300)  # the cue holds its words
    assert [(one.text, one.start_ms, one.end_ms) for one in said.words] == [("my", 2100, 2400), ("number", 2500, 3300)]


def test_a_flow_can_replace_every_text_of_ours() -> None:
    ours = {name for name in MediaSettings.model_fields if name.endswith(("_text", "_texts"))}
    assert len(ours) > 8 and ours <= set(VoiceSettings.__struct_fields__)
    voice = VoiceSettings(silence_prompt_text="Sind Sie noch da?", filler_texts=(), record_consent_text="")
    led = MediaSettings(record_consent_text="This call is recorded.").led_by(voice)
    assert (led.silence_prompt_text, led.filler_texts, led.record_consent_text) == ("Sind Sie noch da?", (), "")
