"""Crawlee for Python: titles and links, on its durable file storage or in memory; `js` through its Playwright crawler.

python crawlee_peer.py URL PAGES file|memory|js
"""

import asyncio
import logging
import os
import sys
import tempfile

URL, PAGES, KIND = sys.argv[1], int(sys.argv[2]), sys.argv[3]
FOLDER = tempfile.mkdtemp(prefix="bench-crawlee-")
os.environ["CRAWLEE_STORAGE_DIR"] = FOLDER

from crawlee import ConcurrencySettings  # noqa: E402
from crawlee.crawlers import ParselCrawler, PlaywrightCrawler  # noqa: E402
from crawlee.storage_clients import FileSystemStorageClient, MemoryStorageClient  # noqa: E402


async def main() -> None:
    logging.disable(logging.CRITICAL)
    count = 0
    storage = FileSystemStorageClient() if KIND == "file" else MemoryStorageClient()
    common = {
        "storage_client": storage,
        "max_requests_per_crawl": PAGES if PAGES < 10 else None,
        "configure_logging": False,
        "concurrency_settings": ConcurrencySettings(min_concurrency=4, desired_concurrency=8, max_concurrency=8),
    }
    if KIND == "js":
        options = {"executable_path": "/usr/bin/chromium-headless-shell", "args": ["--no-sandbox", "--disable-gpu"]}
        crawler = PlaywrightCrawler(headless=True, browser_launch_options=options, **common)
    else:
        crawler = ParselCrawler(**common)

    @crawler.router.default_handler
    async def handle(context) -> None:
        nonlocal count
        count += 1
        title = await context.page.title() if KIND == "js" else context.selector.css("title::text").get()
        await context.push_data({"url": context.request.url, "title": title})
        await context.enqueue_links()

    await crawler.run([URL])
    print(f"done {count}", flush=True)


asyncio.run(main())
