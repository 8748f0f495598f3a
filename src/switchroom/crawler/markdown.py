"""HTML to Markdown without judging what is worth keeping: for pages of which an article extractor leaves too much out
(lists of links, forms with text, dashboards). Navigation, header, footer and asides are left out by their tags."""

from __future__ import annotations

import re
from collections.abc import Iterator

from selectolax.lexbor import LexborHTMLParser, LexborNode

from switchroom.crawler import urls

_LEFT_OUT = [
    "script", "style", "noscript", "template", "svg", "head", "nav", "footer", "aside", "iframe", "select", "button",
]  # fmt: skip
_HEADINGS = {f"h{level}": "#" * level for level in range(1, 7)}
_BLOCKS = frozenset(
    {
        "p",
        "div",
        "section",
        "article",
        "main",
        "header",
        "form",
        "fieldset",
        "figure",
        "figcaption",
        "address",
        "dl",
        "dd",
    }
    | {"dt", "details", "summary", "body", "center", "hgroup", "search", "dialog"}
)
_SPACE = re.compile(r"\s+")
_MAX_DEPTH = 200


def plain_markdown(html: str, url: str) -> tuple[str, bool]:
    """The page's `<main>`, else its body, as Markdown blocks; and whether it has a `<main>` (then this is content)."""
    tree = LexborHTMLParser(html)
    tree.strip_tags(_LEFT_OUT)
    main = tree.css_first("main, [role='main']")
    root = main or tree.body
    if root is None:
        return "", False
    return "\n\n".join(block for block in _blocks(root, url, 0) if block.strip()), main is not None


def _blocks(node: LexborNode, url: str, depth: int) -> Iterator[str]:
    """The blocks in `node`; inline children between blocks make a paragraph together."""
    if depth > _MAX_DEPTH:
        yield _SPACE.sub(" ", node.text(separator=" ")).strip()
        return
    line = ""
    for child in node.iter(include_text=True):
        tag = child.tag or ""
        if tag in _HEADINGS or tag in _BLOCKS or tag in ("ul", "ol", "table", "pre", "blockquote", "hr"):
            if line.strip():
                yield line.strip()
            line = ""
            yield from _block(child, tag, url, depth)
        elif tag == "br":
            line += "\n"
        else:
            line += _inline(child, url, depth)
    if line.strip():
        yield line.strip()


def _block(node: LexborNode, tag: str, url: str, depth: int) -> Iterator[str]:
    if tag in _HEADINGS:
        words = _line(node, url, depth)
        if words:
            yield f"{_HEADINGS[tag]} {words}"
    elif tag in ("ul", "ol"):
        yield "\n".join(_items(node, tag, url, depth))
    elif tag == "table":
        yield _table(node, url, depth)
    elif tag == "pre":
        yield f"```\n{node.text().strip(chr(10))}\n```"
    elif tag == "blockquote":
        inner = "\n\n".join(_blocks(node, url, depth + 1))
        yield "\n".join(f"> {line}".rstrip() for line in inner.splitlines())
    elif tag != "hr":
        yield from _blocks(node, url, depth + 1)


def _items(node: LexborNode, tag: str, url: str, depth: int) -> Iterator[str]:
    for number, item in enumerate(node.iter(), start=1):
        mark = f"{number}. " if tag == "ol" else "- "
        inner = [block for block in _blocks(item, url, depth + 1) if block.strip()]
        if inner:
            text = "\n".join(inner)
            yield mark + text.replace("\n", "\n" + " " * len(mark))


def _table(node: LexborNode, url: str, depth: int) -> str:
    rows = [
        [_line(cell, url, depth).replace("|", "\\|") for cell in row.css("th, td")]
        for row in node.css("tr")
        if row.css("th, td")
    ]
    if not rows:
        return ""
    width = max(len(row) for row in rows)
    lines = ["| " + " | ".join(row + [""] * (width - len(row))) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * width)
    return "\n".join(lines)


def _line(node: LexborNode, url: str, depth: int) -> str:
    """A node's content on one line."""
    parts = "".join(_inline(child, url, depth + 1) for child in node.iter(include_text=True))
    return _SPACE.sub(" ", parts).strip()


def _inline(node: LexborNode, url: str, depth: int) -> str:
    if depth > _MAX_DEPTH:
        return node.text(separator=" ")
    tag = node.tag or ""
    if tag == "-text":
        return _SPACE.sub(" ", node.text(deep=False))
    if tag.startswith("-") or tag in ("input", "textarea", "option"):
        return ""
    if tag == "br":
        return " "
    words = "".join(_inline(child, url, depth + 1) for child in node.iter(include_text=True))
    if not words.strip():
        return words
    if tag == "a":
        target = urls.resolve(url, node.attributes.get("href") or "")
        return f"[{words.strip()}]({target})" if target else words
    if tag in ("strong", "b"):
        return f"**{words.strip()}**"
    if tag in ("em", "i"):
        return f"*{words.strip()}*"
    if tag == "code":
        return f"`{words.strip()}`"
    # A block inside a line (a div in a span, a cell in a heading): its words stay apart from their neighbours'.
    return f" {words} " if tag in _BLOCKS or tag in ("li", "td", "th", "tr") else words
