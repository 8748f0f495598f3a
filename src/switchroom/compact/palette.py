"""The node kinds by their names, in any spelling that a canvas may use."""

from __future__ import annotations

import re
from functools import lru_cache

from switchroom.compact.fields import Kind
from switchroom.compact.kinds import KINDS

__all__ = ["BY_NAME", "REALTIME", "kind_of"]

BY_NAME: dict[str, Kind] = {kind.name: kind for kind in KINDS}
REALTIME: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind.realtime)

_LOOKUP = {kind.name.lower(): kind for kind in KINDS}
_STICKY = frozenset({"stickynote"})
_AFFIXES = ("agentflow", "realtime", "node")


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _resolve(word: str) -> tuple[str | None, bool]:
    """The kind's name behind a spelling such as `startAgentflow`, `conditionAgentRealtime`, `realtimeAgent`."""
    return _resolve_short(word) if len(word) <= 64 else (None, False)


@lru_cache(maxsize=1024)
def _resolve_short(word: str) -> tuple[str | None, bool]:
    realtime = False
    seen = _letters(word)
    while seen:
        if seen in _LOOKUP:
            return _LOOKUP[seen].name, realtime
        if seen in _STICKY:
            return "stickyNote", realtime
        for affix in _AFFIXES:
            if seen.endswith(affix) or seen.startswith(affix):
                seen = seen.removesuffix(affix) if seen.endswith(affix) else seen.removeprefix(affix)
                realtime = realtime or affix == "realtime"
                break
        else:
            return None, realtime
    return None, realtime


def kind_of(name: str, type_: str) -> tuple[str | None, bool]:
    """The kind of a canvas node from `data.name` and `data.type`, and whether it is of the realtime palette.

    None: a kind that we do not know. `stickyNote` is recognised so that it can be dropped."""
    by_name, realtime = _resolve(name) if name else (None, False)
    if by_name is not None:
        return by_name, realtime
    by_type, realtime_type = _resolve(type_) if type_ else (None, False)
    return by_type, by_type is not None and (realtime or realtime_type)
