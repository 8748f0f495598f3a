"""What a look for changes costs: 2,000 pages, 100 of them changed, by how much the site's sitemap tells.

    python bench/crawl/recrawl.py [--pages 2000] [--changed 100]

The site lists 95 % of its pages in a sitemap and links to the rest; 94 % of the changes are in listed pages. Each row
is a crawl of everything, the changes, and one run of Always Fresh. `requests` (robots.txt and sitemap included) and
`whole` answers (not 304) are counted by the site itself; asking for every page again would be 2,000 of both.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "sidecar"))
from changing_site import ChangingSite

from switchroom.sidecar.app import build_sidecar
from switchroom.sidecar.settings import SidecarSettings
from switchroom.store import EmbeddedServer, Store

SYLLABLES = ("lo", "rem", "ip", "sum", "do", "lor", "sit", "a", "met", "con", "sec", "te", "tur", "e", "lit")
BEFORE, AFTER = "2026-03-01T10:00:00Z", "2026-11-20T10:00:00Z"
KINDS = {
    "honest lastmod": "each change is in the sitemap",
    "no lastmod": "the sitemap lists pages without it",
    "every lastmod new": "a generated sitemap: all pages 'changed' today",
    "frozen lastmod": "changes are not in the sitemap: a sample finds it out",
    "no sitemap, no ETag": "each page is asked for, and compared",
}


def text_of(number: int, edition: int) -> str:
    chosen = random.Random(f"{number}/{edition}")
    words = ["".join(chosen.choices(SYLLABLES, k=chosen.randint(1, 4))) for _ in range(150)]
    return f"Page {number}, edition {edition}. " + " ".join(words) + "."


def fill(site: ChangingSite, pages: int, kind: str) -> None:
    listed = pages * 95 // 100
    site.pages.clear()
    site.lastmod.clear()
    site.etags = kind != "no sitemap, no ETag"
    site.put("/", text_of(0, 1), listed=False)
    site.links["/"] = [f"/page/{number}" for number in range(listed, pages)]
    for number in range(1, pages):
        in_sitemap = number < listed and kind != "no sitemap, no ETag"
        site.put(f"/page/{number}", text_of(number, 1), None if kind == "no lastmod" else BEFORE, listed=in_sitemap)
    if kind == "no sitemap, no ETag":
        site.links["/"] = [f"/page/{number}" for number in range(1, pages)]


def change(site: ChangingSite, pages: int, changed: int, kind: str, edition: int) -> None:
    listed = pages * 95 // 100
    inside = changed * 94 // 100
    numbers = [*range(1, listed, max(1, listed // inside))][:inside]
    numbers += range(listed, listed + changed - len(numbers))
    for number in numbers:
        path = f"/page/{number}"
        site.pages[path] = text_of(number, edition)
        if path in site.lastmod and kind not in ("no lastmod", "frozen lastmod"):
            site.lastmod[path] = AFTER
    if kind == "every lastmod new":
        site.lastmod = dict.fromkeys(site.lastmod, AFTER)


async def over(sidecar: TestClient[web.Request, web.Application], path: str, states: tuple[str, ...]) -> dict[str, Any]:
    while True:
        seen: dict[str, Any] = await (await sidecar.get(path)).json()
        if seen["state"] in states:
            return seen
        await asyncio.sleep(0.05)


async def fresh(sidecar: TestClient[web.Request, web.Application]) -> dict[str, Any]:
    run = await (await sidecar.post("/crawl/fresh/runs")).json()
    return await over(sidecar, f"/crawl/fresh/runs/{run['id']}", ("done",))


async def one(kind: str, pages: int, changed: int, server: EmbeddedServer, folder: Path) -> str:
    store = Store(server.url)
    await store.call("FLUSHALL")
    settings = SidecarSettings(data_dir=folder, allow_private=("127.0.0.1",), per_host=8, max_pages=10 * pages)
    client: TestClient[web.Request, web.Application] = TestClient(TestServer(build_sidecar(settings, store)))
    try:
        async with ChangingSite() as site:
            fill(site, pages, kind)
            await client.start_server()
            body = {"url": site.url("/"), "render": "never", "depth": 2, "max_pages": 10 * pages}
            job = await (await client.post("/crawl/jobs", json=body)).json()
            first = await over(client, f"/crawl/jobs/{job['id']}", ("completed", "failed"))
            kept = first["progress"]["kept"]
            change(site, pages, changed, kind, 2)
            site.forget_counts()
            begun, cpu = time.perf_counter(), time.process_time()
            run = await fresh(client)
            took, cpu = time.perf_counter() - begun, time.process_time() - cpu
            asked = sum(site.asked.values())
            whole = site.answered[200]
            return (
                f"{kind:<22} {kept:>6} {asked:>9} {whole:>7} {run['changed']:>6} of {changed:<5}"
                f"{took:>7.1f} {cpu:>7.1f}   {KINDS[kind]}"
            )
    finally:
        await client.close()
        await store.close()


async def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--pages", type=int, default=2000)
    given.add_argument("--changed", type=int, default=100)
    options = given.parse_args()
    logging.basicConfig(level=logging.ERROR)
    print(f"{'site':<22} {'pages':>6} {'requests':>9} {'whole':>7} {'found':>6}{'':<9}{'s':>7} {'CPU s':>7}")
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedServer(Path(folder) / "store", fsync="everysec")
        await server.start()
        try:
            for place, kind in enumerate(KINDS):
                print(await one(kind, options.pages, options.changed, server, Path(folder) / str(place)), flush=True)
        finally:
            await server.stop()


if __name__ == "__main__":
    asyncio.run(main())
