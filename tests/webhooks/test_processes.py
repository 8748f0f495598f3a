"""Senders as processes: they share the work, and one that is killed loses and doubles nothing."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from receiving import FLOW, Receiver, until
from standardwebhooks.webhooks import Webhook

from switchroom.queue import EndReason, NewCall, Queue, Rules
from switchroom.store import Store, keys
from switchroom.webhooks import CALLBACK, Outcome, Webhooks

Start = Callable[[], Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def start(server_url: str) -> AsyncIterator[Start]:
    """Starts a sender process with a short lease."""
    running: list[asyncio.subprocess.Process] = []

    async def start() -> asyncio.subprocess.Process:
        program = Path(__file__).parent / "sending.py"
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(program), server_url, "1.5", "1.0", stdout=asyncio.subprocess.PIPE
        )
        running.append(process)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        return process

    yield start
    for process in running:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def whole_call(queue: Queue, number: int, url: str | None) -> str:
    """Enqueue, claim, answer, finish: five changes."""
    accepted = await queue.enqueue(FLOW, NewCall(form={"ID": f"caller-{number}"}, callback_url=url), Rules(lines=1_000))
    (held,) = await queue.claim(FLOW, "holder", answered=True)
    await queue.hang_up(held, EndReason.COMPLETED)
    await queue.finish(held, EndReason.COMPLETED)
    return accepted.task_id


KINDS = ["call.pending", "call.offered", "call.live", "call.wrapup", "call.ended"]


async def test_a_call_is_told_from_pending_to_ended(
    store: Store, webhooks: Webhooks, receiver: Receiver, start: Start
) -> None:
    _, secret = await webhooks.endpoints.rotate(FLOW, CALLBACK)
    queue = Queue(store)
    await start()
    task_id = await whole_call(queue, 1, receiver.url)
    await until(lambda: len(receiver.got) == 5)
    assert [got.json["type"] for got in receiver.got] == KINDS
    for got in receiver.got:
        told = Webhook(secret).verify(got.body, got.headers)["data"]
        assert (told["taskId"], told["flowId"], told["ID"]) == (task_id, FLOW, "caller-1")
        assert told["state"] == got.json["type"].removeprefix("call.")
    last = receiver.got[-1].json["data"]
    assert (last["status"], last["endReason"], last["attempt"]) == ("completed", "completed", 1)
    assert await store.call("XLEN", keys.queue_outbox(FLOW)) == 0


async def test_two_processes_share_the_work(store: Store, webhooks: Webhooks, receiver: Receiver, start: Start) -> None:
    receiver.delay_s = 0.02
    queue = Queue(store)
    await asyncio.gather(start(), start())
    for number in range(40):
        await whole_call(queue, number, receiver.url)
    await until(lambda: len(receiver.got) >= 200, 30)
    await asyncio.sleep(0.5)
    assert max(Counter(got.id for got in receiver.got).values()) == 1, "none was sent twice"
    assert len(receiver.got) == 200
    per_call: dict[str, list[str]] = {}
    for got in receiver.got:
        per_call.setdefault(got.json["data"]["taskId"], []).append(got.json["type"])
    assert all(kinds == KINDS for kinds in per_call.values()), "in order, whoever sends"


async def test_kill_9_of_senders_loses_nothing(
    store: Store, webhooks: Webhooks, receiver: Receiver, start: Start
) -> None:
    """Senders are killed again and again while calls run; every change arrives, each under one ID."""
    receiver.delay_s = 0.03
    await webhooks.endpoints.create(FLOW, receiver.url + "/endpoint", types=["call.ended"])
    queue = Queue(store)
    await queue.hooked(FLOW)
    dice = random.Random(7)
    tasks: list[str] = []

    async def calls() -> None:
        for number in range(60):
            tasks.append(await whole_call(queue, number, receiver.url))
            await asyncio.sleep(0.03)

    working = asyncio.create_task(calls())
    killed = 0
    process = await start()
    while not working.done() or killed < 5:
        await asyncio.sleep(dice.uniform(0.2, 0.5))
        process.kill()
        await process.wait()
        killed += 1
        process = await start()
    await working

    wanted = {(task_id, kind, "/hook") for task_id in tasks for kind in KINDS}
    wanted |= {(task_id, "call.ended", "/hook/endpoint") for task_id in tasks}

    def arrived() -> bool:
        return {(got.json["data"]["taskId"], got.json["type"], got.path) for got in receiver.got} >= wanted

    await until(arrived, 40)
    ids: dict[tuple[str, str, str, str], set[str]] = {}
    for got in receiver.got:
        data = got.json["data"]
        ids.setdefault((data["taskId"], got.json["type"], data["eventId"], got.path), set()).add(got.id)
    assert len(ids) == len(wanted), "a repeat is the same change again, never a second one"
    assert all(len(names) == 1 for names in ids.values()), "the ID stays the same over senders"
    assert len({name for names in ids.values() for name in names}) == len(wanted)

    async def settled() -> bool:
        found = await webhooks.deliveries.newest(FLOW, CALLBACK, limit=500)
        return len(found) == 300 and all(one.outcome is Outcome.DELIVERED for one in found)

    await until(settled, 20)
    found = await webhooks.deliveries.newest(FLOW, CALLBACK, limit=500)
    lost = sum(attempt.error == "sender_lost" for one in found for attempt in one.attempts)
    print(f"{killed} kills, {len(receiver.got)} requests for {len(wanted)} messages, {lost} taken over")
    assert lost > 0, "the test must have killed a sender in the middle of a request"
