"""Prompts as canvas editors save them (HTML with mention spans) to plain text templates, and back.

`plain` turns paragraphs into lines, lists into `- ` and `1. `, emphasis into Markdown, and a mention span into its
`{{template}}`. A text that is not rich is left alone but for the blanks inside `{{ }}`. `plain(wrap(text)) == text` for
every text that `plain` gave.
"""

from __future__ import annotations

import html
import re

__all__ = ["plain", "wrap"]

_RICH = re.compile(r"\s*<(?:p|h[1-6]|ul|ol|pre|blockquote|div|span|hr|table)\b[^>]*>", re.I)
_MENTION = re.compile(r"<span\b[^>]*\bclass=\"variable\"", re.I)
_TAG = re.compile(r"<(?:!--.*?-->|(/?)([a-zA-Z][a-zA-Z0-9]*)\b([^<>\"']*(?:(?:\"[^\"]*\"|'[^']*')[^<>\"']*)*)>)", re.S)
_HREF = re.compile(r"\bhref=(?:\"([^\"]*)\"|'([^']*)')", re.I)
_SLOT = re.compile(r"\{\{\s*(.*?)\s*\}\}", re.S)
_ESCAPED = re.compile(r"\\+_")
_BLOCK = frozenset({"p", "div", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "pre", "blockquote", "hr", "tr"})
_MARK = {"strong": "**", "b": "**", "em": "*", "i": "*", "code": "`", "s": "~~", "del": "~~"}


class _Plain:
    """Writes the plain text, tag by tag."""

    def __init__(self) -> None:
        self.out: list[str] = []
        self.lists: list[int | None] = []
        self.pre = 0
        self.href: list[str] = []
        self.fresh = True
        """At the start of a line: nothing but a list marker stands on it."""

    def _line(self) -> None:
        if not self.fresh:
            self.out.append("\n")
            self.fresh = True

    def feed(self, text: str) -> None:
        at = 0
        for found in _TAG.finditer(text):
            start = found.start()
            if start > at:
                self._data(html.unescape(text[at:start]))
            at = found.end()
            tag = found[2]
            if tag and tag != "span":  # a mention's span says nothing that its text does not
                (self._close if found[1] else self._open)(tag.lower(), found[3])
        if at < len(text):
            self._data(html.unescape(text[at:]))

    def _open(self, tag: str, attributes: str) -> None:
        if tag == "br":
            self.out.append("\n")
            self.fresh = True
            return
        if tag in _BLOCK:
            self._line()
        if tag in ("ul", "ol"):
            self.lists.append(1 if tag == "ol" else None)
        elif tag == "li":
            number = self.lists[-1] if self.lists else None
            self.out.append("  " * (len(self.lists) - 1) + ("- " if number is None else f"{number}. "))
            if number is not None:
                self.lists[-1] = number + 1
        elif tag == "pre":
            self.pre += 1
            self.out.append("```\n")
        elif tag == "blockquote":
            self.out.append("> ")
        elif len(tag) == 2 and tag[0] == "h" and tag[1].isdigit():
            self.out.append("#" * int(tag[1]) + " ")
        elif tag == "hr":
            self.out.append("---\n")
        elif tag == "a":
            href = _HREF.search(attributes)
            self.href.append(html.unescape(href[1] or href[2] or "") if href else "")
            self.out.append("[")
        elif tag in _MARK and not self.pre:
            self.out.append(_MARK[tag])

    def _close(self, tag: str, _: str) -> None:
        if tag in ("ul", "ol") and self.lists:
            self.lists.pop()
        elif tag == "pre" and self.pre:
            self.pre -= 1
            self._line()
            self.out.append("```")
            self.fresh = False
        elif tag == "a" and self.href:
            self.out.append(f"]({self.href.pop()})")
        elif tag in _MARK and not self.pre:
            self.out.append(_MARK[tag])
        if tag in _BLOCK:
            # An empty paragraph is a blank line that the author made.
            if tag == "p" and self.fresh:
                self.out.append("\n")
            self._line()

    def _data(self, data: str) -> None:
        if not self.pre:
            data = data.replace("\u00a0", " ")
        if data.strip() or not self.fresh:
            self.out.append(data)
            if data.strip():
                self.fresh = False


def _slots(text: str) -> str:
    # Editors that go by way of Markdown leave `llm\_0`.
    return _SLOT.sub(lambda found: "{{" + _ESCAPED.sub("_", found[1]) + "}}", text) if "{{" in text else text


def plain(text: str) -> str:
    """The template that a rich text stands for."""
    if "<" not in text or not (_RICH.match(text) or _MENTION.search(text)):
        return _slots(text)
    parser = _Plain()
    parser.feed(text)
    lines = (line.rstrip() for line in "".join(parser.out).split("\n"))
    return _slots("\n".join(lines).strip())


def wrap(text: str) -> str:
    """What to write into a canvas for a template: itself, or as paragraphs if it would be read as rich text."""
    if plain(text) == text:
        return text
    return "".join(f"<p>{html.escape(line, quote=False)}</p>" for line in text.split("\n"))
