"""A site whose pages change under the test's hand: a sitemap with `lastmod`, ETags, and a count of what was asked."""

from __future__ import annotations

import hashlib
from collections import Counter

from aiohttp import web
from aiohttp.test_utils import TestServer


class ChangingSite:
    """`pages` is path -> text; `lastmod` is path -> what the sitemap says (a path without one is not listed)."""

    def __init__(self) -> None:
        self.pages: dict[str, str] = {}
        self.lastmod: dict[str, str | None] = {}
        self.links: dict[str, list[str]] = {}
        self.moved: dict[str, str] = {}
        self.asked: Counter[str] = Counter()
        self.answered: Counter[int] = Counter()
        self.etags = True
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        self.server = TestServer(app, host="127.0.0.1")

    async def __aenter__(self) -> ChangingSite:
        await self.server.start_server()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.server.close()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    def url(self, path: str) -> str:
        return f"http://{self.host}{path}"

    def put(self, path: str, text: str, lastmod: str | None = "2026-01-01T00:00:00Z", *, listed: bool = True) -> None:
        """A page; listed in the sitemap unless told otherwise."""
        self.pages[path] = text
        if listed:
            self.lastmod[path] = lastmod

    def forget_counts(self) -> None:
        self.asked.clear()
        self.answered.clear()

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked[request.path] += 1
        answer = self._page(request)
        self.answered[answer.status] += 1
        return answer

    def _page(self, request: web.Request) -> web.Response:
        path = request.path
        if path == "/robots.txt":
            return web.Response(text=f"User-agent: *\nAllow: /\nSitemap: {self.url('/sitemap.xml')}\n")
        if path == "/sitemap.xml":
            rows = "".join(
                f"<url><loc>{self.url(path)}</loc>{f'<lastmod>{at}</lastmod>' if at else ''}</url>"
                for path, at in self.lastmod.items()
            )
            return web.Response(text=f"<urlset>{rows}</urlset>", content_type="application/xml")
        if path in self.moved:
            return web.Response(status=301, headers={"Location": self.moved[path]})
        if path not in self.pages:
            return web.Response(status=404, text="<h1>Nothing here</h1>", content_type="text/html")
        text = self.pages[path]
        links = "".join(f'<a href="{link}">{link}</a> ' for link in self.links.get(path, []))
        name = path.strip("/") or "home"
        main = f"<main><h1>{name}</h1><p>{text}</p>{links}</main>"
        body = f"<html><head><title>{name}</title></head><body>{main}</body></html>"
        headers = {}
        if self.etags:
            tag = f'"{hashlib.sha1(body.encode(), usedforsecurity=False).hexdigest()}"'
            if request.headers.get("If-None-Match") == tag:
                return web.Response(status=304, headers={"ETag": tag})
            headers["ETag"] = tag
        return web.Response(text=body, content_type="text/html", headers=headers)
