"""The queue's server-side scripts: the transition table, the shared prelude, and one body each."""

from __future__ import annotations

from importlib import resources

from switchroom.queue.transitions import as_lua
from switchroom.store import Script

_FOLDER = resources.files("switchroom.queue") / "lua"
_PRELUDE = as_lua() + (_FOLDER / "prelude.lua").read_text()


def _script(name: str) -> Script:
    return Script(_PRELUDE + (_FOLDER / f"{name}.lua").read_text())


ENQUEUE = _script("enqueue")
CLAIM = _script("claim")
HOLD = _script("hold")
VERB = _script("verb")
STATUS = _script("status")
CALL = _script("call")
TICK = _script("tick")
