"""Cuts a stream of text into clauses for the voice: the first one short, so that it sounds early."""

from __future__ import annotations

import re

_SOFT = re.compile(r"[,;:–—.!?…]+[\"')\]]*\s")
_HARD = re.compile(r"[.!?…]+[\"')\]]*\s|\n")
_FIRST_MIN = 8
_SOFT_MIN = 80
_MAX = 240
_FIRST_LEAST, _FIRST_MOST = 24, 60
"""Characters; a longer first clause (4 s of voice, which take 0.4 s to render) is cut at one of its joints."""
_JOINTS = "and|but|or|so|because|which|who|when|while|where|if|unless|until|before|after|with|from"
_JOINT = re.compile(rf"\s(?=(?:{_JOINTS})\s)", re.IGNORECASE)


class ClauseSplitter:
    """Feed pieces of text, get whole clauses. A mark ends a clause only with white space after it (`4.50`, `e.g.`)."""

    def __init__(self) -> None:
        self._text = ""
        self._first = True

    def feed(self, piece: str) -> list[str]:
        self._text += piece
        clauses: list[str] = []
        while (end := self._end()) is not None:
            clause, self._text = self._text[:end].strip(), self._text[end:]
            if clause:
                clauses.append(clause)
                self._first = False
        return clauses

    def flush(self) -> str:
        """What is left when the text has ended."""
        rest, self._text = self._text.strip(), ""
        return rest

    def _end(self) -> int | None:
        for mark in _HARD.finditer(self._text):
            if self._text[: mark.end()].strip():
                hard: int | None = mark.end()
                break
        else:
            hard = None
        minimum = _FIRST_MIN if self._first else _SOFT_MIN
        for mark in _SOFT.finditer(self._text):
            if mark.end() >= minimum:
                soft: int | None = mark.end()
                break
        else:
            soft = None
        found = [end for end in (hard, soft) if end is not None]
        if self._first and min(found, default=len(self._text)) > _FIRST_MOST and (joint := self._joint()) is not None:
            return joint
        if found:
            return min(found)
        if len(self._text) > _MAX:
            space = self._text.rfind(" ", 0, _MAX)
            return space + 1 if space > 0 else _MAX
        return None

    def _joint(self) -> int | None:
        """Where a long first clause can be cut: before the last joining word that leaves it short enough."""
        joints = [joint.end() for joint in _JOINT.finditer(self._text, _FIRST_LEAST, _FIRST_MOST)]
        return joints[-1] if joints else None
