"""What one HTML page says to a crawler: links, canonical address, robots directives, forms, and if it is a shell.

A page is parsed once: the tree goes on to `markdown`. All facts come from one pass of one selector.
"""

from __future__ import annotations

import re

import msgspec
from selectolax.lexbor import LexborHTMLParser, LexborNode

from switchroom.crawler import urls

MAX_LINKS = 5000
_SHELL_TEXT_CHARS = 250
_SHELL_ROOTS = (
    "#root, #app, #__next, #__nuxt, #svelte, [ng-version], app-root, [data-reactroot], #q-app, #gatsby, astro-island"
)
_FACTS = (
    "a[href], area[href], iframe[src], frame[src], base[href], meta[content], link[rel][href], title, h1, h2, script, "
    "noscript, input"
)
_WAITS = re.compile(
    r"enable javascript|requires javascript|javascript is (?:disabled|required)|loading(?:\.\.\.|…)", re.IGNORECASE
)
_SHADOW = re.compile(r"<template\b[^>]*\bshadowrootmode\b[^>]*>", re.IGNORECASE)
_CHROME_CHARS = 3000
_REFRESH = re.compile(r"^\s*\d+(?:\.\d+)?\s*[;,]\s*(?:url\s*=\s*)?['\"]?([^'\"]+)", re.IGNORECASE)


class Link(msgspec.Struct, frozen=True, gc=False):
    """A link: its canonical URL and its words (of an image or icon: what it is called)."""

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


def parsed(html: str) -> LexborHTMLParser:
    """The tree of a page. What it writes out as shadow trees (`<template shadowrootmode>`) a reader sees too."""
    if "shadowrootmode" in html:
        html = _SHADOW.sub("<div>", html)
    return LexborHTMLParser(html)


def refresh_target(header: str, base: str) -> str | None:
    """Where a `Refresh` header, or `<meta http-equiv=refresh>`, sends a browser."""
    found = _REFRESH.match(header)
    return urls.resolve(base, found[1]) if found else None


def page_of(tree: LexborHTMLParser, url: str) -> Page:
    """The facts of a parsed page. Scripts, styles and the head are gone from the tree afterwards."""
    base = url
    canonical = refresh = title = None
    robots = noscript = ""
    password_form = False
    scripts = 0
    headings: list[str] = []
    anchors: list[LexborNode] = []
    for node in tree.css(_FACTS):
        tag = node.tag
        if tag == "a" or tag == "area" or tag == "iframe" or tag == "frame":
            anchors.append(node)
        elif tag == "script":
            kind = (node.attributes.get("type") or "").lower()
            scripts += kind in ("", "module") or "javascript" in kind
        elif tag == "h1" or tag == "h2":
            if len(headings) < 10:
                headings.append(_words(node))
        elif tag == "title":
            if title is None and (node.parent is None or node.parent.tag == "head"):
                title = _words(node)
        elif tag == "noscript":
            noscript += " " + _words(node)
        elif tag == "input":
            password_form = password_form or (node.attributes.get("type") or "").lower() == "password"
        elif tag == "base":
            if base == url:
                base = urls.resolve(url, node.attributes.get("href") or "") or url
        else:
            said = node.attributes
            if tag == "link":
                if canonical is None and (said.get("rel") or "").lower() == "canonical":
                    canonical = said.get("href")
            elif (said.get("name") or "").lower() in ("robots", "switchroom"):
                robots += " " + (said.get("content") or "").lower()
            elif refresh is None and (said.get("http-equiv") or "").lower() == "refresh":
                refresh = said.get("content") or ""
    links = _links(anchors, base)
    linked = bool(links) or any(not (node.attributes.get("href") or "#").startswith("#") for node in anchors)
    # css() shares its nodes with the tree: what is taken out here is gone for the text and the Markdown.
    tree.strip_tags(["script", "style", "noscript", "template", "svg", "head"])
    text = _words(tree.body) if tree.body is not None else ""
    none = "none" in robots.replace(",", " ").split()
    return Page(
        title=title or (headings[0] if headings else ""),
        text=text,
        links=links,
        canonical=urls.resolve(base, canonical) if canonical else None,
        noindex="noindex" in robots or none,
        nofollow="nofollow" in robots or none,
        password_form=password_form,
        headings=tuple(headings),
        shell=shell_reason(tree, text, scripts, noscript, linked=linked),
        refresh=refresh_target(refresh, base) if refresh else None,
    )


def shell_reason(tree: LexborHTMLParser, text: str, scripts: int, noscript: str, *, linked: bool = True) -> str | None:
    """Why the HTML is an empty shell that only JavaScript fills; None where it is a page as it stands.

    The rule, in this order; a page without scripts is never a shell:
    1. `empty_root`: an element that frameworks mount into (`#root`, `#app`, `#__next`, ...) is there, holds less than
       100 characters of text, and the whole body has less than 250; or it holds nothing at all, and what stands around
       it (a menu, a footer) has less than 3,000;
    2. `asks_for_javascript`: less than 250 characters, and body or `<noscript>` ask for JavaScript or say "loading";
    3. `no_text`: less than 60 characters of text in the body;
    4. `no_links`: the page does not link anywhere (`linked`), so that its scripts may make its menu.
    """
    if scripts == 0:
        return None
    if len(text) < _CHROME_CHARS:
        most = 100 if len(text) < _SHELL_TEXT_CHARS else 1
        if any(
            len(_words(node)) < most and (most > 1 or node.css_first("img, iframe") is None)
            for node in tree.css(_SHELL_ROOTS)
        ):
            return "empty_root"
    if len(text) >= _SHELL_TEXT_CHARS:
        return None if linked else "no_links"
    if _WAITS.search(text) or _WAITS.search(noscript):
        return "asks_for_javascript"
    if len(text) < 60:
        return "no_text"
    return None if linked else "no_links"


def _links(anchors: list[LexborNode], base: str) -> tuple[Link, ...]:
    found: dict[str, Link] = {}
    for node in anchors:
        said = node.attributes
        href = said.get("href") or said.get("src")
        if not href:
            continue
        url = urls.resolve(base, href)
        if url is None or url in found:
            continue
        if "data-method" in said and (said["data-method"] or "get").lower() != "get":
            continue
        words = _words(node)[:200] or said.get("aria-label") or said.get("title") or _picture(node)
        found[url] = Link(url, words, "nofollow" in (said.get("rel") or "").lower())
        if len(found) >= MAX_LINKS:
            break
    return tuple(found.values())


def _picture(node: LexborNode) -> str:
    picture = node.css_first("img[alt]")
    return (picture.attributes.get("alt") or "") if picture is not None else ""


def _words(node: LexborNode) -> str:
    return " ".join(node.text(separator=" ").split())
