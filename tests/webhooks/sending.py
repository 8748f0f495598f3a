"""A sender in a process of its own: `sending.py STORE_URL LEASE_S TIMEOUT_S`. Says `ready`, then works until killed."""

from __future__ import annotations

import asyncio
import sys

from switchroom.net import GuardedClient
from switchroom.queue import Queue
from switchroom.store import Store
from switchroom.webhook_feed import WebhookFeed
from switchroom.webhooks import SenderSettings, Webhooks


async def main() -> None:
    url, lease_s, timeout_s = sys.argv[1:]
    store = await Store.connect(url)
    settings = SenderSettings(timeout_s=float(timeout_s), lease_s=float(lease_s), first_retries_s=(0.2,) * 5)
    webhooks = Webhooks(store, GuardedClient(("127.0.0.1",)), settings=settings)
    print("ready", flush=True)
    await WebhookFeed(store, Queue(store), webhooks).run()


asyncio.run(main())
