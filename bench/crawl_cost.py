"""What a crawl costs: CPU seconds for 1,000 pages over HTTP and rendered, and the time of 5,000 cookies.

    python bench/crawl_cost.py --pages 1000 --rendered 60

The site runs in a process of its own; the figures are of this process (and, for rendered pages, its children: the
browser and its driver). The store's CPU stands apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import resource
import tempfile
import time
from pathlib import Path

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from switchroom.sidecar.app import build_sidecar
from switchroom.sidecar.settings import SidecarSettings
from switchroom.store import EmbeddedServer, Store


def serve(port_to: multiprocessing.connection.Connection, pages: int) -> None:
    rng = random.Random(1)
    words = ("power", "heat", "water", "bill", "tariff", "meter", "outage", "member", "refund", "price", "month")
    texts = [" ".join(rng.choice(words) for _ in range(250)) for _ in range(50)]

    async def page(request: web.Request) -> web.Response:
        number = int(request.match_info["n"])
        links = "".join(f'<li><a href="/p/{(number * 7 + i) % pages}">page</a></li>' for i in range(10))
        paragraphs = "".join(f"<p>{texts[(number + i) % 50]}</p>" for i in range(4))
        text = f"<main><h1>Page {number}</h1>{paragraphs}<ul>{links}</ul></main>"
        if request.path.startswith("/js/"):
            body = f"<div id=app></div><script>document.getElementById('app').innerHTML = {json.dumps(text)}</script>"
        else:
            body = text
        return web.Response(
            text=f"<html><head><title>Page {number}</title></head><body>{body}</body></html>", content_type="text/html"
        )

    async def sitemap(request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        urls = "".join(f"<url><loc>/{kind}/{i}</loc></url>" for i in range(int(request.match_info["count"])))
        return web.Response(text=f"<urlset>{urls}</urlset>", content_type="application/xml")

    async def main() -> None:
        app = web.Application()
        app.router.add_get("/p/{n}", page)
        app.router.add_get("/js/{n}", page)
        app.router.add_get("/map/{kind}/{count}.xml", sitemap)
        server = TestServer(app, host="127.0.0.1")
        await server.start_server()
        port_to.send(server.port)
        await asyncio.Event().wait()

    asyncio.run(main())


def cpu(who: int = resource.RUSAGE_SELF) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def tree_cpu(root: int, without: set[int]) -> float:
    """CPU seconds of the living descendants of a process (Linux)."""
    ticks = os.sysconf("SC_CLK_TCK")
    parents: dict[int, int] = {}
    spent: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
            spent[int(entry.name)] = sum(int(fields[i]) for i in (11, 12, 13, 14)) / ticks
    total = 0.0
    for pid in parents:
        above = pid
        while above not in (0, root) and above not in without:
            above = parents.get(above, 0)
        if above == root and pid != root:
            total += spent[pid]
    return total


async def crawl(client: TestClient, url: str, count: int) -> tuple[dict[str, object], float, float]:
    cpu0, t0 = cpu(), time.monotonic()
    job = await (await client.post("/crawl/jobs", json={"url": url, "max_pages": count, "depth": 0})).json()
    while (seen := await (await client.get(f"/crawl/jobs/{job['id']}")).json())["state"] not in ("completed", "failed"):
        await asyncio.sleep(0.2)
    return seen, cpu() - cpu0, time.monotonic() - t0


async def main(pages: int, rendered: int) -> None:
    near, far = multiprocessing.Pipe()
    site = multiprocessing.Process(target=serve, args=(far, pages), daemon=True)
    site.start()
    base = f"http://127.0.0.1:{near.recv()}"
    with tempfile.TemporaryDirectory() as folder:
        valkey = EmbeddedServer(Path(folder) / "v")
        (Path(folder) / "v").mkdir()
        await valkey.start()
        store = await Store.connect(valkey.url)
        settings = SidecarSettings(data_dir=Path(folder) / "s", allow_private=("127.0.0.1",), per_host=16)
        client = TestClient(TestServer(build_sidecar(settings, store), host="127.0.0.1"))
        await client.start_server()
        cookies = [
            {"name": f"c{i}", "value": "v" * 60, "domain": f".h{i % 50}.example.com", "path": "/", "expires": 1.9e9}
            for i in range(5000)
        ]
        body = json.dumps(cookies)
        times = []
        for _ in range(5):
            begun = time.monotonic()
            answer = await client.post("/sitemap/web-cookies", data=body, headers={"Content-Type": "application/json"})
            assert (await answer.json())["accepted"] == 5000
            times.append(time.monotonic() - begun)
        print(f"5,000 cookies: median {sorted(times)[2] * 1000:.0f} ms")
        seen, spent, wall = await crawl(client, f"{base}/map/p/{pages}.xml", pages)
        done = seen["progress"]["kept"]  # type: ignore[index]
        print(f"HTTP: {done} pages, {spent / done * 1000:.2f} CPU s per 1,000, {done / wall:.0f} pages/s")
        others = {site.pid or 0}
        before = tree_cpu(os.getpid(), others)
        seen, spent, wall = await crawl(client, f"{base}/map/js/{rendered}.xml", rendered)
        spent += tree_cpu(os.getpid(), others) - before
        done = seen["progress"]["rendered"]  # type: ignore[index]
        print(
            f"rendered: {done} pages, {spent / done * 1000:.0f} CPU s per 1,000 with browser, {done / wall:.1f} pages/s"
        )
        await client.close()
        await store.close()
        await valkey.stop()
    site.terminate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=1000)
    parser.add_argument("--rendered", type=int, default=60)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.pages, arguments.rendered))
