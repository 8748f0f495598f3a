"""A page as a Markdown document: its title on top, its address and time in front."""

from __future__ import annotations

import hashlib
import logging
import re
from copy import deepcopy
from functools import cache
from typing import Any

from selectolax.lexbor import LexborHTMLParser

from switchroom.crawler import markdown

_ENOUGH = 0.5
_LINES = re.compile(r"\n{3,}")


def document(tree: LexborHTMLParser, url: str, title: str, *, images: bool = False) -> str:
    """The content of a parsed page under its title as first heading; `tree` is changed. About 0.3 ms of CPU a page."""
    return under_title(markdown.to_markdown(tree, url, images=images), title)


def article(html: str, tree: LexborHTMLParser, url: str, title: str, *, images: bool = False) -> str:
    """As `document`, with an article extractor (trafilatura) to judge what belongs to the text: some 6 ms of CPU a
    page. Where it leaves out more than half of the words, the page is no article and all of it is taken."""
    body = _judged(html, url, images)
    whole = markdown.to_markdown(tree, url, images=images)
    if markdown.letters(body) < _ENOUGH * markdown.letters(whole):
        body = whole
    return under_title(body, title)


def under_title(body: str, title: str) -> str:
    """`body` with `title` as its first heading, where it has none of its own."""
    body = body.strip()
    if title and not body.startswith("# "):
        body = f"# {title}\n\n{body}"
    if "\n\n\n" in body:
        body = _LINES.sub("\n\n", body)
    return body.strip() + "\n"


@cache
def _library() -> tuple[Any, Any]:
    """trafilatura and its settings: loaded when first asked for, its import alone takes half a second."""
    import trafilatura
    from trafilatura.settings import DEFAULT_CONFIG

    # It warns about every page it finds no article in; that is no event of ours.
    logging.getLogger("trafilatura").setLevel(logging.ERROR)
    # It drops structure (tables, links) from what it finds shorter than this; many real pages are short.
    config = deepcopy(DEFAULT_CONFIG)
    config["DEFAULT"]["MIN_EXTRACTED_SIZE"] = "1"
    return trafilatura, config


def _judged(html: str, url: str, images: bool) -> str:
    trafilatura, config = _library()
    return (
        trafilatura.extract(
            html,
            url=url,
            output_format="markdown",
            fast=True,
            favor_recall=True,
            include_links=True,
            include_tables=True,
            include_formatting=True,
            include_images=images,
            include_comments=False,
            config=config,
        )
        or ""
    )


def content_hash(markdown: str) -> str:
    """What two readings of a page share where nothing that matters changed (SHA-256, hex)."""
    return hashlib.sha256(markdown.encode()).hexdigest()


def front_matter(markdown: str, *, url: str, title: str, fetched_at: str, rendered: bool) -> str:
    """`markdown` with a YAML head: `url`, `title`, `fetched_at` (RFC 3339), `rendered`."""
    head = {"url": url, "title": title, "fetched_at": fetched_at}
    lines = [f"{key}: {_quoted(value)}" for key, value in head.items()]
    return "---\n" + "\n".join(lines) + f"\nrendered: {'true' if rendered else 'false'}\n---\n\n" + markdown


def _quoted(value: str) -> str:
    """A YAML double-quoted scalar."""
    clean = re.sub(r"[\x00-\x1f\x7f\u2028\u2029]+", " ", value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{clean}"'
