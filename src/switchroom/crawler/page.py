"""What one HTML page says to a crawler: links, canonical address, robots directives, forms, and if it is a shell."""

from __future__ import annotations

import re

import msgspec
from selectolax.lexbor import LexborHTMLParser, LexborNode

from switchroom.crawler import urls

MAX_LINKS = 5000
_SHELL_TEXT_CHARS = 250
_SHELL_ROOTS = (
    "#root",
    "#app",
    "#__next",
    "#__nuxt",
    "#svelte",
    "[ng-version]",
    "app-root",
    "[data-reactroot]",
    "#q-app",
)
_WAITS = re.compile(
    r"enable javascript|requires javascript|javascript is (?:disabled|required)|loading(?:\.\.\.|…)", re.IGNORECASE
)
_REFRESH = re.compile(r"^\s*\d+(?:\.\d+)?\s*[;,]\s*(?:url\s*=\s*)?['\"]?([^'\"]+)", re.IGNORECASE)
_SPACE = re.compile(r"\s+")


class Link(msgspec.Struct, frozen=True):
    """A link: its canonical URL and its words."""

    url: str
    words: str
    nofollow: bool = False


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of a page. `text` is what a reader sees (scripts and styles taken out), whitespace collapsed."""

    title: str
    text: str
    links: tuple[Link, ...]
    canonical: str | None
    noindex: bool
    nofollow: bool
    password_form: bool
    headings: tuple[str, ...]
    shell: str | None
    refresh: str | None


def read_page(html: str, url: str) -> Page:
    """Parse `html`, which was found at `url`."""
    tree = LexborHTMLParser(html)
    base_node = tree.css_first("base[href]")
    base = urls.resolve(url, base_node.attributes.get("href") or "") if base_node else None
    base = base or url
    robots = " ".join(
        (node.attributes.get("content") or "").lower()
        for node in tree.css("meta[name='robots' i], meta[name='switchroom' i]")
    )
    links = _links(tree, base)
    canonical_node = tree.css_first("link[rel='canonical' i][href]")
    canonical = urls.resolve(base, canonical_node.attributes.get("href") or "") if canonical_node else None
    refresh_node = tree.css_first("meta[http-equiv='refresh' i][content]")
    refresh = _REFRESH.match(refresh_node.attributes.get("content") or "") if refresh_node else None
    password_form = tree.css_first("input[type='password' i]") is not None
    title_node = tree.css_first("title")
    headings = tuple(_words(node) for node in tree.css("h1, h2")[:10])
    scripts = len(tree.css("script:not([type]), script[type*='javascript' i], script[type='module' i]"))
    noscript = " ".join(_words(node) for node in tree.css("noscript"))
    # LexborHTMLParser's css() shares its nodes with the tree: what is taken out here is gone for `text` alone.
    tree.strip_tags(["script", "style", "noscript", "template", "svg", "head"])
    text = _words(tree.body) if tree.body is not None else ""
    return Page(
        title=_words(title_node) if title_node is not None else (headings[0] if headings else ""),
        text=text,
        links=links,
        canonical=canonical,
        noindex="noindex" in robots or "none" in robots.replace(",", " ").split(),
        nofollow="nofollow" in robots or "none" in robots.replace(",", " ").split(),
        password_form=password_form,
        headings=headings,
        shell=shell_reason(tree, text, scripts, noscript),
        refresh=urls.resolve(base, refresh[1]) if refresh else None,
    )


def shell_reason(tree: LexborHTMLParser, text: str, scripts: int, noscript: str) -> str | None:
    """Why the HTML is an empty shell that only JavaScript fills; None where it is a page as it stands.

    The rule, in this order; a page without scripts is never a shell:
    1. `empty_root`: an element that frameworks mount into (`#root`, `#app`, `#__next`, ...) is there, holds less than
       100 characters of text, and the whole body has less than 250;
    2. `asks_for_javascript`: less than 250 characters, and body or `<noscript>` ask for JavaScript or say "loading";
    3. `no_text`: less than 60 characters of text in the body.
    """
    if scripts == 0 or len(text) >= _SHELL_TEXT_CHARS:
        return None
    for selector in _SHELL_ROOTS:
        node = tree.css_first(selector)
        if node is not None and len(_words(node)) < 100:
            return "empty_root"
    if _WAITS.search(text) or _WAITS.search(noscript):
        return "asks_for_javascript"
    return "no_text" if len(text) < 60 else None


def _links(tree: LexborHTMLParser, base: str) -> tuple[Link, ...]:
    found: dict[str, Link] = {}
    for node in tree.css("a[href], area[href], iframe[src], frame[src]"):
        attributes = node.attributes
        href = attributes.get("href") or attributes.get("src")
        if not href or attributes.get("data-method", "get").lower() not in ("get", ""):  # type: ignore[union-attr]
            continue
        url = urls.resolve(base, href)
        if url is None or url in found:
            continue
        nofollow = "nofollow" in (attributes.get("rel") or "").lower()
        found[url] = Link(url, _words(node)[:200] or (attributes.get("title") or ""), nofollow)
        if len(found) >= MAX_LINKS:
            break
    return tuple(found.values())


def _words(node: LexborNode) -> str:
    return _SPACE.sub(" ", node.text(separator=" ")).strip()
