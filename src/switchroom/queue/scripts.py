"""The queue's server-side scripts: the transition table, what all of them share, and one body each."""

from __future__ import annotations

import re
from importlib import resources

from switchroom.queue.transitions import as_lua
from switchroom.store import Script

_FOLDER = resources.files("switchroom.queue") / "lua"


def _source(name: str) -> str:
    return (_FOLDER / f"{name}.lua").read_text()


_COMMENT = re.compile(r"(?m)(?:^|\s+)--.*$")
_WORD = re.compile(r"[A-Za-z_]\w*")
_NAMES = re.compile(r"local (?:function )?(\w+(?:, \w+)*)")


def _pieces() -> list[tuple[set[str], str]]:
    """The shared source as its outermost `local` statements: the names that each declares, and its text."""
    whole = as_lua() + "".join(_source(name) for name in ("base", "line", "wake", "record", "time"))
    pieces = []
    for piece in re.split(r"(?m)^(?=local )", _COMMENT.sub("", whole)):
        if named := _NAMES.match(piece):
            pieces.append((set(named[1].split(", ")), piece))
    return pieces


_PIECES = _pieces()


def _script(name: str) -> Script:
    # A body may return anywhere; what it stirred up is settled in any case. Only what a script uses is sent along: the
    # server makes every function anew for each call, which costs more than the commands that most of them run.
    body = (
        f"local function body()\n{_COMMENT.sub('', _source(name))}end\nlocal reply = body()\nsettle()\nreturn reply\n"
    )
    used, kept = set(_WORD.findall(body)), []
    for names, piece in reversed(_PIECES):
        if names & used:
            kept.append(piece)
            used.update(_WORD.findall(piece))
    return Script("".join(reversed(kept)) + body)


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
