"""Sitemaps (sitemaps.org protocol): index, nested, gzip, plain text and feeds, within budgets."""

from __future__ import annotations

import asyncio
import logging
import re
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import UTC, datetime
from io import BytesIO

import msgspec
from lxml import etree

from switchroom.crawler import urls
from switchroom.crawler.manners import retry_after_s
from switchroom.net import CookieSource, Fetched, GuardedClient, OutboundError

log = logging.getLogger(__name__)

MAX_BYTES = 52_428_800  # the protocol's limit of one file, unpacked
MAX_FILES = 500
MAX_NESTING = 5
MAX_ENTRIES = 500_000


TRIES = 3
_PAUSE_S = 0.25
_MAX_PAUSE_S = 30.0
_INLINE_BYTES = 65_536
_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")
_BARE_AND = re.compile(rb"&(?!(?:amp|lt|gt|quot|apos|#\d+|#x[0-9a-fA-F]+);)")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_DAY_MS = 86_400_000
_WEST_MS = 12 * 3_600_000
"""A day without a zone ends so much later than in UTC at the earth's western end."""


class Entry(msgspec.Struct, frozen=True):
    """A page that a sitemap names, and when it says that the page last changed (as written there)."""

    url: str
    lastmod: str | None = None


async def read_sitemaps(
    client: GuardedClient,
    starts: list[str],
    cookies: CookieSource | None = None,
    gate: Callable[[str], AbstractAsyncContextManager[None]] = lambda _: nullcontext(),
) -> AsyncIterator[Entry]:
    """The pages of `starts` and of the sitemaps that they name, each page once. What cannot be read is logged and
    skipped. Each file is asked for inside `gate`."""
    waiting = [(address, 0) for address in starts]
    asked: set[str] = set()
    given: set[str] = set()
    while waiting and len(asked) < MAX_FILES:
        address, nesting = waiting.pop(0)
        if address in asked or nesting > MAX_NESTING:
            continue
        asked.add(address)
        try:
            got = await _fetch(client, address, cookies, gate)
            if len(got.body) <= _INLINE_BYTES:
                nested, entries = parse_sitemap(got.body, got.url)
            else:
                nested, entries = await asyncio.to_thread(parse_sitemap, got.body, got.url)
        except (OutboundError, ValueError) as error:
            log.info("sitemap skipped", extra={"url": address, "cause": str(error)})
            continue
        waiting += [(url, nesting + 1) for url in nested]
        for entry in entries:
            if entry.url not in given:
                if len(given) >= MAX_ENTRIES:
                    return
                given.add(entry.url)
                yield entry


async def _fetch(
    client: GuardedClient,
    address: str,
    cookies: CookieSource | None,
    gate: Callable[[str], AbstractAsyncContextManager[None]],
) -> Fetched:
    """A sitemap's file; a host that fails is asked again, since with the file all of its pages would be missed."""
    tries = 0
    while True:
        tries += 1
        pause = _PAUSE_S * 2**tries
        try:
            async with gate(address):
                got = await client.fetch(address, cookies=cookies, max_bytes=MAX_BYTES, timeout_s=60)
            if got.status == 200:
                return got
            if tries == TRIES or (got.status < 500 and got.status not in (408, 429)):
                raise OutboundError("status", f"status {got.status}")
            pause = retry_after_s(got.headers.get("Retry-After")) or pause
        except OutboundError as error:
            if tries == TRIES or error.cause not in ("connect", "timeout", "protocol", "decode"):
                raise
        await asyncio.sleep(min(pause, _MAX_PAUSE_S))


def end_of_day_ms(lastmod: str) -> int:
    """When the day is over everywhere that a `lastmod` names without a time, in Unix milliseconds; 0 where it names a
    time, or nothing."""
    if not _DAY.fullmatch(lastmod):
        return 0
    try:
        day = datetime.fromisoformat(lastmod).replace(tzinfo=UTC)
    except ValueError:
        return 0
    return int(day.timestamp() * 1000) + _DAY_MS + _WEST_MS


def parse_sitemap(body: bytes, url: str) -> tuple[list[str], list[Entry]]:
    """The sitemaps and the pages that a file names. Raises `ValueError` where it is none.

    Entities are not expanded and nothing is fetched by the parser.
    """
    if body[:2] == b"\x1f\x8b":
        body = _gunzip(body)
    if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        body = _DECLARATION.sub("", body.decode("utf-16", "replace"), count=1).encode()
    head = body[:200].lstrip(b"\xef\xbb\xbf \t\r\n")
    if not head.startswith(b"<"):
        lines = [line.strip() for line in body.decode("utf-8-sig", "replace").splitlines()]
        pages = [
            found for line in lines if line.startswith(("http://", "https://")) and (found := urls.canonical(line))
        ]
        if not pages:
            raise ValueError("neither XML nor a list of URLs")
        return [], [Entry(page) for page in pages]
    if b"<!DOCTYPE html" in head or head.lower().startswith((b"<!doctype html", b"<html")):
        raise ValueError("an HTML page")
    if b"&" in body and b"<![CDATA[" not in body:
        body = _BARE_AND.sub(b"&amp;", body)
    nested: list[str] = []
    entries: list[Entry] = []
    try:
        events = etree.iterparse(
            BytesIO(body.lstrip()),
            events=("end",),
            recover=True,
            resolve_entities=False,
            no_network=True,
            huge_tree=False,
        )
        for _, element in events:
            tag = etree.QName(element).localname if isinstance(element.tag, str) else ""
            if tag in ("url", "sitemap", "item", "entry"):
                loc, lastmod = _fields(element)
                found = urls.resolve(url, loc) if loc else None
                if found is not None and tag == "sitemap":
                    nested.append(found)
                elif found is not None:
                    entries.append(Entry(found, lastmod))
                element.clear()
    except etree.XMLSyntaxError as error:
        raise ValueError("not well-formed XML") from error
    if not nested and not entries and b"urlset" not in body[:2000] and b"sitemapindex" not in body[:2000]:
        raise ValueError("XML that is no sitemap")
    return nested, entries


def _fields(element: etree._Element) -> tuple[str | None, str | None]:
    loc = lastmod = None
    for child in element:
        if not isinstance(child.tag, str):
            continue
        name = etree.QName(child).localname
        if name in ("loc", "link") and loc is None:
            loc = (child.text or child.get("href") or "").strip() or None
        elif name in ("lastmod", "updated", "pubDate"):
            lastmod = (child.text or "").strip() or None
    return loc, lastmod


def _gunzip(body: bytes) -> bytes:
    unpack = zlib.decompressobj(wbits=31)
    try:
        plain = unpack.decompress(body, MAX_BYTES + 1)
    except zlib.error as error:
        raise ValueError("a damaged gzip file") from error
    if len(plain) > MAX_BYTES:
        raise ValueError("unpacks to more than the limit")
    return plain
