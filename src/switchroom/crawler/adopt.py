"""A folder with a `sitemap.xml`, put among the sites by somebody, becomes a site: its pages are its placeholders."""

from __future__ import annotations

import asyncio
import logging
import time

from yarl import URL

from switchroom.crawler import sites, urls
from switchroom.crawler.job import JobSpec
from switchroom.crawler.sitemap import MAX_BYTES, Entry, parse_sitemap
from switchroom.crawler.tools import Tools

log = logging.getLogger(__name__)

MAX_PAGES = 200_000


async def adopt(tools: Tools) -> list[JobSpec]:
    """Make sites of the folders that are none yet; returns a job for each that reads its pages.

    The folder's name has to be the one that the pages' host would get. A file that cannot be read is logged and left.
    """
    known = {tools.output.folder(host).name for host in await sites.all_sites(tools.store)}
    specs: list[JobSpec] = []
    for name, entries in await asyncio.to_thread(_listed, tools, known):
        by_host: dict[str, list[Entry]] = {}
        for entry in entries:
            by_host.setdefault(urls.bare_host(urls.host_of(entry.url)), []).append(entry)
        for host, own in by_host.items():
            if tools.output.folder(host).name != name:
                log.warning("pages of another host in a folder are left out", extra={"folder": name, "host": host})
                continue
            now_ms = time.time_ns() // 1_000_000
            start = str(URL(own[0].url).origin()) + "/"
            spec = JobSpec(starts=(start,), hosts=(host,), mode="root", max_pages=MAX_PAGES)
            await sites.keep_placeholders(
                tools.store, host, {entry.url: sites.Placeholder(found_ms=now_ms) for entry in own[:MAX_PAGES]}
            )
            await sites.remember(tools.store, host, spec)
            specs.append(spec)
            log.info("folder becomes a site", extra={"host": host, "pages": len(own)})
    return specs


def _listed(tools: Tools, known: set[str]) -> list[tuple[str, list[Entry]]]:
    """The folders with a sitemap that are no sites yet, and what it lists. Blocks."""
    found = []
    for path in sorted(tools.output.root.glob("*/sitemap.xml")):
        if path.parent.name in known:
            continue
        try:
            body = path.read_bytes()
            if len(body) > MAX_BYTES:
                raise ValueError("longer than a sitemap may be")
            found.append((path.parent.name, parse_sitemap(body, f"https://{path.parent.name}/")[1]))
        except (OSError, ValueError) as error:
            log.warning("folder's sitemap cannot be read", extra={"folder": path.parent.name, "cause": str(error)})
    return found
