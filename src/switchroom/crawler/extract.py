"""A page as readable Markdown: title, headings, tables, links; with the page's address and time in front."""

from __future__ import annotations

import hashlib
import logging
import re
from copy import deepcopy

import trafilatura
from trafilatura.settings import DEFAULT_CONFIG

from switchroom.crawler.markdown import plain_markdown

# It warns about every page it finds no article in; that is no event of ours.
logging.getLogger("trafilatura").setLevel(logging.ERROR)

# The library drops structure (tables, links) from what it finds shorter than this; many real pages are short.
_CONFIG = deepcopy(DEFAULT_CONFIG)
_CONFIG["DEFAULT"]["MIN_EXTRACTED_SIZE"] = "1"
_ENOUGH = 0.5
_ENOUGH_OF_MAIN = 0.85
_MARKS = re.compile(r"\]\([^)]*\)|[\s#*|`>\[-]+")

_LINES = re.compile(r"\n{3,}")


def to_markdown(html: str, url: str, title: str) -> str:
    """The page's content as Markdown, with its `title` as the first heading; costs 2–5 ms of CPU a page.

    An extractor picks the article. Where that leaves out too much of what the page itself marks as its main content,
    or more than half of the words outside navigation, footer and asides, the page is no article and all of it is taken.
    """
    body = _extract(html, url)
    whole, marked = plain_markdown(html, url)
    if _words(body) < (_ENOUGH_OF_MAIN if marked else _ENOUGH) * _words(whole):
        body = whole
    body = body.strip()
    if title and not body.startswith("# "):
        body = f"# {title}\n\n{body}"
    return _LINES.sub("\n\n", body).strip() + "\n"


def _words(markdown: str) -> int:
    """The letters of a text, without what Markdown and links add."""
    return len(_MARKS.sub("", markdown))


def _extract(html: str, url: str) -> str:
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
            include_comments=False,
            config=_CONFIG,
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
