"""The room of webhooks over a real store, and a real receiver."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from switchroom.net import GuardedClient
from switchroom.store import Store
from switchroom.webhooks import SenderSettings, Webhooks

sys.path.insert(0, str(Path(__file__).parent))
from receiving import MakeWebhooks, Receiver


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    await receiver.start()
    yield receiver
    await receiver.stop()


@pytest.fixture
async def make_webhooks(store: Store) -> AsyncIterator[MakeWebhooks]:
    """The room, allowed to call loopback, with retries after 0.2 s in place of seconds and minutes."""
    made: list[tuple[Webhooks, GuardedClient]] = []

    def make(*, allow: tuple[str, ...] = ("127.0.0.1",), secrets_key: str | None = None, **settings: Any) -> Webhooks:
        given: dict[str, Any] = {"timeout_s": 2.0, "lease_s": 4.0, "first_retries_s": (0.2,) * 4, **settings}
        client = GuardedClient(allow)
        webhooks = Webhooks(store, client, secrets_key=secrets_key, settings=SenderSettings(**given))
        made.append((webhooks, client))
        return webhooks

    yield make
    for webhooks, client in made:
        await webhooks.close()
        await client.close()


@pytest.fixture
def webhooks(make_webhooks: MakeWebhooks) -> Webhooks:
    return make_webhooks()
