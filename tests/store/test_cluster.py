"""A cluster that changes under a queue in use: slots that move, a primary that dies."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator

import pytest
from cluster import Cluster

from switchroom.errors import Unavailable
from switchroom.queue import EndReason, LeaseLost, NewCall, Queue, Rules, State
from switchroom.store import Store, keys
from switchroom.store.nodes import slot_of

RULES = Rules(lines=1_000, duplicates="allow")
FLOW = "busy"
SLOT = slot_of(keys.flow(FLOW))


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    cluster = Cluster()
    try:
        yield await cluster.start()
    finally:
        await cluster.stop()


class Driver:
    """Enqueues with idempotency keys, claims and finishes at once, and writes down what it was told."""

    def __init__(self, url: str, *, replicas_ack: int = 0) -> None:
        self.store = Store(url, replicas_ack=replicas_ack)
        self.queue = Queue(self.store)
        self.accepted: dict[str, str] = {}
        self.finished: list[str] = []
        self.unsure: set[str] = set()
        """Whose finish had no answer."""
        self.taken = 0
        self.refused = 0
        self.longest_gap_s = 0.0
        self._stop = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._enqueue(n)) for n in range(4)]
        self._tasks += [asyncio.create_task(self._work(n)) for n in range(2)]

    async def stop(self) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)

    async def drain(self) -> None:
        """Until nothing waits and nothing is held."""
        async with asyncio.timeout(30):
            while True:
                status = await self.queue.status(FLOW)
                if not status.pending_count and not status.active:
                    return
                await self._once("drain")

    async def _enqueue(self, number: int) -> None:
        count = 0
        last = time.monotonic()
        while not self._stop:
            count += 1
            key = f"{number}-{count}"
            call = NewCall(form={"ID": key}, idempotency_key=key, payload_digest=key)
            while True:
                try:
                    accepted = await self.queue.enqueue(FLOW, call, RULES)
                except Unavailable:
                    self.refused += 1
                    await asyncio.sleep(0.05)
                else:
                    break
            self.accepted[key] = accepted.task_id
            self.longest_gap_s = max(self.longest_gap_s, time.monotonic() - last)
            last = time.monotonic()
            await asyncio.sleep(0.005)

    async def _work(self, number: int) -> None:
        while not self._stop:
            await self._once(f"worker-{number}")
            await asyncio.sleep(0.01)

    async def _once(self, owner: str) -> None:
        try:
            held = await self.queue.claim(FLOW, owner, limit=8, lease_ms=1_000, answered=True)
        except Unavailable:
            return
        for one in held:
            try:
                assert await self.queue.finish(one, EndReason.COMPLETED) is State.ENDED
            except Unavailable:
                self.unsure.add(one.task_id)
            except LeaseLost:  # the store was away for longer than the lease: another has it
                self.taken += 1
            else:
                self.finished.append(one.task_id)

    async def lost(self) -> list[str]:
        """Accepted calls that the store does not know any more, or not as ended."""
        missing = []
        for key, task_id in self.accepted.items():
            call = await self.queue.get(FLOW, task_id)
            if call is None or call.state is not State.ENDED or call.caller_id != key:
                missing.append(task_id)
        return missing


async def test_flows_spread_over_the_nodes_and_batch_on_each(cluster: Cluster) -> None:
    store = await Store.connect(cluster.url)
    names = [f"flow{n}" for n in range(60)]
    queue = Queue(store)
    await asyncio.gather(*(queue.enqueue(name, NewCall(form={"ID": "1"}), RULES) for name in names))
    counts = [await node.call("DBSIZE") for node in cluster.primaries]
    assert min(counts) > 30
    assert await queue.flows() == sorted(names)
    waiting = asyncio.ensure_future(store.blocking("BLPOP", "sr:{flow7}:list", 5, timeout_s=6))
    await asyncio.sleep(0.05)
    await store.call("RPUSH", "sr:{flow7}:list", "x")
    assert await waiting == [b"sr:{flow7}:list", b"x"]
    await store.close()


async def test_a_cluster_that_asks_for_a_password() -> None:
    cluster = Cluster(replicas=0, password="a-long-secret")
    try:
        await cluster.start()
        store = await Store.connect(cluster.url)
        for n in range(20):
            await store.call("RPUSH", f"sr:{{flow{n}}}:list", n)
        for n in range(20):
            name = f"sr:{{flow{n}}}:list"
            assert await store.blocking("BLPOP", name, 1, timeout_s=3) == [name.encode(), str(n).encode()]
        await store.close()
        stranger = Store(cluster.url.replace("a-long-secret", "wrong"))
        with pytest.raises(Unavailable, match=r"WRONGPASS|NOAUTH"):
            await stranger.call("PING")
        await stranger.close()
    finally:
        await cluster.stop()


async def test_one_node_of_a_cluster_as_the_store_is_told_plainly(cluster: Cluster) -> None:
    store = await Store.connect(f"redis://127.0.0.1:{cluster.primaries[0].port}")
    with pytest.raises(Unavailable, match=r"redis\+cluster://"):
        for n in range(10):
            await store.call("SET", f"key{n}", n)
    await store.close()


@pytest.mark.parametrize("how", ["atomically", "key by key"])
async def test_a_slot_moves_under_a_queue_in_use(cluster: Cluster, how: str) -> None:
    driver = Driver(cluster.url)
    driver.start()
    await asyncio.sleep(0.5)
    for number in (1, 2, 0):
        target = cluster.primaries[number]
        if await cluster.owner(SLOT) is target:
            continue
        if how == "atomically":
            await cluster.move_atomically(SLOT, target)
        else:
            await cluster.move_by_keys(SLOT, target, pause_s=0.01)
        await asyncio.sleep(0.3)
    await driver.stop()
    await driver.drain()
    print(f"{how}: accepted {len(driver.accepted)}, longest gap {driver.longest_gap_s:.2f} s, refused {driver.refused}")
    assert len(driver.accepted) > 50
    assert await driver.lost() == []
    assert sorted(driver.finished) == sorted(driver.accepted.values())
    # one sequence of arrival, never begun again on the other side
    assert int(await driver.store.call("HGET", keys.flow(FLOW) + keys.CONFIG, "seq")) == len(driver.accepted)
    await driver.store.close()


@pytest.mark.parametrize("how", ["atomically", "key by key"])
async def test_who_waits_is_woken_after_its_slot_moved(cluster: Cluster, how: str) -> None:
    store = await Store.connect(cluster.url)
    name = keys.flow(FLOW) + "list"
    waiting = asyncio.ensure_future(store.blocking("BLPOP", name, 20, timeout_s=22))
    await asyncio.sleep(0.2)
    owner = await cluster.owner(SLOT)
    target = next(node for node in cluster.primaries if node is not owner)
    await (cluster.move_atomically if how == "atomically" else cluster.move_by_keys)(SLOT, target)
    await store.call("RPUSH", name, "x")
    async with asyncio.timeout(30):
        assert await waiting == [name.encode(), b"x"]
    await store.close()


async def test_a_primary_dies_and_its_replica_takes_over(cluster: Cluster) -> None:
    """With `replicas_ack=1` nothing that was accepted is lost: the replica had it before we answered."""
    first = cluster.primaries[0]
    if await cluster.owner(SLOT) is not first:  # the replica follows the first primary
        await cluster.move_atomically(SLOT, first)
    driver = Driver(cluster.url, replicas_ack=1)
    driver.start()
    await asyncio.sleep(1.0)
    before = len(driver.accepted)
    assert before > 20
    await first.kill()
    async with asyncio.timeout(30):
        while await cluster.owner(SLOT) is first:
            await asyncio.sleep(0.05)
    driver.store._replicas = 0  # the new primary has no replica left: say that it may go on without
    async with asyncio.timeout(30):
        while len(driver.accepted) < before + 50:
            await asyncio.sleep(0.05)
    await driver.stop()
    await driver.drain()
    print(f"failover: accepted {len(driver.accepted)}, gap {driver.longest_gap_s:.2f} s, refused {driver.refused}")
    assert await driver.lost() == []
    assert set(driver.finished) <= set(driver.accepted.values())
    twice = len(driver.finished) - len(set(driver.finished))
    assert twice == 0
    assert set(driver.accepted.values()) - set(driver.finished) <= driver.unsure
    await driver.store.close()


async def test_what_replication_alone_does_not_keep(cluster: Cluster) -> None:
    """A replica that is cut off and then takes over lacks what was accepted meanwhile: so says `not_replicated`, if
    asked. Without `replicas_ack` such calls are lost."""
    first, replica = cluster.primaries[0], cluster.replicas[0]
    if await cluster.owner(SLOT) is not first:
        await cluster.move_atomically(SLOT, first)
    plain, careful = Queue(Store(cluster.url)), Queue(Store(cluster.url, replicas_ack=1))
    before = await careful.enqueue(FLOW, NewCall(form={"ID": "before"}), RULES)
    replica.send(signal.SIGSTOP)
    await first.call("CLIENT", "KILL", "TYPE", "replica")
    after = [await plain.enqueue(FLOW, NewCall(form={"ID": f"after-{n}"}), RULES) for n in range(10)]
    with pytest.raises(Unavailable) as refusal:
        await careful.enqueue(FLOW, NewCall(form={"ID": "careful"}), RULES)
    assert refusal.value.code == "not_replicated"
    await first.kill()
    replica.send(signal.SIGCONT)
    async with asyncio.timeout(30):
        while await cluster.owner(SLOT) is first:
            await asyncio.sleep(0.05)
    assert (await plain.detail(FLOW, before.task_id)).call.state is State.PENDING
    lost = [one.task_id for one in after if await plain.get(FLOW, one.task_id) is None]
    print(f"without replicas_ack: {len(lost)} of {len(after)} accepted calls lost")
    assert len(lost) == len(after)
    again = await plain.enqueue(FLOW, NewCall(form={"ID": "again"}), RULES)
    assert again.pending == 2
    for queue in (plain, careful):
        await queue._store.close()
