"""What is known of a site, over all jobs: the newest good reading of each of its pages, and the URLs without one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from switchroom.crawler import urls
from switchroom.crawler.job import JobSpec, PageRecord
from switchroom.errors import NotFound
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


async def any_pages(store: Store, host: str, count: int) -> list[str]:
    """Some pages of `host` that were good once, at random."""
    return [url.decode() for url in await store.call("HRANDFIELD", keys.crawl_site(host), count)]


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


class Placeholder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of a URL that has no good reading of its own: when it was found, when it was asked for last (0:
    never), its sitemap's `lastmod` at that time, why it was passed over, and the URL that it led to."""

    found_ms: int
    checked_ms: int = 0
    lastmod: str = ""
    title: str = ""
    cause: str = ""
    status: int = 0
    depth: int = 0
    leads_to: str = ""


_placeholder = msgspec.json.Decoder(Placeholder)


async def remember(store: Store, host: str, spec: JobSpec) -> None:
    """Make a host a site, with the job that crawled it last: later runs read its pages in the same way."""
    starts = tuple(start for start in spec.starts if urls.bare_host(urls.host_of(start)) == host)
    own = msgspec.structs.replace(spec, starts=starts or spec.starts, hosts=(host,))
    await store.call("HSET", keys.crawl_site(host, "meta"), "spec", msgspec.json.encode(own))
    await store.call("SADD", keys.crawl_sites(), host)


async def all_sites(store: Store) -> list[str]:
    """The hosts that were ever crawled, by name."""
    return sorted(host.decode() for host in await store.call("SMEMBERS", keys.crawl_sites()))


async def spec_of(store: Store, host: str) -> JobSpec:
    """The job that crawled a site last; `NotFound` for a host that is no site."""
    raw = await store.call("HGET", keys.crawl_site(host, "meta"), "spec")
    if raw is None:
        raise NotFound(f"There is no site {host!r}; a crawl makes one.", code="site_not_found")
    return msgspec.json.decode(raw, type=JobSpec)


async def keep_placeholders(store: Store, host: str, found: Mapping[str, Placeholder]) -> None:
    """Remember URLs that gave no page."""
    fields = [part for url, one in found.items() for part in (url, msgspec.json.encode(one))]
    if fields:
        await store.call("HSET", keys.crawl_site(host, "found"), *fields)


async def placeholders(store: Store, host: str) -> dict[str, Placeholder]:
    """The URLs of a host without a good reading of their own."""
    found: dict[str, Placeholder] = {}
    cursor = b"0"
    while True:
        cursor, raw = await store.call("HSCAN", keys.crawl_site(host, "found"), cursor, "COUNT", 1000)
        for i in range(0, len(raw), 2):
            found[raw[i].decode()] = _placeholder.decode(raw[i + 1])
        if cursor == b"0":
            return found


async def forget_site(store: Store, host: str) -> None:
    """Take a whole site out."""
    await store.call("SREM", keys.crawl_sites(), host)
    await store.call("DEL", *(keys.crawl_site(host, part) for part in ("pages", "found", "marks", "meta")))


async def sizes(store: Store, host: str) -> tuple[int, int]:
    """How many good readings a site has, and how many URLs without one."""
    return int(await store.call("HLEN", keys.crawl_site(host))), int(
        await store.call("HLEN", keys.crawl_site(host, "found"))
    )


async def is_fresh(store: Store, host: str) -> bool:
    """Whether the daily run looks at a site."""
    return bool(await store.call("HGET", keys.crawl_site(host, "meta"), "fresh") != b"0")


async def set_fresh(store: Store, host: str, fresh: bool) -> None:
    """Take a site into the daily run, or leave it out."""
    await store.call("HSET", keys.crawl_site(host, "meta"), "fresh", "1" if fresh else "0")
