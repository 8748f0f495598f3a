"""The queue's server-side function: the transition table, a standing's places, what all verbs share, a file a verb."""

from __future__ import annotations

from importlib import resources

from switchroom.queue.codec import standing_as_lua
from switchroom.queue.transitions import as_lua
from switchroom.store import Library

_FOLDER = resources.files("switchroom.queue") / "lua"
_SHARED = ("base", "line", "figures", "record", "history", "moves", "wake", "time")
_VERBS = (
    "call",
    "change",
    "claim",
    "dead",
    "enqueue",
    "hold",
    "holders",
    "join",
    "requeue",
    "stats",
    "status",
    "tick",
    "unwait",
    "verb",
)


def _source() -> str:
    names = [*_SHARED, *(f"verbs/{verb}" for verb in _VERBS), "run"]
    return as_lua() + standing_as_lua() + "\n".join(_FOLDER.joinpath(f"{name}.lua").read_text() for name in names)


QUEUE = Library("switchroom_queue", _source())
