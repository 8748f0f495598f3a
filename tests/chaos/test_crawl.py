"""A crawl job through the deaths of its process, its browser, its store and its site, under a storm of cookie POSTs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import unused_port

from switchroom.store import EmbeddedServer

PAGES = 110
RENDERED = 4
APP = "<title>{0}</title><div id=app></div><script>document.getElementById('app').innerText = 'Words of {0}.'</script>"
HELD = 3 * 8  # what a process has taken ahead and under way


class Site:
    """Pages that link to each other, for the signed in only; some are made by JavaScript. It can die and come back."""

    def __init__(self) -> None:
        self.hits: Counter[str] = Counter()
        self.port = unused_port()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def die(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        path = request.path
        if path in ("/robots.txt", "/sitemap.xml", "/sitemap_index.xml"):
            raise web.HTTPNotFound
        if request.cookies.get("session") != "good":
            raise web.HTTPFound("/login")
        self.hits[path] += 1
        await asyncio.sleep(0.02)
        if path.startswith("/js"):
            return web.Response(text=APP.format(path), content_type="text/html")
        links = "".join(f'<a href="/p{number}">{number}</a> ' for number in range(PAGES))
        links += "".join(f'<a href="/js{number}">{number}</a> ' for number in range(RENDERED))
        return web.Response(text=f"<title>{path}</title><p>Words of {path}.</p>{links}", content_type="text/html")


class Host:
    """One crawl host."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


@contextlib.asynccontextmanager
async def crawl_host(data: Path, store_url: str) -> AsyncIterator[Host]:
    script = Path(__file__).parent / "crawl_host.py"
    with (data / "host.log").open("a") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(script), str(data), store_url, stdout=asyncio.subprocess.PIPE, stderr=log
        )
    assert process.stdout is not None
    line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
    try:
        yield Host(process, line.split()[1])
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.wait(), 20)


def descendants(root: int, program: str) -> list[int]:
    above, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                text = (entry / "stat").read_text()
                above[int(entry.name)] = int(text.rpartition(")")[2].split()[1])
                names[int(entry.name)] = text[text.index("(") + 1 : text.rindex(")")]
    family = [root]
    for pid in family:
        family += [child for child, parent in above.items() if parent == pid]
    return [pid for pid in family if names.get(pid, "").startswith(program)]


async def test_a_job_survives_the_deaths_of_all_its_parts(tmp_path: Path) -> None:
    site = Site()
    await site.start()
    (tmp_path / "store").mkdir()
    data = tmp_path / "crawl"
    data.mkdir()
    store = EmbeddedServer(tmp_path / "store")
    await store.start()
    deaths: list[str] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as client, contextlib.AsyncExitStack() as hosts:
        first = await hosts.enter_async_context(crawl_host(data, store.url))
        second = await hosts.enter_async_context(crawl_host(data, store.url))
        cookie = [{"name": "session", "value": "good", "domain": "127.0.0.1"}]

        async def job_of(host: Host, **body: Any) -> dict[str, Any]:
            async with client.post(f"{host.url}/crawl/jobs", json=body) as reply:
                assert reply.status == 202, await reply.text()
                return dict(await reply.json())

        async def post_cookies() -> None:
            async with client.post(f"{second.url}/sitemap/web-cookies", json=cookie) as reply:
                assert reply.status == 200

        async def storm() -> None:
            while True:
                with contextlib.suppress(aiohttp.ClientError, AssertionError, TimeoutError):
                    await post_cookies()
                await asyncio.sleep(0.1)

        await post_cookies()
        job = await job_of(first, url=f"http://127.0.0.1:{site.port}/", max_pages=1000, depth=1)
        stormy = asyncio.create_task(storm())

        async def seen() -> dict[str, Any]:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with client.get(f"{second.url}/crawl/jobs/{job['id']}") as reply:
                    if reply.status == 200:
                        return dict(await reply.json())
            return {"state": "unknown", "progress": {"done": 0, "rendered": 0}}

        async def until_done(pages: int) -> None:
            async with asyncio.timeout(90):
                while (await seen())["progress"]["done"] < pages:
                    await asyncio.sleep(0.02)

        try:
            await until_done(20)
            await first.kill()
            deaths.append("process")
            await until_done(40)
            await site.die()
            await asyncio.sleep(1.0)
            await site.start()
            deaths.append("site")
            await until_done(60)
            assert store.pid is not None  # this test's own: the test process has another one
            os.kill(store.pid, signal.SIGKILL)
            await store.stop()
            await asyncio.sleep(0.5)
            store = EmbeddedServer(tmp_path / "store")
            await store.start()
            deaths.append("store")
            async with asyncio.timeout(120):
                while (now := await seen())["state"] != "completed":
                    browsers = descendants(second.process.pid, "chromium")
                    if browsers and "browser" not in deaths:
                        deaths.append("browser")
                        os.kill(browsers[0], signal.SIGKILL)
                    assert now["state"] in ("running", "unknown"), now
                    await asyncio.sleep(0.02)
        finally:
            stormy.cancel()
        assert deaths == ["process", "site", "store", "browser"]

        progress = now["progress"]
        assert progress["failed"] == {}
        assert progress["kept"] + progress["unchanged"] == 1 + PAGES + RENDERED
        assert progress["rendered"] == RENDERED
    await store.stop()
    await site.die()
    wanted = {"/", *(f"/p{number}" for number in range(PAGES)), *(f"/js{number}" for number in range(RENDERED))}
    assert set(site.hits) == wanted
    pages = list((data / "sites").rglob("pages/*.md"))
    assert len(pages) == len(wanted)
    assert all("Words of /" in page.read_text() for page in pages)
    # Asked for twice is only what a death took out of somebody's hands.
    again = {path: n - 1 for path, n in site.hits.items() if n > 1 and not path.startswith("/js")}
    assert sum(again.values()) <= len(deaths) * HELD, again
