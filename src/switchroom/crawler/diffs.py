"""What changed between two readings of a page. Pure."""

from __future__ import annotations

import difflib
from typing import NamedTuple

MAX_LINES = 4_000
"""Longer texts are compared without looking for moved blocks, which takes time with the square of their length."""
MAX_DIFF_CHARS = 200_000
_HEAD_END = "\n---\n\n"


class Diff(NamedTuple):
    """Lines that came and went, and the unified diff (`diff -u`), cut where it is too long."""

    added: int
    removed: int
    text: str


def diff_of(before: str, after: str, url: str, at: tuple[str, str]) -> Diff:
    """The difference of two Markdown texts; `at` are the times of both readings."""
    old, new = before.splitlines(), after.splitlines()
    if len(old) + len(new) > MAX_LINES:
        lines = _coarse(old, new)
    else:
        lines = list(difflib.unified_diff(old, new, url, url, *at, n=2, lineterm=""))
    added = sum(1 for line in lines if line.startswith("+") and not line.startswith("+++"))
    removed = sum(1 for line in lines if line.startswith("-") and not line.startswith("---"))
    text = "\n".join(lines) + "\n"
    return Diff(added, removed, text if len(text) <= MAX_DIFF_CHARS else text[:MAX_DIFF_CHARS] + "\n…\n")


def _coarse(old: list[str], new: list[str]) -> list[str]:
    """Without what both begin and end with."""
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    gone, come = old[start : len(old) - end], new[start : len(new) - end]
    head = f"@@ -{start + 1},{len(gone)} +{start + 1},{len(come)} @@"
    return [head, *("-" + line for line in gone), *("+" + line for line in come)]


def body_of(text: str) -> str:
    """A page's Markdown without the head that says where it is from."""
    if text.startswith("---\n") and (end := text.find(_HEAD_END)) >= 0:
        return text[end + len(_HEAD_END) :]
    return text
