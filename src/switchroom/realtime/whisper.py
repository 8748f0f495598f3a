"""Speech to text by Whisper, through faster-whisper and CTranslate2: slower than Moonshine, better on telephone lines.

The model is a folder of the operator's own (`model.bin`, `config.json`, `tokenizer.json`, a vocabulary), as
`ct2-transformers-converter` writes it; nothing is downloaded here.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from switchroom.errors import Unavailable
from switchroom.realtime import models
from switchroom.realtime.stt import Spoken, SpokenWord
from switchroom.realtime.vad import Floats

COMMAND = "pip install 'switchroom[whisper]'"
_FILES = ("model.bin", "config.json", "tokenizer.json")


class WhisperRecogniser:
    """One model with one thread of its own, as `stt.Recogniser`."""

    def __init__(self, model: Any, language: str, *, word_times: bool) -> None:
        self._model = model
        self._language = language
        self._word_times = word_times
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="whisper")

    @classmethod
    async def load(
        cls, folder: Path | None, *, sha256: str = "", language: str = "en", word_times: bool = False
    ) -> WhisperRecogniser:
        """Raises `Unavailable` that names the setting: no folder, a file missing, another file than the pinned one, or
        the package not installed."""
        return await asyncio.to_thread(cls._load, folder, sha256, language, word_times)

    @classmethod
    def _load(cls, folder: Path | None, sha256: str, language: str, word_times: bool) -> WhisperRecogniser:
        if folder is None:
            raise Unavailable("the ears `whisper` need `whisper_model`: the folder of a CTranslate2 model")
        if missing := [name for name in _FILES if not (folder / name).is_file()]:
            raise Unavailable(f"whisper_model: {folder} lacks {', '.join(missing)}", code="model_missing")
        if sha256 and models.digest(folder / "model.bin") != sha256.lower():
            raise Unavailable(
                "whisper_model: model.bin is not the file of whisper_sha256 (SHA-256 differs)", code="model_changed"
            )
        if models.package_dir("faster_whisper") is None:
            raise Unavailable(f"faster-whisper is not installed: {COMMAND}", code="model_missing")
        from faster_whisper import WhisperModel

        try:
            model = WhisperModel(
                str(folder), device="cpu", compute_type="int8", cpu_threads=1, num_workers=1, local_files_only=True
            )
        except (RuntimeError, ValueError) as error:
            raise Unavailable(f"whisper_model: {folder} cannot be loaded ({error})", code="model_missing") from error
        return cls(model, language, word_times=word_times)

    async def transcribe(self, audio: Floats) -> Spoken:
        """What is said in 16 kHz mono float audio (-1 to 1); with `word_times`, when each word is."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transcribe, audio)

    def _transcribe(self, audio: Floats) -> Spoken:
        segments, _ = self._model.transcribe(
            audio,
            language=self._language,
            beam_size=1,
            without_timestamps=True,
            word_timestamps=self._word_times,
            condition_on_previous_text=False,
        )
        found = list(segments)
        words = (
            SpokenWord(word.word.strip(), float(word.start), float(word.end))
            for segment in found
            for word in segment.words or ()
        )
        text = " ".join(segment.text.strip() for segment in found).strip()
        return Spoken(text, tuple(word for word in words if word.text))

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
