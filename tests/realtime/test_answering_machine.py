"""Who answered a call that we placed."""

from __future__ import annotations

import time

import numpy as np
import pytest

from switchroom.realtime.answering_machine import Answered, BeepDetector, MachineDetector
from switchroom.realtime.audio import FRAME, RATE, Samples
from switchroom.realtime.ears import Heard

from .talk import QUICK, Talk, lines


@pytest.mark.parametrize(
    ("text", "seconds", "who"),
    [
        ("Hello?", 0.6, Answered.PERSON),
        ("Smith speaking, good morning.", 1.8, Answered.PERSON),
        ("You have reached the Smiths.", 1.9, Answered.MACHINE),
        ("Please leave a message after the tone.", 2.4, Answered.MACHINE),
        ("Sorry, I can't come to the phone right now.", 2.5, Answered.MACHINE),
        ("Welcome to the office of Smith and Sons, our hours are nine to five", 4.2, Answered.MACHINE),
        ("", 1.0, None),
        ("", 3.6, Answered.MACHINE),
    ],
)
def test_first_words(text: str, seconds: float, who: Answered | None) -> None:
    assert MachineDetector().heard(text, seconds) is who


def test_who_says_nothing_waits_for_us() -> None:
    detector = MachineDetector()
    assert detector.quiet(1.0) is None and detector.quiet(4.0) is Answered.PERSON


def frames(samples: Samples) -> list[Samples]:
    return [samples[i : i + FRAME] for i in range(0, samples.size - FRAME + 1, FRAME)]


def tone(hertz: float, seconds: float, level: float = 8000) -> Samples:
    return (np.sin(2 * np.pi * hertz / RATE * np.arange(int(RATE * seconds))) * level).astype(np.int16)


@pytest.mark.parametrize("hertz", [440, 1000, 1400])
def test_a_beep_is_heard(hertz: float) -> None:
    noise = np.random.default_rng(3).normal(0, 150, RATE // 2).astype(np.int16)
    beep = tone(hertz, 0.5) + noise
    detector = BeepDetector()
    assert [detector.feed(frame) for frame in frames(beep.astype(np.int16))].index(True) == 7  # after 160 ms


def test_what_is_no_beep() -> None:
    vowel = sum(tone(140 * n, 1.0, 6000 / n) for n in range(1, 12)).astype(np.int16)  # type: ignore[union-attr]
    noise = np.random.default_rng(5).normal(0, 3000, RATE).astype(np.int16)
    short = np.concatenate((tone(1000, 0.1), np.zeros(RATE // 2, dtype=np.int16)))
    for sound in (vowel, noise, short, tone(1000, 1.0, 100), tone(3000, 1.0)):
        detector = BeepDetector()
        assert not any(detector.feed(frame) for frame in frames(sound))


async def says(talk: Talk, text: str, seconds: float) -> None:
    await talk.until(lambda: talk.engine._screening is not None)
    now = time.monotonic()
    talk.engine.speech_started()
    talk.engine.speech_ended()
    talk.engine.heard(Heard(text=text, started=now - seconds, ended=now, endpoint=now, decoded=now))


async def test_a_person_is_greeted_after_their_hello() -> None:
    settings = QUICK.model_copy(update={"voicemail": "message"})
    async with Talk(lines("Good morning."), settings).running() as talk:
        await says(talk, "Hello?", 0.5)
        await talk.turn_over(1)
        assert talk.texts("caller") == ["Hello?"] and talk.texts("agent") == ["Good morning."]
        assert talk.turns[0].kind == "start"


async def test_a_machine_gets_the_message_after_its_beep() -> None:
    settings = QUICK.model_copy(update={"voicemail": "message", "voicemail_text": "Please call us back."})
    async with Talk(lines("Good morning."), settings).running() as talk:
        assert talk.over is not None
        await says(talk, "You have reached the Smiths.", 2.0)
        await talk.until(lambda: talk.engine._screening is not None and talk.engine._screening._beep is not None)
        for frame in frames(tone(1000, 0.3)):
            talk.engine.hear(frame)
        await talk.until(talk.over.done)
        assert talk.texts("agent") == ["Please call us back."] and not talk.turns
        concluded = talk.over.result()
        assert concluded.cause == "voicemail" and "message was left" in concluded.detail


async def test_a_machine_may_be_hung_up_on() -> None:
    settings = QUICK.model_copy(update={"voicemail": "hang_up"})
    async with Talk(lines("Good morning."), settings).running() as talk:
        assert talk.over is not None
        await says(talk, "Please leave a message.", 2.0)
        await talk.until(talk.over.done)
        assert talk.over.result().cause == "voicemail" and not talk.said("agent")
