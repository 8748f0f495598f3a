"""What any crawler of this kind must spend: aiohttp and lexbor, links followed, nothing kept and nothing durable.

python bench/crawl/floor.py URL PAGES
"""

from __future__ import annotations

import asyncio
import sys
from urllib.parse import urljoin

import aiohttp
import uvloop
from selectolax.lexbor import LexborHTMLParser


async def main(start: str, pages: int) -> None:
    seen, waiting, read = {start}, [start], 0

    async def one(session: aiohttp.ClientSession, url: str) -> None:
        nonlocal read
        async with session.get(url) as answer:
            tree = LexborHTMLParser(await answer.text())
        read += 1
        for node in tree.css("a[href]"):
            link = urljoin(url, node.attributes["href"] or "")
            if link not in seen and len(seen) < pages:
                seen.add(link)
                waiting.append(link)

    async with aiohttp.ClientSession() as session:
        while waiting:
            batch, waiting[:] = waiting[:8], waiting[8:]
            await asyncio.gather(*(one(session, url) for url in batch))
    print(f"done {read}", flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(main(sys.argv[1], int(sys.argv[2])))
