"""What is known of a site, over all jobs: the newest good reading of each of its pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from switchroom.crawler.job import PageRecord
from switchroom.store import Store, keys

_decoder = msgspec.json.Decoder(PageRecord)


async def site_pages(store: Store, host: str) -> list[PageRecord]:
    """The newest good reading of each page of `host`, by URL."""
    found: dict[str, PageRecord] = {}
    cursor = b"0"
    while True:
        cursor, raw = await store.call("HSCAN", keys.crawl_site(host), cursor, "COUNT", 1000)
        for i in range(0, len(raw), 2):
            found[raw[i].decode()] = _decoder.decode(raw[i + 1])
        if cursor == b"0":
            return [found[url] for url in sorted(found)]


async def site_page(store: Store, host: str, url: str) -> PageRecord | None:
    """The newest good reading of one page."""
    raw = await store.call("HGET", keys.crawl_site(host), url)
    return None if raw is None else _decoder.decode(raw)


async def some_site_pages(store: Store, host: str, wanted: Sequence[str]) -> list[PageRecord | None]:
    """The newest good readings of `wanted`, in one call."""
    found = await store.call("HMGET", keys.crawl_site(host), *wanted)
    return [None if raw is None else _decoder.decode(raw) for raw in found]


async def keep_site_pages(store: Store, host: str, records: Iterable[PageRecord]) -> None:
    """Remember good readings of pages."""
    fields = [part for record in records for part in (record.url, msgspec.json.encode(record))]
    if fields:
        await store.call("HSET", keys.crawl_site(host), *fields)


async def forget_site_pages(store: Store, host: str, gone: Iterable[str]) -> None:
    """Take pages out again, where a reading proved to be a login page."""
    names = list(gone)
    if names:
        await store.call("HDEL", keys.crawl_site(host), *names)
