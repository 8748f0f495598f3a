"""Words that the ears get wrong, on recordings of people: frames in as from a caller, through decimation, voice
detection, endpointing and recognition, clean and over a telephone line (8 kHz, 300 to 3,400 Hz, mu-law, 25 dB).

The recordings are those of Debian's `pocketsphinx-testdata` (LibriVox, cards, digits, a command).

    python bench/voice/word_errors.py [--data FOLDER] [--whisper MODEL-FOLDER]
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from pathlib import Path

import numpy as np
import uvloop

from switchroom.realtime.audio import FRAME, RATE, Samples, read_wav, resample
from switchroom.realtime.ears import Ears, Heard, SpeechParts
from switchroom.realtime.g711 import decode, encode
from switchroom.realtime.settings import MediaSettings

DATA = Path("/usr/share/pocketsphinx/test/data")
_UNITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_SAME = {"mr": "mister", "oh": "zero", "o": "zero"}


def spoken_words(text: str) -> list[str]:
    """Words to compare: numbers as they are spoken, digit by digit from 11 on."""
    found: list[str] = []
    for word in re.findall(r"[a-z']+|\d+", text.lower().replace("-", " ")):
        if word.isdigit():
            found += [_UNITS[int(word)]] if int(word) <= 10 and len(word) < 3 else [_UNITS[int(one)] for one in word]
        else:
            found.append(_SAME.get(word, word))
    return found


def word_errors(said: list[str], heard: list[str]) -> int:
    """Edit distance in words."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        above, row[0] = row[:], i
        for j, other in enumerate(heard, 1):
            row[j] = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (word != other))
    return row[-1]


def recordings(data: Path) -> list[tuple[str, Samples, str]]:
    """(name, 48 kHz samples, what was said)."""
    found: list[tuple[str, Samples, str]] = []
    for folder, transcripts in (("librivox", "transcription"), ("cards", "cards.transcription")):
        for line in (data / folder / transcripts).read_text().splitlines():
            if match := re.fullmatch(r"<s>(.*)</s>\s*\((.*)\)", line.strip()):
                text = match[1].replace("more a amiable", "more amiable").strip()  # a slip in the transcript
                samples, rate = read_wav(data / folder / f"{match[2]}.wav")
                found.append((match[2], resample(samples, rate, RATE), text))
    for name, text in (
        ("goforward.raw", "go forward ten meters"),
        ("tidigits/dhd.2934z.raw", "two nine three four zero"),
    ):
        raw: Samples = np.fromfile(data / name, dtype="<i2").astype(np.int16)
        found.append((name, resample(raw, 16_000, RATE), text))
    return found


def over_the_phone(samples: Samples) -> Samples:
    """What a telephone line leaves of it."""
    narrow = resample(samples, RATE, 8000).astype(np.float64)
    spectrum = np.fft.rfft(narrow)
    hertz = np.fft.rfftfreq(narrow.size, 1 / 8000)
    spectrum[(hertz < 300) | (hertz > 3400)] = 0
    narrow = np.fft.irfft(spectrum, narrow.size)
    power = float(np.mean(narrow**2))
    narrow += np.random.default_rng(1).normal(0, (power / 10**2.5) ** 0.5, narrow.size)
    pcm: Samples = np.clip(np.rint(narrow), -32768, 32767).astype(np.int16)
    return resample(decode(encode(pcm, "ulaw"), "ulaw"), 8000, RATE)


class Notes:
    """Listens to the ears."""

    def __init__(self) -> None:
        self.utterances: list[Heard] = []
        self.open = False

    def speech_started(self) -> None:
        self.open = True

    def speech_ended(self) -> None: ...

    def partial(self, text: str, started: float) -> None: ...

    def heard(self, utterance: Heard) -> None:
        self.open = False
        self.utterances.append(utterance)


async def hear(parts: SpeechParts, settings: MediaSettings, samples: Samples) -> str:
    notes = Notes()
    ears = Ears(parts, settings, notes)
    task = asyncio.create_task(ears.run())
    quiet = np.zeros(RATE, dtype=np.int16)
    audio = np.concatenate((quiet[: RATE // 2], samples, quiet))
    for at in range(0, audio.size - FRAME, FRAME):
        ears.feed(audio[at : at + FRAME])
        if at % (FRAME * 10) == 0:
            await asyncio.sleep(0.01)
    while ears.backlog or notes.open:
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.1)
    while notes.open:
        await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return " ".join(one.text for one in notes.utterances if one.text)


async def measure(name: str, settings: MediaSettings, data: Path) -> None:
    parts = await SpeechParts.load(settings)
    try:
        told = await asyncio.to_thread(recordings, data)
        for line in ("clean", "phone"):
            total = wrong = 0
            cpu, seconds = time.process_time(), 0.0
            for clip, samples, said in told:
                samples = await asyncio.to_thread(over_the_phone, samples) if line == "phone" else samples
                heard = await hear(parts, settings, samples)
                errors = word_errors(spoken_words(said), spoken_words(heard))
                total, wrong = total + len(spoken_words(said)), wrong + errors
                seconds += samples.size / RATE
                if errors:
                    print(f"    {clip} ({errors}): {heard!r} for {said!r}")
            cost, share = (time.process_time() - cpu) / seconds, wrong / total
            print(f"{name:9s} {line:5s}  {wrong:3d} of {total} words wrong: {share:6.1%}   {cost:.2f} CPU s a second")
    finally:
        await parts.close()


async def main(options: argparse.Namespace) -> None:
    if not await asyncio.to_thread((options.data / "goforward.raw").is_file):
        raise SystemExit(f"no recordings in {options.data}: apt-get install pocketsphinx-testdata, or give --data")
    await measure("moonshine", MediaSettings(), options.data)
    if options.whisper:
        await measure("whisper", MediaSettings(ears="whisper", whisper_model=options.whisper), options.data)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--whisper", type=Path, help="folder of a Whisper model in CTranslate2's format")
    uvloop.run(main(parser.parse_args()))
