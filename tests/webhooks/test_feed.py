"""The feed in this process: what it cannot read holds up nobody, and a store that goes away comes back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from receiving import FLOW, MakeWebhooks, Receiver, until

from switchroom import app, webhook_feed
from switchroom.net import GuardedClient
from switchroom.queue import NewCall, Queue, Rules
from switchroom.store import EmbeddedServer, Store, keys
from switchroom.webhook_feed import WebhookFeed
from switchroom.webhooks import SenderSettings, Webhooks


@contextlib.asynccontextmanager
async def feeding(store: Store, webhooks: Webhooks) -> AsyncIterator[None]:
    task = asyncio.create_task(WebhookFeed(store, Queue(store), webhooks).run())
    try:
        yield
        assert not task.done(), "the feed goes on whatever comes"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def enqueue(queue: Queue, caller: str, url: str, flow_id: str = FLOW) -> str:
    call = NewCall(form={"ID": caller}, callback_url=url)
    return (await queue.enqueue(flow_id, call, Rules())).task_id


async def test_an_entry_that_cannot_be_read_is_dropped_and_said(
    store: Store, webhooks: Webhooks, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    queue = Queue(store)
    await store.call("XADD", keys.queue_outbox(FLOW), "0-1", "not", "an event")
    first = await enqueue(queue, "1", receiver.url)
    second = await enqueue(queue, "2", receiver.url)
    async with feeding(store, webhooks):
        await until(lambda: len(receiver.got) == 2)
        assert {got.json["data"]["taskId"] for got in receiver.got} == {first, second}
        assert await store.call("XLEN", keys.queue_outbox(FLOW)) == 0
    assert "not readable" in caplog.text


async def test_more_flows_than_connections_are_all_told(
    store: Store, make_webhooks: MakeWebhooks, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_feed, "_BLOCKING", 3)
    webhooks, queue = make_webhooks(), Queue(store)
    flows = [f"flow-{number}" for number in range(12)]
    async with feeding(store, webhooks):
        for turn in range(2):
            for flow_id in flows:
                await enqueue(queue, f"caller-{turn}", receiver.url, flow_id)
            await until(lambda wanted=12 * (turn + 1): len(receiver.got) == wanted)  # type: ignore[misc]
    assert {got.json["data"]["flowId"] for got in receiver.got} == set(flows)


async def test_a_callback_url_that_came_later_with_the_same_id_counts(
    store: Store, webhooks: Webhooks, receiver: Receiver
) -> None:
    queue = Queue(store)
    task_id = (await queue.enqueue(FLOW, NewCall(form={"ID": "1"}), Rules())).task_id
    assert await enqueue(queue, "1", receiver.url) == task_id, "joined"
    async with feeding(store, webhooks):
        await queue.cancel(FLOW, task_id)
        await until(lambda: receiver.got)
    assert [got.json["type"] for got in receiver.got] == ["call.ended"]


async def test_a_store_that_was_killed_and_started_again(data_dir: Path, receiver: Receiver) -> None:
    server = EmbeddedServer(data_dir / "store", fsync="always")
    store = await Store.connect(await server.start())
    client = GuardedClient(("127.0.0.1",))
    settings = SenderSettings(timeout_s=1.0, lease_s=2.0, first_retries_s=(0.1,) * 5)
    webhooks = Webhooks(store, client, settings=settings)
    queue = Queue(store)
    try:
        async with feeding(store, webhooks):
            await enqueue(queue, "1", receiver.url)
            await until(lambda: len(receiver.got) == 1)
            receiver.delay_s = 0.5
            told = [await enqueue(queue, f"caller-{number}", receiver.url) for number in range(30)]
            await until(lambda: receiver.under_way)
            await server.stop()
            await asyncio.sleep(0.3)
            server = EmbeddedServer(data_dir / "store", fsync="always")
            await server.start()
            receiver.delay_s = 0
            told.append(await enqueue(queue, "after", receiver.url))

            def all_told() -> bool:
                return {got.json["data"]["taskId"] for got in receiver.got} >= set(told)

            await until(all_told, 30)
        by_task: dict[str, set[str]] = {}
        for got in receiver.got:
            by_task.setdefault(got.json["data"]["taskId"], set()).add(got.id)
        assert all(len(names) == 1 for names in by_task.values()), "told again under the same ID"
    finally:
        await webhooks.close()
        await client.close()
        await store.close()
        await server.stop()


async def test_background_work_that_breaks_starts_again(
    store: Store,
    webhooks: Webhooks,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(app, "RESTART_S", 0.05)
    feed, queue, turns = WebhookFeed(store, Queue(store), webhooks), Queue(store), 0

    async def breaks_once() -> None:
        nonlocal turns
        turns += 1
        if turns == 1:
            async with asyncio.timeout(0.3):  # as if something unforeseen ended it in the middle
                await feed.run()
        await feed.run()

    kept = asyncio.create_task(app.kept_up(breaks_once))
    try:
        await enqueue(queue, "1", receiver.url)
        await until(lambda: len(receiver.got) == 1)
        await until(lambda: turns == 2)
        await enqueue(queue, "2", receiver.url)
        await until(lambda: len(receiver.got) == 2)
    finally:
        kept.cancel()
        await asyncio.gather(kept, return_exceptions=True)
    assert "background work broke" in caplog.text
