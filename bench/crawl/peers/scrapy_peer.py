"""Scrapy with a durable queue (JOBDIR): titles and links, items to a JSON Lines feed; `js` through scrapy-playwright.

python scrapy_peer.py URL PAGES [js]
"""

import sys
import tempfile

import scrapy
from scrapy.crawler import CrawlerProcess

URL, PAGES, JS = sys.argv[1], int(sys.argv[2]), sys.argv[3:] == ["js"]


class Site(scrapy.Spider):
    name = "site"
    read = 0

    async def start(self):
        yield scrapy.Request(URL, meta={"playwright": JS})

    def parse(self, response):
        self.read += 1
        yield {"url": response.url, "title": response.css("title::text").get()}
        for href in response.css("a::attr(href)").getall():
            yield response.follow(href, self.parse, meta={"playwright": JS})


with tempfile.TemporaryDirectory() as folder:
    settings = {
        "JOBDIR": f"{folder}/job",
        "FEEDS": {f"{folder}/items.jsonl": {"format": "jsonlines"}},
        "LOG_LEVEL": "ERROR",
        "TELNETCONSOLE_ENABLED": False,
        "CLOSESPIDER_PAGECOUNT": PAGES if PAGES < 10 else 0,
        "TWISTED_REACTOR": "twisted.internet.asyncioreactor.AsyncioSelectorReactor",
    }
    if JS:
        handler = "scrapy_playwright.handler.ScrapyPlaywrightDownloadHandler"
        settings |= {
            "DOWNLOAD_HANDLERS": {"http": handler, "https": handler},
            "PLAYWRIGHT_LAUNCH_OPTIONS": {
                "executable_path": "/usr/bin/chromium-headless-shell",
                "args": ["--no-sandbox", "--disable-gpu"],
            },
            "PLAYWRIGHT_MAX_PAGES_PER_CONTEXT": 4,
        }
    process = CrawlerProcess(settings)
    crawler = process.create_crawler(Site)
    process.crawl(crawler)
    process.start()
    print(f"done {crawler.spider.read if crawler.spider else 0}", flush=True)
