"""The site that every crawler of the bench reads: N pages of about 8 KB that link to each other, static or made by
JavaScript, in a process of its own.

    python bench/crawl/site.py --pages 2000

Prints `ready PORT`. Page 0 is the start; every page is reached by links (page n links to 2n+1, 2n+2 and eight others).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from collections import Counter

import uvloop
from aiohttp import web

WORDS = ("power", "heat", "water", "bill", "tariff", "meter", "outage", "member", "refund", "price", "month", "notice")


def content(number: int, pages: int, kind: str, texts: list[str]) -> str:
    near = {2 * number + 1, 2 * number + 2, *((number * 7 + step) % pages for step in range(8))}
    links = "".join(f'<li><a href="/{kind}/{n}">Page {n} of the notices</a></li>' for n in sorted(near) if n < pages)
    rows = "".join(f"<tr><td>Month {n}</td><td>{n * 3}.40 EUR</td></tr>" for n in range(12))
    parts = "".join(f"<h2>Part {n}</h2><p>{texts[(number + n) % len(texts)]}</p>" for n in range(5))
    table = f"<table><tr><th>Month</th><th>Amount</th></tr>{rows}</table>"
    return f"<main><h1>Page {number}</h1>{parts}{table}<ul>{links}</ul></main>"


def page(number: int, pages: int, kind: str, texts: list[str]) -> str:
    menu = "".join(f'<li class="item"><a class="link" href="/{kind}/{n}">Section {n}</a></li>' for n in range(20))
    inner = content(number, pages, kind, texts)
    if kind == "js":
        inner = f"<div id=app></div><script>document.getElementById('app').innerHTML = {json.dumps(inner)}</script>"
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>Page {number}</title></head><body>"
        f"<header><nav><ul>{menu if kind == 'p' else ''}</ul></nav></header>{inner}<footer>Imprint</footer>"
        "</body></html>"
    )


async def serve(pages: int) -> None:
    rng = random.Random(1)
    texts = [" ".join(rng.choice(WORDS) for _ in range(200)) for _ in range(50)]
    made = {(kind, n): page(n, pages, kind, texts).encode() for kind in ("p", "js") for n in range(pages)}
    hits: Counter[str] = Counter()

    async def answer(request: web.Request) -> web.Response:
        body = made.get((request.match_info["kind"], int(request.match_info["n"])))
        if body is None:
            raise web.HTTPNotFound
        hits[request.path] += 1
        return web.Response(body=body, content_type="text/html", charset="utf-8")

    async def seen(_: web.Request) -> web.Response:
        found = {"pages": len(hits), "requests": sum(hits.values())}
        hits.clear()
        return web.json_response(found)

    app = web.Application()
    app.router.add_get("/{kind:p|js}/{n:\\d+}", answer)
    app.router.add_get("/_seen", seen)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    print(f"ready {site._server.sockets[0].getsockname()[1]}", flush=True)  # type: ignore[attr-defined]
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=2000)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(serve(parser.parse_args().pages))
