"""The peers' own homes, made once in a cache folder: node modules, a Python environment, the floor's parser."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PEERS = HERE / "peers"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "switchroom-bench"


PYTHON_PEERS = {
    "arq": ("arq==0.28.0", "fastapi==0.139.*", "uvicorn", "httptools", "uvloop"),
    "saq": ("saq[redis]==0.26.4", "typing-extensions", "uvloop"),
    "streaq": ("streaq==7.2.0", "uvloop"),
    "taskiq": ("taskiq==0.13.0", "taskiq-redis==1.2.4", "uvloop"),
}
"""Each in an environment of its own: their demands on redis-py exclude each other."""


def _home(name: str, recipe: bytes) -> Path:
    return CACHE / f"{name}-{hashlib.sha256(recipe).hexdigest()[:12]}"


def _made(folder: Path, *steps: list[str]) -> Path:
    """`folder`, made by `steps` unless a run before finished it."""
    if not (folder / "made").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for step in steps:
            print(f"  setting up {folder.name}: {' '.join(step[:4])} …", file=sys.stderr, flush=True)
            subprocess.run(step, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        (folder / "made").touch()
    return folder


def node_home() -> Path | None:
    """A folder with express and BullMQ, or None where there is no node."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return None
    recipe = PEERS / "package.json"
    return _made(
        _home("node", recipe.read_bytes()),
        ["cp", str(recipe), "."],
        ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"],
    )


def peer_python(name: str) -> Path:
    """The interpreter of an environment that holds this Python peer."""
    wanted = PYTHON_PEERS[name]
    folder = _home(f"python-{name}", " ".join(wanted).encode())
    _made(
        folder,
        [sys.executable, "-m", "venv", "."],
        ["bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", *wanted],
    )
    return folder / "bin" / "python"


def floor_path() -> Path:
    """A folder for PYTHONPATH that holds httptools, which the product does not need."""
    return _made(
        CACHE / "floor",
        [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--target", ".", "httptools"],
    )


def wrk() -> str:
    found = shutil.which("wrk")
    if found is None:
        raise SystemExit("wrk is missing: apt-get install wrk")
    return found
