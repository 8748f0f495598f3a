"""A run that waits for a person or for a time, as its session keeps it: enough to walk it again to where it stands."""

from __future__ import annotations

from typing import Any

import msgspec

from switchroom.engine.events import Media, NodeFinished

__all__ = ["Entry", "Paused"]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A finished step: its event, what was said in it, and where the walk goes on (`branch` and `jump` as in
    `Result`)."""

    event: NodeFinished
    said: list[str] = []
    branch: int | None = None
    jump: str | None = None


class Paused(msgspec.Struct, kw_only=True):
    """`positions` is where the walk begins, `loops` the session's loops as they were there; `steps` are the finished
    steps and `notes` the side effects of unfinished ones, by their keys; `spoken` is what unfinished steps have said,
    which nobody is to hear again. `until_ms` is when a Wait ends (Unix time; 0: a person is awaited only); `asked`
    counts how often a caller was asked in vain."""

    run_id: str
    positions: list[str] = []
    loops: dict[str, int] = {}
    steps: dict[str, Entry] = {}
    notes: dict[str, Any] = {}
    spoken: dict[str, str] = {}
    media: list[Media] = []
    until_ms: int = 0
    asked: int = 0
