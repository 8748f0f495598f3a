"""The voice is understood by the ear: Piper (and flite) speak, Silero and Moonshine hear."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from switchroom.errors import Unavailable
from switchroom.realtime import models
from switchroom.realtime.audio import FRAME, Decimator, Samples, resample
from switchroom.realtime.client import load_audio
from switchroom.realtime.ears import Ears, Heard, SpeechParts
from switchroom.realtime.prompt_cache import CachedVoice
from switchroom.realtime.settings import MediaSettings
from switchroom.realtime.spare_voice import SpareVoice
from switchroom.realtime.tts import FliteVoice, PiperVoice
from switchroom.realtime.turns.hangover import Cue, Endpointer
from switchroom.realtime.turns.transcript import hangs
from switchroom.realtime.vad import VoiceDetector

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLES = Path(__file__).parents[2] / "examples"


def piper(parts: SpeechParts) -> PiperVoice:
    """The program behind the cache."""
    assert isinstance(parts.voice, CachedVoice)
    voice = parts.voice.inner
    if isinstance(voice, SpareVoice):
        voice = voice.first
    assert isinstance(voice, PiperVoice)
    return voice


SENTENCES = [
    "I would like to talk to an operator, please.",
    "Can you tell me where my order is?",
    "The delivery was late and the box was open.",
    "Please call me back tomorrow morning.",
    "Thank you very much for your help.",
]


def words(text: str) -> list[str]:
    return re.sub(r"[^a-z ]", " ", text.lower()).split()


def errors(said: list[str], heard: list[str]) -> int:
    """Word edit distance."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        above, row[0] = row[:], i
        for j, other in enumerate(heard, 1):
            row[j] = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (word != other))
    return row[-1]


async def hear(parts: SpeechParts, samples: Samples) -> str:
    audio = resample(samples, 48_000, 16_000).astype(np.float32) / 32768
    return (await parts.recogniser.transcribe(audio)).text


async def test_round_trip(parts: SpeechParts) -> None:
    total = wrong = 0
    for sentence in SENTENCES:
        samples = await parts.voice.say(sentence)
        assert samples.size > 48_000 // 2
        assert np.abs(samples[: 48_000 // 50]).max() > 100  # it begins with sound, not with silence
        heard = await hear(parts, samples)
        total += len(words(sentence))
        wrong += errors(words(sentence), words(heard))
    print(f"word errors {wrong} of {total}")
    assert wrong / total < 0.15


class Notes:
    """Listens to the ears."""

    def __init__(self) -> None:
        self.utterances: list[Heard] = []
        self.partials: list[str] = []
        self.began = 0

    def speech_started(self) -> None:
        self.began += 1

    def speech_ended(self) -> None:
        pass

    def partial(self, text: str, started: float) -> None:
        self.partials.append(text)

    def heard(self, utterance: Heard) -> None:
        self.utterances.append(utterance)


async def feed(ears: Ears, *audio: Samples) -> None:
    """Faster than it was spoken, and no faster than it is heard."""
    for piece in audio:
        for i in range(0, piece.size - FRAME, FRAME):
            ears.feed(piece[i : i + FRAME])
            while ears.backlog > 25:
                await asyncio.sleep(0.005)


async def test_ears_hear_words_and_no_words_in_noise(parts: SpeechParts, settings: MediaSettings) -> None:
    notes = Notes()
    ears = Ears(parts, settings, notes)
    task = asyncio.create_task(ears.run())
    noise = (np.random.default_rng(7).normal(0, 400, 48_000 * 2)).astype(np.int16)
    speech = await asyncio.to_thread(load_audio, EXAMPLES / "caller-3-operator.wav")
    await feed(ears, noise, speech, np.zeros(48_000, dtype=np.int16))
    async with asyncio.timeout(30):
        while not [one for one in notes.utterances if one.text]:
            await asyncio.sleep(0.02)
    task.cancel()
    assert ears.frames_dropped == 0
    assert ["to an operator" in one.text.lower() for one in notes.utterances if one.text] == [True]


@pytest.mark.parametrize(
    "said", ["The delivery was late and the box was open.", "I was charged twice for the same thing."]
)
async def test_a_whole_sentence_is_not_taken_for_its_beginning(
    parts: SpeechParts, settings: MediaSettings, said: str
) -> None:
    """Its words are decoded before the silence after it is over, and are answered without more waiting."""
    notes = Notes()
    ears = Ears(parts, settings, notes)
    task = asyncio.create_task(ears.run())
    await feed(ears, await parts.voice.say(said), np.zeros(48_000, dtype=np.int16))
    async with asyncio.timeout(20):
        while not notes.utterances:
            await asyncio.sleep(0.01)
    task.cancel()
    heard = notes.utterances[0].text
    assert len(heard.split()) > 6 and not hangs(heard), heard


async def test_words_keep_their_time_when_they_are_looked_at_late(parts: SpeechParts, settings: MediaSettings) -> None:
    """Two seconds of frames in real time, the caller's words at their end, before anybody looks at the first."""
    notes = Notes()
    ears = Ears(parts, settings, notes)
    speech = await parts.voice.say("Where is my parcel?")
    audio = np.concatenate((np.zeros(24_000, dtype=np.int16), speech[:48_000], np.zeros(24_000, dtype=np.int16)))
    began, fed = time.monotonic(), list[float]()
    for i in range(0, audio.size - FRAME, FRAME):
        ears.feed(audio[i : i + FRAME])
        fed.append(time.monotonic())
        await asyncio.sleep(max(0.0, began + i / 48_000 - time.monotonic()))
    task = asyncio.create_task(ears.run())
    async with asyncio.timeout(20):
        while not notes.utterances:
            await asyncio.sleep(0.01)
    task.cancel()
    heard = notes.utterances[0]
    assert heard.started < fed[50] and fed[40] < heard.ended < fed[90], (heard, fed)


async def test_a_button_makes_the_utterance(parts: SpeechParts, settings: MediaSettings) -> None:
    notes = Notes()
    ears = Ears(parts, settings.model_copy(update={"turn_end": "push_to_talk"}), notes)
    task = asyncio.create_task(ears.run())
    speech = await asyncio.to_thread(load_audio, EXAMPLES / "caller-3-operator.wav")
    frames = [speech[i : i + FRAME] for i in range(0, speech.size - FRAME, FRAME)]
    for frame in frames[:100]:  # speech without the button is not heard
        ears.feed(frame)
    while ears.backlog:
        await asyncio.sleep(0.01)
    ears.press()
    for frame in frames:
        ears.feed(frame)
    ears.release()
    ears.release()
    async with asyncio.timeout(20):
        while not notes.utterances:
            await asyncio.sleep(0.02)
    ears.press()
    ears.release()  # nothing was said
    async with asyncio.timeout(20):
        while len(notes.utterances) < 2:
            await asyncio.sleep(0.02)
    task.cancel()
    assert notes.began == 2 and ears.frames_dropped == 0
    assert "to an operator" in notes.utterances[0].text.lower() and notes.utterances[1].text == ""


async def test_voice_detection_finds_the_utterance(parts: SpeechParts) -> None:
    speech = await parts.voice.say("Please call me back tomorrow morning.")
    gap = np.zeros(48_000, dtype=np.int16)
    audio = np.concatenate((gap, speech, gap))
    detector, decimator, endpointer = VoiceDetector(parts.silero), Decimator(16_000), Endpointer()
    cues: list[tuple[float, Cue]] = []
    count = 0
    for i in range(0, audio.size - FRAME, FRAME):
        for _, probability in detector.feed(decimator.feed(audio[i : i + FRAME])):
            count += 1
            if (cue := endpointer.step(probability)) in (Cue.STARTED, Cue.ENDED):
                cues.append((count * 0.032, cue))
    assert [cue for _, cue in cues] == [Cue.STARTED, Cue.ENDED]
    assert cues[0][0] == pytest.approx(1.0, abs=0.35)
    assert cues[1][0] == pytest.approx(1.0 + speech.size / 48_000 + 0.32, abs=0.35)


async def test_the_voice_comes_back_when_its_program_dies(parts: SpeechParts) -> None:
    voice = piper(parts)
    assert voice._process is not None
    os.kill(voice._process.pid, signal.SIGKILL)
    samples = await voice.say("Still here.")
    assert samples.size > 10_000 and voice.restarts == 1


async def test_an_interrupted_clause_does_not_become_the_next_one(parts: SpeechParts) -> None:
    voice = piper(parts)
    before = voice.restarts
    cut = asyncio.ensure_future(voice.say("This long sentence is interrupted before it has been rendered to its end."))
    waiting = asyncio.ensure_future(voice.say("Neither is this one ever heard."))
    await asyncio.sleep(0.05)
    cut.cancel()
    waiting.cancel()
    samples = await voice.say("I want an operator, please.")
    assert samples.size < 48_000 * 3 and voice.restarts == before
    assert "operator" in (await hear(parts, samples)).lower()


async def test_piper_is_never_imported(parts: SpeechParts) -> None:
    await parts.voice.say("Hello.")
    assert not [name for name in sys.modules if name == "piper" or name.startswith("piper.")]
    assert "torch" not in sys.modules and "silero_vad" not in sys.modules


@pytest.mark.skipif(models.flite_program() is None, reason="flite is not installed")
async def test_the_fallback_voice(parts: SpeechParts) -> None:
    program = await asyncio.to_thread(models.flite_program)
    assert program is not None
    voice = await asyncio.to_thread(FliteVoice, program)
    samples = await voice.say("--help is what I want. I want to talk to an operator, please.")
    assert "operator" in (await hear(parts, samples)).lower()
    await voice.close()


async def test_models_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert await asyncio.to_thread(models.missing) == []
    assert (await asyncio.to_thread(models.locate, models.SILERO)).name == "silero_vad.onnx"  # now from the cache
    other: Any = models.SILERO._replace(sha256="0" * 64)
    with pytest.raises(Unavailable, match="SHA-256"):
        await asyncio.to_thread(models.locate, other)
    with pytest.raises(Unavailable, match="pip install"):
        await asyncio.to_thread(models.locate, models.SILERO._replace(package="no_such_package"))
