"""A Sentinel group of the wheel's own server: the store follows the primary."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cluster import Node, until

from switchroom.errors import Unavailable
from switchroom.store import Script, Store
from switchroom.store.address import Target


class Group:
    def __init__(self, folder: Path) -> None:
        plain = ("--save", "", "--appendonly", "yes", "--repl-diskless-sync-delay", "0")
        self.first = Node(folder / "first", *plain)
        self.second = Node(folder / "second", *plain)
        self.sentinels = [Node(folder / f"sentinel-{n}") for n in range(3)]

    async def start(self) -> None:
        await self.first.start()
        self.second.options += ("--replicaof", f"127.0.0.1 {self.first.port}")
        await self.second.start()
        await until(lambda: self._has(self.second, b"master_link_status:up"))
        for sentinel in self.sentinels:
            sentinel.folder.mkdir(parents=True)
            conf = sentinel.folder / "sentinel.conf"
            conf.write_text(
                f"sentinel monitor line 127.0.0.1 {self.first.port} 2\n"
                "sentinel down-after-milliseconds line 500\nsentinel failover-timeout line 3000\n"
            )
            sentinel.options = (str(conf), "--sentinel")
            await sentinel.start()
        for sentinel in self.sentinels:
            await until(lambda sentinel=sentinel: self._has(sentinel, b"slaves=1,sentinels=3"))

    async def stop(self) -> None:
        for node in (self.first, self.second, *self.sentinels):
            await node.stop()

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/line"

    async def _has(self, node: Node, text: bytes) -> bool:
        return text in await node.call("INFO")


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[Group]:
    group = Group(tmp_path)
    try:
        await group.start()
        yield group
    finally:
        await group.stop()


async def test_a_new_primary_is_found(group: Group) -> None:
    store = await Store.connect(group.url, replicas_ack=1)
    add = Script("return redis.call('INCR', KEYS[1])")
    for n in range(20):
        assert await store.run(add, ["n"], []) == n + 1
    waiting = asyncio.ensure_future(store.blocking("BLPOP", "list", 20, timeout_s=25))
    await asyncio.sleep(0.1)
    await group.first.kill()
    await group.sentinels[0].kill()  # the one that was asked first
    with pytest.raises(Unavailable):
        await waiting  # its connection broke: whoever waits asks again
    store._replicas = 0  # the one that is left has no replica
    for _ in range(10):
        try:
            count = await store.run(add, ["n"], [])
            break
        except Unavailable as error:
            assert error.code == "store_unavailable"
    # what a replica had acknowledged is there; a command whose connection broke was not repeated
    assert count == 21
    await group.first.start()  # comes back believing that it is the primary
    await asyncio.sleep(0.2)
    for n in range(30):
        assert await store.run(add, ["n"], []) == 22 + n
        await asyncio.sleep(0.02)
    await store.close()


async def test_a_primary_that_is_replaced_while_it_lives(group: Group) -> None:
    """The old primary takes writes for some seconds more, until the sentinels turn it; they are lost. `replicas_ack`
    does not count them, and looks for the new primary."""
    store = await Store.connect(group.url, replicas_ack=1)
    counted = 0
    await store.call("INCR", "n")
    await group.sentinels[1].call("SENTINEL", "FAILOVER", "line")
    await until(lambda: group.second.call("SET", "probe", 1))
    async with asyncio.timeout(60):
        while counted < 20:
            try:
                await store.call("INCR", "n")
                counted += 1
            except Unavailable as error:
                assert error.code in ("store_unavailable", "not_replicated")
            await asyncio.sleep(0.01)
    assert b"role:master" in await group.second.call("INFO", "replication")
    assert int(await group.second.call("GET", "n")) >= 1 + counted
    await store.close()


async def test_a_service_that_nobody_knows(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("switchroom.store.store.CONNECT_PATIENCE_S", 0.3)
    store = Store(group.url.replace("/line", "/nobody"))
    with pytest.raises(Unavailable, match="does not know the service nobody"):
        await store.call("PING")
    await store.close()


@pytest.mark.parametrize(
    ("url", "kind", "seeds", "rest"),
    [
        ("redis://:secret@box:7000/2", "server", ["box:7000"], ("", "secret", 2, False)),
        ("redis+cluster://a:1,b/", "cluster", ["a:1", "b:6379"], ("", None, 0, False)),
        ("rediss+cluster://me:p%40ss@[::1]:7,c:8", "cluster", ["::1:7", "c:8"], ("", "p@ss", 0, True)),
        ("redis+sentinel://u:p@a,b:7/line/3", "sentinel", ["a:26379", "b:7"], ("line", "p", 3, False)),
    ],
)
def test_urls(url: str, kind: str, seeds: list[str], rest: tuple[object, ...]) -> None:
    target = Target.from_url(url)
    assert target.kind == kind
    assert [str(seed) for seed in target.seeds] == seeds
    assert (target.service, target.primary.password, target.primary.database, target.primary.tls is not None) == rest
    assert all("secret" not in str(seed) for seed in target.seeds)


@pytest.mark.parametrize(
    "url",
    [
        "http://a",
        "redis+cluster://",
        "redis+cluster://a:b/",
        "redis+cluster://a/1",
        "redis+sentinel://a:1/",
        "x+cluster://a",
    ],
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Target.from_url(url)
