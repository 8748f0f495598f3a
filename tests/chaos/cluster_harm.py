"""A cluster under the product: primaries killed, slots moved."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "store"))
from cluster import Cluster, Node, until
from driver import FLOW
from running import Server

from switchroom.store import keys
from switchroom.store.nodes import slot_of

SLOT = slot_of(keys.flow(FLOW))


class ClusterHarm:
    """Three primaries with a replica each, on a loop of its own thread. `replicas_ack` as the product's setting."""

    def __init__(self, *, replicas_ack: int) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._cluster = Cluster(replicas=3)
        self._dead: Node | None = None
        self._wait(self._cluster.start())
        self.url = self._cluster.url
        self.settings = {"SWITCHROOM_STORE_URL": self.url, "SWITCHROOM_REPLICAS_ACK": str(replicas_ack)}
        self.failover_s: list[float] = []
        self.faults = {"kill -9 the flow's primary (failover)": 2, "move the flow's slot": 2}

    def do(self, kind: str, rng: random.Random, server: Server, lease_s: float) -> bool:
        if kind.startswith("kill"):
            self._wait(self._fail_over())
        else:
            self._wait(self._move(rng))
        return True

    def stop(self) -> None:
        self._wait(self._cluster.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(90)

    async def _fail_over(self) -> None:
        """Kills the primary, waits for its replica to take over, starts the dead one again as its replica."""
        first = await self._cluster.owner(SLOT)
        began = time.monotonic()
        await first.kill()
        while await self._cluster.owner(SLOT) is first:
            await asyncio.sleep(0.02)
        self.failover_s.append(time.monotonic() - began)
        await asyncio.sleep(0.5)
        await first.start()
        await until(lambda: self._follows(first), 60)

    async def _move(self, rng: random.Random) -> None:
        owner = await self._cluster.owner(SLOT)
        others = []
        for node in self._cluster.nodes:
            if node is not owner and b"role:master" in await node.call("INFO", "replication"):
                others.append(node)
        if rng.random() < 0.5:
            await self._cluster.move_atomically(SLOT, rng.choice(others))
        else:
            await self._cluster.move_by_keys(SLOT, rng.choice(others))

    async def _follows(self, node: Node) -> bool:
        return b"master_link_status:up" in await node.call("INFO", "replication")
