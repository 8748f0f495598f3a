"""What a server of somebody's own may be set to, and what we say of it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cluster import Node

from switchroom.errors import Unavailable
from switchroom.store import Script, Store


@pytest.fixture
async def careless(tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(tmp_path / "node", "--save", "", "--appendonly", "no", "--maxmemory-policy", "allkeys-lru")
    await node.start()
    yield node
    await node.stop()


async def test_a_server_that_may_lose_calls_is_named(careless: Node, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        store = await Store.connect(f"redis://127.0.0.1:{careless.port}")
    assert any("may evict" in record.message for record in caplog.records)
    assert any("append-only" in record.message for record in caplog.records)
    await store.close()


async def test_a_careful_server_is_not(server_url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        store = await Store.connect(server_url)
    assert caplog.records == []
    await store.close()


async def test_a_full_server_is_unavailable_and_recovers(careless: Node) -> None:
    await careless.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
    store = await Store.connect(f"redis://127.0.0.1:{careless.port}")
    put = Script("return redis.call('SET', KEYS[1], ARGV[1])")
    await store.run(put, ["k"], ["v"])
    await careless.call("CONFIG", "SET", "maxmemory", "1mb")
    with pytest.raises(Unavailable, match="memory is full"):
        await store.run(put, ["k"], ["v"])
    assert await store.call("GET", "k") == b"v"
    await careless.call("CONFIG", "SET", "maxmemory", "0")
    assert await store.run(put, ["k"], ["w"]) == b"OK"
    await store.close()


async def test_a_replica_that_is_named_as_the_store_is_unavailable(
    careless: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("switchroom.store.store.CONNECT_PATIENCE_S", 0.3)
    await careless.call("REPLICAOF", "127.0.0.1", 1)
    store = Store(f"redis://127.0.0.1:{careless.port}")
    with pytest.raises(Unavailable, match=r"READONLY|MASTERDOWN"):
        await store.call("SET", "k", "v")
    await careless.call("REPLICAOF", "NO", "ONE")
    assert await store.call("SET", "k", "v") == b"OK"
    await store.close()
