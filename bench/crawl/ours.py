"""Our crawl of a site, as the sidecar runs it: a job on the durable frontier of an embedded server (fsync always).

python bench/crawl/ours.py URL PAGES [never|auto]
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
from pathlib import Path

import uvloop
from aiohttp.test_utils import TestClient, TestServer

from switchroom.sidecar.app import build_sidecar
from switchroom.sidecar.settings import SidecarSettings
from switchroom.store import EmbeddedServer, Store


async def main(url: str, pages: int, render: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "store").mkdir()
        server = EmbeddedServer(root / "store")
        await server.start()
        store = await Store.connect(server.url)
        settings = SidecarSettings(data_dir=root / "crawl", allow_private=("127.0.0.1",), per_host=8)
        client = TestClient(TestServer(build_sidecar(settings, store), host="127.0.0.1"))
        await client.start_server()
        gc.freeze()  # as our roles do when they are ready
        body = {"url": url, "max_pages": pages, "depth": 100, "render": render}
        job = (await (await client.post("/crawl/jobs", json=body)).json())["id"]
        while True:
            seen = await (await client.get(f"/crawl/jobs/{job}")).json()
            if seen["state"] in ("completed", "failed", "waiting_login"):
                break
            await asyncio.sleep(0.5)
        files = len(list((root / "crawl").rglob("*.md")))
        print(f"done {seen['progress']['kept']} pages kept, {files} files, {seen['state']}", flush=True)
        await client.close()
        await store.close()
        await server.stop()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "never"))
