"""Speech to text: Moonshine tiny (English), one decode of a whole utterance, 50 to 400 ms of CPU.

The package's own Python call turns every sample into a Python float and back while it holds the interpreter's lock,
which delays the audio of all calls. So the library's C function is called on the numpy buffer (package version
pinned).
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from switchroom.errors import Unavailable
from switchroom.realtime import models
from switchroom.realtime.vad import VAD_RATE, Floats

MIN_SAMPLES = VAD_RATE // 2
"""Shorter pieces are padded with silence: the model returns nothing for a few hundred samples."""


class SpokenWord(NamedTuple):
    """A word, and its place in seconds from the beginning of the audio."""

    text: str
    start_s: float
    end_s: float


class Spoken(NamedTuple):
    """What a recogniser understood. `words` is empty where it tells no times of them."""

    text: str
    words: tuple[SpokenWord, ...] = ()


class Recogniser:
    """One model with one thread of its own: decodes queue up, the loop never waits."""

    def __init__(self, transcriber: Any, api: Any) -> None:
        self._transcriber = transcriber
        self._api = api
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recogniser")

    @classmethod
    async def load(cls) -> Recogniser:
        """Raises `Unavailable` when the model is not installed."""
        return await asyncio.to_thread(cls._load)

    @classmethod
    def _load(cls) -> Recogniser:
        # Read by the library when it creates its sessions; about halves its CPU time.
        os.environ.setdefault("MOONSHINE_ORT_SINGLE_THREAD", "1")
        folder = models.moonshine_dir()
        try:
            from moonshine_voice import ModelArch, Transcriber, moonshine_api
        except (ImportError, OSError) as error:
            raise Unavailable(f"Moonshine cannot be loaded ({error}): {models.EXTRA_COMMAND}") from error
        options = {"return_audio_data": "false", "identify_speakers": "false", "vad_threshold": "0"}
        return cls(Transcriber(folder, ModelArch.TINY, options=options), moonshine_api)

    async def transcribe(self, audio: Floats) -> Spoken:
        """What is said in 16 kHz mono float audio (-1 to 1). The model that the package ships knows no times of words:
        its text alone, empty when nothing was understood."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transcribe, audio)

    def _transcribe(self, audio: Floats) -> Spoken:
        if audio.size < MIN_SAMPLES:
            audio = np.concatenate((audio, np.zeros(MIN_SAMPLES - audio.size, dtype=np.float32)))
        buffer = np.ascontiguousarray(audio, dtype=np.float32)
        result = ctypes.POINTER(self._api.TranscriptC)()
        code = self._transcriber._lib.moonshine_transcribe_without_streaming(
            self._transcriber._handle,
            buffer.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
            buffer.size,
            VAD_RATE,
            0,
            ctypes.byref(result),
        )
        if code < 0:
            raise Unavailable(f"speech recognition failed (code {code})", code="recogniser_failed")
        if not result:
            return Spoken("")
        lines = [result.contents.lines[i].text for i in range(result.contents.line_count)]
        texts = (ctypes.string_at(line).decode("utf-8", "replace").strip() for line in lines if line)
        return Spoken(" ".join(texts).strip())

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._transcriber.close()
