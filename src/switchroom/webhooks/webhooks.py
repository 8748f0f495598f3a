"""The room as a whole: what the composition builds and the gateway works with."""

from __future__ import annotations

from switchroom.net import GuardedClient
from switchroom.store import Store
from switchroom.webhooks.deliveries import Deliveries
from switchroom.webhooks.endpoints import Endpoints
from switchroom.webhooks.sender import Sender, SenderSettings


class Webhooks:
    """Endpoints, deliveries and the sender of this process over one store. `client` stays the caller's."""

    def __init__(
        self,
        store: Store,
        client: GuardedClient,
        *,
        secrets_key: str | None = None,
        settings: SenderSettings | None = None,
    ) -> None:
        self.endpoints = Endpoints(store, secrets_key)
        self.deliveries = Deliveries(store)
        self.sender = Sender(self.endpoints, self.deliveries, client, settings)

    async def close(self) -> None:
        """Lets requests under way end."""
        await self.sender.close()
