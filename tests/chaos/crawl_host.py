"""A crawl host as a process of its own: `python crawl_host.py DATA STORE_URL` prints `ready URL`."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import uvloop
from aiohttp import web

from switchroom.sidecar.app import build_sidecar
from switchroom.sidecar.settings import SidecarSettings
from switchroom.store import Store


async def main(data: str, store_url: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    store = await Store.connect(store_url)
    settings = SidecarSettings(data_dir=Path(data), allow_private=("127.0.0.1",))
    runner = web.AppRunner(build_sidecar(settings, store), access_log=None, shutdown_timeout=2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    print(f"ready http://{host}:{port}", flush=True)
    await stop.wait()
    await runner.cleanup()
    await store.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(main(sys.argv[1], sys.argv[2]))
