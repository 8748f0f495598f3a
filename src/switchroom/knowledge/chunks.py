"""A Markdown text as chunks under their headings: what a search finds and an answer quotes. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

VERSION = 1
"""Grows with any change to what `chunks_of` gives: indexes and vectors made by another are made again."""
MAX_CHARS = 1_200
_HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*$")
_FENCE = re.compile(r"^\s*(```|~~~)")
_FRONT = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)\s]*(?:\s+\"[^\"]*\")?\)")
_MARKS = re.compile(r"(\*\*|__|`+|~~)")
_RULE = re.compile(r"^\s*\|?\s*:?-{2,}:?\s*(\|\s*:?-{2,}:?\s*)*\|?\s*$")
_LEAD = re.compile(r"^\s*(?:>+\s*|[-*+]\s+|\d+[.)]\s+)+")
_SENTENCE = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+(?=[^\sa-z])|(?<=[。！？])")
_BLANKS = re.compile(r"[ \t\u00a0]+")


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a text, in Markdown; `headings` lead to it, outermost first."""

    headings: tuple[str, ...]
    text: str


def chunks_of(markdown: str, title: str = "") -> list[Chunk]:
    """The parts of a text, each of one section and at most `MAX_CHARS` long (a longer sentence is cut). A first heading
    that repeats `title` is left out of the headings."""
    found: list[Chunk] = []
    for headings, body in _sections(_FRONT.sub("", markdown.replace("\r\n", "\n"))):
        path = headings[1:] if headings and headings[0].casefold() == title.casefold() else headings
        found += [Chunk(headings=path, text=part) for part in _parts(body)]
    return found


def plain(markdown: str) -> str:
    """The words of a Markdown text as one reads them aloud: links by their words, a table's row with commas."""
    lines = []
    for line in markdown.split("\n"):
        if _RULE.match(line) or _FENCE.match(line):
            continue
        line = _HEADING.sub(r"\2", line)
        line = _LEAD.sub("", line)
        if line.lstrip().startswith("|"):
            line = ", ".join(cell.strip() for cell in line.strip().strip("|").split("|") if cell.strip())
        line = _MARKS.sub("", _LINK.sub(r"\1", line))
        lines.append(_BLANKS.sub(" ", line).strip())
    return "\n".join(line for line in lines if line)


def sentences(markdown: str) -> list[str]:
    """The sentences of a Markdown text, in order; a list item, a table's row or a heading is one."""
    found: list[str] = []
    paragraph: list[str] = []

    def flush() -> None:
        if paragraph:
            text = plain("\n".join(paragraph)).replace("\n", " ")
            found.extend(part.strip() for part in _SENTENCE.split(text) if part.strip())
            paragraph.clear()

    for line in markdown.split("\n"):
        if not line.strip():
            flush()
        elif line.lstrip().startswith("|") or _LEAD.match(line) or _HEADING.match(line):
            flush()
            paragraph.append(line)
            if not _LEAD.match(line):
                flush()
        else:
            paragraph.append(line)
    flush()
    return found


def _sections(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    path: list[tuple[int, str]] = []
    lines: list[str] = []
    fence = ""
    for line in text.split("\n"):
        marker = _FENCE.match(line)
        if marker:
            fence = "" if fence == marker[1] else (fence or marker[1])
        heading = None if fence else _HEADING.match(line)
        if heading is None:
            lines.append(line)
            continue
        if body := "\n".join(lines).strip():
            yield tuple(words for _, words in path), body
        lines = []
        level = len(heading[1])
        path = [(held, words) for held, words in path if held < level]
        if words := plain(heading[2]):
            path.append((level, words[:200]))
    if body := "\n".join(lines).strip():
        yield tuple(words for _, words in path), body


def _parts(body: str) -> Iterator[str]:
    """A section's text in parts, cut between paragraphs, then lines, then sentences."""
    held = ""
    for piece in _pieces(body):
        if held and len(held) + len(piece) > MAX_CHARS:
            yield held.strip()
            held = ""
        held += piece
    if held.strip():
        yield held.strip()


def _pieces(body: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", body):
        if len(paragraph) <= MAX_CHARS:
            yield paragraph + "\n\n"
            continue
        for line in paragraph.split("\n"):
            if len(line) <= MAX_CHARS:
                yield line + "\n"
                continue
            for sentence in _SENTENCE.split(line):
                for start in range(0, len(sentence), MAX_CHARS):
                    yield sentence[start : start + MAX_CHARS] + " "
