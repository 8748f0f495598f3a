"""A parsed page as Markdown: headings, paragraphs, lists, tables, quotes, code, links, and image notes when asked.

The tree is written out by its C library (well-formed by then, whatever the page was), and one pass over those tokens
makes the Markdown: a third of what a walk over the nodes costs, and no recursion.
"""

from __future__ import annotations

import re
from html import unescape

from selectolax.lexbor import LexborHTMLParser, LexborNode

from switchroom.crawler import urls

_LEFT_OUT = [
    "script", "style", "noscript", "template", "svg", "head", "nav", "footer", "aside", "iframe", "select", "textarea",
    "object", "canvas", "audio", "video", "noembed", "noframes", "xmp", "plaintext", "datalist",
]  # fmt: skip
# A leaf (an element with nothing but text in it) is one token: most elements of a page are leaves.
_TOKEN = re.compile(
    r'<(a|t[dh]|p|li|h[1-6]|strong|b|em|i|code|span|dt|dd|figcaption)((?:\s[^>"]*(?:"[^"]*"[^>"]*)*)?)>([^<]*)</\1>'
    r'|<!--.*?-->|<(/?)([a-zA-Z][^\s/>]*)((?:[^>"]|"[^"]*")*)>|([^<]+)',
    re.DOTALL,
)
_ATTRIBUTE = re.compile(r'([a-z-]+)="([^"]*)"')
_SPACE = re.compile(r"\s+")
_BREAK = re.compile(r" *\n *")
_TARGET = re.compile(r"\]\([^)]*\)")
_HEADINGS = {f"h{level}": "#" * level + " " for level in range(1, 7)}
_BLOCKS = frozenset({
    "p", "div", "section", "article", "main", "header", "form", "fieldset", "figure", "figcaption", "address", "dl",
    "dd", "dt", "details", "summary", "body", "center", "hgroup", "search", "dialog", "legend", "caption", "colgroup",
    "thead", "tbody", "tfoot",
})  # fmt: skip
_EMPHASIS = {"strong": "**", "b": "**", "em": "*", "i": "*", "code": "`", "kbd": "`", "samp": "`"}
# What frameworks and authors call the parts around a page's content, as whole words of a class or id, and their roles.
_AROUND = re.compile(
    r'\brole="(?:navigation|contentinfo|search|dialog|alertdialog|menu|menubar|complementary)"'
    r'|\b(?:class|id)="(?:[^"]*[\s_-])?(?<!has-)(?<!with-)(?<!no-)(?:nav|navbar|navigation|topnav|menu|submenu|sidebar'
    r"|side-bar|footer|breadcrumbs?|cookies?|cookiebar|consent|gdpr|skip-link|skiplink|social|share|sharing|pagination"
    r'|pager)(?:[\s_-][^"]*)?"',
    re.IGNORECASE,
)
_MAIN_SHARE = 0.1


def to_markdown(tree: LexborHTMLParser, url: str, *, images: bool = False) -> str:
    """The content of the page at `url` as Markdown blocks; `tree` is changed.

    Content is what the page marks as such (`<main>`, its only `<article>`), else its body without what calls itself
    navigation, footer, sidebar, consent and the like. With `images` each picture leaves `![what it shows](address)`.
    """
    tree.strip_tags(_LEFT_OUT)
    body = tree.body
    if body is None:
        return ""
    marked = _marked(tree, body)
    if marked is not None:
        return _convert(marked.html or "", url, images, None)[0]
    html = body.html or ""
    inner, left_out = _convert(html, url, images, _AROUND)
    # Where most of the words went, what was left out was no frame around the content.
    return inner if letters(inner) >= left_out else _convert(html, url, images, None)[0]


def letters(markdown: str) -> int:
    """The characters of a text without the targets of its links."""
    return len(_TARGET.sub("", markdown))


def _marked(tree: LexborHTMLParser, body: LexborNode) -> LexborNode | None:
    found = tree.css("main, [role='main']") or tree.css("article")
    if len(found) != 1:
        return found[0] if found and found[0].tag != "article" else None
    # An empty mount point beside the real content is not the content.
    return found[0] if len(found[0].text()) >= _MAIN_SHARE * len(body.text()) else None


class _Frame:
    """An open container: finished blocks, the line being written, and where in it emphasis and links began."""

    __slots__ = ("blocks", "count", "href", "kind", "line", "marks", "rows")

    def __init__(self, kind: str, href: str = "") -> None:
        self.kind = kind
        self.href = href
        self.blocks: list[str] = []
        self.line: list[str] = []
        self.marks: list[tuple[str, int]] = []
        self.rows: list[list[list[str]]] = []
        self.count = 0

    def flush(self) -> None:
        """End the line; inline marks that a block cut off are given up, their words stay."""
        if self.line:
            text = _tidy("".join(self.line))
            if text:
                self.blocks.append(text)
            self.line.clear()
        self.marks.clear()

    def one_line(self) -> str:
        self.flush()
        return " ".join(" ".join(self.blocks).split())


def _convert(html: str, url: str, images: bool, around: re.Pattern[str] | None) -> tuple[str, int]:
    """The Markdown of `html`, and how many characters were left out because of `around`."""
    left_out = 0
    top = _Frame("root")
    frames = [top]
    skipping = ""  # the tag whose subtree is left out, and how deep it is nested in itself
    depth = 0
    for token in _TOKEN.finditer(html):
        leaf, named, inside, closing, tag, attributes, text = token.groups()
        frame = frames[-1]
        if leaf is not None:
            if skipping or (around is not None and named and around.search(named)):
                left_out += len(inside)
            else:
                _leaf(frame, leaf, named, _words(inside, frame), url)
            continue
        if text is not None:
            if skipping:
                left_out += len(text)
            else:
                frame.line.append(_words(text, frame))
            continue
        if tag is None:
            continue
        tag = tag.lower()
        if skipping:
            if tag == skipping:
                depth += -1 if closing else 1
                if depth == 0:
                    skipping = ""
            continue
        if not closing and (
            (tag == "button" and frame.kind != "h") or (around is not None and attributes and around.search(attributes))
        ):
            if tag not in _VOID:
                skipping, depth = tag, 1
            continue
        if tag in _EMPHASIS:
            _emphasis(frame, tag, bool(closing))
        elif tag == "br":
            frame.line.append("\n")
        elif tag == "img":
            if images:
                frame.line.append(_picture(attributes, url))
        elif tag in _BLOCKS:
            if frame.kind in ("h", "a"):
                frame.line.append(" ")
                if frame.kind == "a":
                    frame.flush()
            else:
                frame.flush()
        elif tag in _FRAMES:
            if closing:
                _close(frames, tag)
            else:
                _open(frames, tag, attributes, url)
    while len(frames) > 1:
        _close(frames, frames[-1].kind if frames[-1].kind != "h" else "h1")
    top.flush()
    return "\n\n".join(top.blocks), left_out


def _words(text: str, frame: _Frame) -> str:
    """The text of a token: entities resolved, and outside of code its white space as single spaces."""
    if "&" in text:
        text = unescape(text)
    if frame.kind != "pre" and ("\n" in text or "  " in text or "\t" in text or "\r" in text or "\xa0" in text):
        text = _SPACE.sub(" ", text)
    return text


def _leaf(frame: _Frame, tag: str, attributes: str, text: str, url: str) -> None:
    """An element that holds `text` alone; what `_open` and `_close` would make of it."""
    kind = frame.kind
    if kind == "pre" or tag == "span":
        frame.line.append(text)
        return
    words = text.strip()
    if tag == "a":
        href = _href(attributes, url) if words else ""
        before, after = " " * text[:1].isspace(), " " * text[-1:].isspace()
        frame.line.append(f"{before}[{words}]({href}){after}" if href else text)
    elif tag in _EMPHASIS:
        sign = _EMPHASIS[tag] if words else ""
        frame.line.append(f"{' ' * text[:1].isspace()}{sign}{words}{sign}{' ' * text[-1:].isspace()}")
    elif tag in ("td", "th") and kind == "table":
        if not frame.rows:
            frame.rows.append([])
        frame.rows[-1].append([words] if words else [])
    elif kind == "h":
        frame.line.append(f" {words} ")
    else:
        frame.flush()
        if not words:
            return
        if tag == "li":
            frame.count += 1
            words = f"{frame.count}. {words}" if kind == "ol" else f"- {words}"
        elif tag in _HEADINGS:
            words = _HEADINGS[tag] + words
        frame.blocks.append(words)


def _href(attributes: str, url: str) -> str:
    for name, value in _ATTRIBUTE.findall(attributes):
        if name == "href":
            return urls.resolve(url, unescape(value) if "&" in value else value) or ""
    return ""


_VOID = frozenset({
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr",
})  # fmt: skip
_FRAMES = frozenset([*_HEADINGS, "a", "ul", "ol", "menu", "li", "table", "tr", "td", "th", "pre", "blockquote"])
_KIND = {**dict.fromkeys(_HEADINGS, "h"), "ol": "ol", "menu": "ul", "th": "td"}


def _open(frames: list[_Frame], tag: str, attributes: str, url: str) -> None:
    frame = frames[-1]
    kind = _KIND.get(tag, tag)
    if kind == "tr":
        if frame.kind == "table":
            frame.rows.append([])
        return
    if kind not in ("a", "td"):
        frame.flush()
    href = tag
    if kind == "a":
        href = _href(attributes, url)
    frames.append(_Frame(kind, href))


def _close(frames: list[_Frame], tag: str) -> None:
    """Close the innermost frame that `tag` ends, with those left open in it."""
    kind = _KIND.get(tag, tag)
    at = len(frames) - 1
    while at > 0 and frames[at].kind != kind:
        at -= 1
    if at == 0:
        return
    while len(frames) > at:
        frame = frames.pop()
        _fold(frame, frames[-1])


def _fold(frame: _Frame, parent: _Frame) -> None:
    """Put what `frame` holds into its parent."""
    kind = frame.kind
    if kind == "a":
        _link(frame, parent)
        return
    if kind == "pre":
        code = "".join(frame.line).strip("\n")
        fence = "````" if "```" in code else "```"
        if code.strip():
            parent.blocks.append(f"{fence}\n{code}\n{fence}")
        return
    if kind == "h":
        if words := frame.one_line():
            parent.blocks.append(_HEADINGS[frame.href] + words)
        return
    frame.flush()
    if kind == "li":
        if frame.blocks:
            parent.count += 1
            mark = f"{parent.count}. " if parent.kind == "ol" else "- "
            item = "\n".join(frame.blocks).replace("\n", "\n" + " " * len(mark))
            parent.blocks.append(mark + item)
    elif kind in ("ul", "ol"):
        if frame.blocks:
            parent.blocks.append("\n".join(frame.blocks))
    elif kind == "td":
        if parent.kind == "table":
            if not parent.rows:
                parent.rows.append([])
            parent.rows[-1].append(frame.blocks)
        else:
            parent.blocks += frame.blocks
    elif kind == "table":
        parent.blocks += frame.blocks + _table(frame.rows)
    elif kind == "blockquote":
        quoted = "\n\n".join(frame.blocks)
        if quoted:
            parent.blocks.append("\n".join(f"> {line}".rstrip() for line in quoted.splitlines()))
    else:
        parent.blocks += frame.blocks


def _link(frame: _Frame, parent: _Frame) -> None:
    """A link in the line; a card (a link around blocks) becomes its blocks, with the link on the first."""
    if not frame.blocks:
        text = "".join(frame.line)
        words = _tidy(text)
        if not words:
            parent.line.append(text)
        elif frame.href:
            before, after = " " * text[:1].isspace(), " " * text[-1:].isspace()
            parent.line.append(f"{before}[{words}]({frame.href}){after}")
        else:
            parent.line.append(text)
        return
    frame.flush()
    if parent.kind in ("h", "a"):
        parent.line.append(" ".join(frame.blocks))
        return
    parent.flush()
    first = frame.blocks[0]
    if frame.href and "\n" not in first:
        mark = re.match(r"#{1,6} ", first)
        lead = mark[0] if mark else ""
        frame.blocks[0] = f"{lead}[{first[len(lead) :]}]({frame.href})"
    parent.blocks += frame.blocks


def _emphasis(frame: _Frame, tag: str, closing: bool) -> None:
    if frame.kind == "pre":
        return
    if not closing:
        frame.marks.append((tag, len(frame.line)))
        return
    while frame.marks:
        opened, at = frame.marks.pop()
        if opened != tag:
            continue
        text = "".join(frame.line[at:])
        words = text.strip()
        del frame.line[at:]
        sign = _EMPHASIS[tag] if words else ""
        frame.line.append(f"{' ' * text[:1].isspace()}{sign}{words}{sign}{' ' * text[-1:].isspace()}")
        return


def _picture(attributes: str, url: str) -> str:
    said = dict(_ATTRIBUTE.findall(attributes))
    source = urls.resolve(url, unescape(said.get("src", "")))
    words = " ".join(unescape(said.get("alt", "")).split())
    return f"![{words}]({source})" if source else ""


def _table(rows: list[list[list[str]]]) -> list[str]:
    """A table's rows; one that only lays a page out (cells of several blocks, no row of several cells in a line) as its
    cells one after another."""
    rows = [row for row in rows if any(row)]
    if not rows:
        return []
    if any(len(cell) > 3 or any("\n" in block for block in cell) for row in rows for cell in row):
        return [block for row in rows for cell in row for block in cell]
    width = max(len(row) for row in rows)
    lines = [
        "| " + " | ".join([" ".join(cell).replace("|", "\\|") for cell in row] + [""] * (width - len(row))) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "---|" * width)
    return ["\n".join(lines)]


def _tidy(text: str) -> str:
    """A line with single spaces; its own line breaks stay."""
    if "\n" in text:
        text = _BREAK.sub("\n", text)
    if "  " in text:
        text = re.sub(r" {2,}", " ", text)
    return text.strip()
