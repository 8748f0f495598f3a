"""The queue's server-side scripts: the transition table, what all of them share, and one body each."""

from __future__ import annotations

from importlib import resources

from switchroom.queue.transitions import as_lua
from switchroom.store import Script

_FOLDER = resources.files("switchroom.queue") / "lua"


def _source(name: str) -> str:
    return (_FOLDER / f"{name}.lua").read_text()


_SHARED = as_lua() + "".join(_source(name) for name in ("base", "line", "wake", "record", "time"))


def _script(name: str) -> Script:
    # A body may return anywhere; what it stirred up is settled in any case.
    return Script(f"{_SHARED}local function body()\n{_source(name)}end\nlocal reply = body()\nsettle()\nreturn reply\n")


ENQUEUE = _script("enqueue")
REQUEUE = _script("requeue")
CLAIM = _script("claim")
JOIN = _script("join")
UNWAIT = _script("unwait")
HOLD = _script("hold")
VERB = _script("verb")
STATUS = _script("status")
STATS = _script("stats")
DEAD = _script("dead")
CALL = _script("call")
TICK = _script("tick")
