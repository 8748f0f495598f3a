"""A real cluster of the wheel's own server: three primaries and a replica of each of the first ones, on free ports."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from switchroom.store import Store
from switchroom.store.embedded import die_with_parent, server_binary

NODE_TIMEOUT_MS = 1_000
"""After this long a silent node is dead to the others. A cluster in which nobody dies wants a long one."""
SLOTS = 16_384


def free_port() -> int:
    """Below the kernel's ephemeral range: no outgoing connection takes it before the server binds it."""
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Node:
    """One server process. `call` talks to this very server."""

    def __init__(self, folder: Path, *options: str, password: str = "") -> None:
        self.folder = folder
        self.credentials = f":{password}@" if password else ""
        self.port = free_port()
        self.options = options
        self.process: asyncio.subprocess.Process | None = None
        self.id = ""
        self._store: Store | None = None

    async def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        binary = await asyncio.to_thread(server_binary)
        self.process = await asyncio.create_subprocess_exec(
            binary, *self.options, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder),
            "--logfile", str(self.folder / "log"), "--protected-mode", "no",
            stdout=asyncio.subprocess.DEVNULL, preexec_fn=die_with_parent(os.getpid()), start_new_session=True,
        )  # fmt: skip
        await until(lambda: self.call("PING"))

    async def call(self, *words: Any) -> Any:
        if self._store is None:
            self._store = Store(f"redis://{self.credentials}127.0.0.1:{self.port}")
        return await self._store.call(*words)

    def send(self, how: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(how)

    async def kill(self) -> None:
        assert self.process is not None
        self.send(signal.SIGKILL)
        await self.process.wait()

    async def stop(self) -> None:
        if self._store is not None:
            await self._store.close()
            self._store = None
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


class Cluster:
    def __init__(
        self, *, primaries: int = 3, replicas: int = 1, password: str = "", node_timeout_ms: int = NODE_TIMEOUT_MS
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="switchroom-cluster-"))
        options = (
            "--save", "", "--appendonly", "yes", "--appendfsync", "everysec",
            "--cluster-enabled", "yes", "--cluster-node-timeout", str(node_timeout_ms),
            "--repl-diskless-sync-delay", "0", "--cluster-allow-replica-migration", "no",
            "--cluster-replica-validity-factor", "0", "--maxmemory-policy", "noeviction",
        )  # fmt: skip
        if password:
            options += ("--requirepass", password, "--masterauth", password)
        self.nodes = [
            Node(self.folder / str(number), *options, password=password) for number in range(primaries + replicas)
        ]
        self.primaries = self.nodes[:primaries]
        self.replicas = self.nodes[primaries:]

    @property
    def url(self) -> str:
        return (
            f"redis+cluster://{self.nodes[0].credentials}"
            + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:2])
            + "/"
        )

    async def start(self) -> Cluster:
        for number, node in enumerate(self.nodes, 1):
            # the bus' port is the port + 10,000 by default, which may not exist
            node.options = (*node.options, "--cluster-port", str(free_port()))
            await node.start()
            node.id = (await node.call("CLUSTER", "MYID")).decode()
            await node.call("CLUSTER", "SET-CONFIG-EPOCH", number)
        share = -(-SLOTS // len(self.primaries))
        for number, node in enumerate(self.primaries):
            first = number * share
            await node.call("CLUSTER", "ADDSLOTSRANGE", first, min(first + share, SLOTS) - 1)
        for node in self.nodes[1:]:
            bus = self.nodes[0].options[-1]
            await node.call("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port, bus)
        for node in self.nodes:
            await until(lambda node=node: self._knows_all(node))
        for number, node in enumerate(self.replicas):
            await node.call("CLUSTER", "REPLICATE", self.primaries[number].id)
        for node in self.replicas:
            await until(lambda node=node: self._follows(node))
        for node in self.nodes:
            await until(lambda node=node: self._fine(node))
        return self

    async def stop(self) -> None:
        for node in self.nodes:
            await node.stop()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    async def clear(self) -> None:
        for node in self.primaries:
            await node.call("FLUSHALL")

    async def owner(self, slot: int) -> Node:
        """The primary that serves a slot, as a living node says."""
        for node in self.nodes:
            if node.process is None or node.process.returncode is not None:
                continue
            for first, last, primary, *_ in await node.call("CLUSTER", "SLOTS"):
                if first <= slot <= last:
                    return next(one for one in self.nodes if one.id == primary[2].decode())
        raise AssertionError(f"nobody owns slot {slot}")

    async def move_atomically(self, slot: int, target: Node) -> None:
        """Valkey 9's own move: the slot changes its owner at one moment."""
        source = await self.owner(slot)
        await source.call("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.id)
        await until(lambda: self._owns(target, slot))

    async def move_by_keys(self, slot: int, target: Node, *, pause_s: float = 0.0) -> None:
        """The move that every version knows: key by key, the slot open at both ends meanwhile."""
        source = await self.owner(slot)
        await target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        await source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        while keys := await source.call("CLUSTER", "GETKEYSINSLOT", slot, 20):
            await source.call("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            await asyncio.sleep(pause_s)
        for node in (target, source):
            await node.call("CLUSTER", "SETSLOT", slot, "NODE", target.id)

    async def _owns(self, node: Node, slot: int) -> bool:
        for each in self.nodes:
            if each.process is not None and each.process.returncode is None:
                for first, last, primary, *_ in await each.call("CLUSTER", "SLOTS"):
                    if first <= slot <= last and primary[2].decode() != node.id:
                        return False
        return True

    async def _knows_all(self, node: Node) -> bool:
        lines = (await node.call("CLUSTER", "NODES")).decode().splitlines()
        return len(lines) == len(self.nodes) and all("handshake" not in line for line in lines)

    async def _follows(self, node: Node) -> bool:
        return b"master_link_status:up" in await node.call("INFO", "replication")

    async def _fine(self, node: Node) -> bool:
        return b"cluster_state:ok" in await node.call("CLUSTER", "INFO")


async def until(probe: Callable[[], Awaitable[Any]], seconds: float = 60.0) -> None:
    """Waits until `probe` holds; what it raises on the way is no answer."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                if await probe():
                    return
            except Exception:
                pass
            await asyncio.sleep(0.05)
