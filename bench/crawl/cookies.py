"""How long the sidecar takes for a POST of 5,000 cookies: checked, normalised, written and synced.

python bench/crawl/cookies.py
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

import uvloop
from aiohttp.test_utils import TestClient, TestServer

from switchroom.sidecar.app import build_sidecar
from switchroom.sidecar.settings import SidecarSettings
from switchroom.store import EmbeddedServer, Store


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "store").mkdir()
        server = EmbeddedServer(root / "store")
        await server.start()
        store = await Store.connect(server.url)
        client = TestClient(
            TestServer(build_sidecar(SidecarSettings(data_dir=root / "crawl"), store), host="127.0.0.1")
        )
        await client.start_server()
        cookies = [
            {"name": f"c{i}", "value": "v" * 60, "domain": f".h{i % 50}.example.com", "path": "/", "expires": 1.9e9}
            for i in range(5000)
        ]
        body = json.dumps(cookies)
        times = []
        for _ in range(9):
            begun = time.monotonic()
            answer = await client.post("/sitemap/web-cookies", data=body, headers={"Content-Type": "application/json"})
            assert (await answer.json())["accepted"] == 5000
            times.append((time.monotonic() - begun) * 1000)
        print(f"5,000 cookies: median {statistics.median(times):.0f} ms, most {max(times):.0f} ms")
        await client.close()
        await store.close()
        await server.stop()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(main())
