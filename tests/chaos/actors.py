"""The processes of a chaos run: who enqueues, who holds, who follows the events. Each writes its own ledger.

A ledger is a file of JSON lines, each on disk before its writer goes on; what it says is what that process was told,
whatever happens to it or to the store later.

    python actors.py enqueue LEDGER NAME SEED FLOW RATE URL…
    python actors.py hold    LEDGER NAME SEED FLOW LEASE_MS STORE_URL
    python actors.py follow  LEDGER FLOW STORE_URL

SIGTERM ends each in good order: the call in hand is brought to an end, nothing new is begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from switchroom.errors import NotFound, SwitchroomError, Unavailable
from switchroom.queue import EndReason, Held, LeaseLost, NewCall, Queue, Rules
from switchroom.store import Store

REPLICAS_ACK = int(os.environ.get("CHAOS_REPLICAS_ACK", "0"))


class Ledger:
    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, *lines: dict[str, Any]) -> None:
        os.write(self._file, b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        os.fdatasync(self._file)


class Stop:
    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, *_: object) -> None:
        self.asked = True


# --- who enqueues ----------------------------------------------------------------------------------------------------


def enqueue(ledger: Ledger, name: str, seed: str, flow: str, rate: float, urls: list[str]) -> None:
    """Puts calls in the queue over HTTP, each under its own idempotency key, again and again until it is told 202."""
    rng = random.Random(f"{seed}-{name}")
    stop = Stop()
    lines: dict[str, http.client.HTTPConnection] = {}
    path = f"/api/v1/openai-realtime/{flow}/queue/enqueue"
    number = 0

    def post(key: str, body: bytes) -> dict[str, Any]:
        patience = time.monotonic() + 60
        while True:
            url = rng.choice(urls)
            line = lines.get(url)
            if line is None:
                where = urlsplit(url)
                line = lines[url] = http.client.HTTPConnection(where.hostname or "", where.port, timeout=15)
            try:
                line.request("POST", path, body, {"Content-Type": "application/json", "Idempotency-Key": key})
                reply = line.getresponse()
                answer = json.loads(reply.read())
                if reply.status == 202:
                    return answer  # type: ignore[no-any-return]
                ledger.write({"what": "refused", "key": key, "status": reply.status, "code": answer.get("code")})
                if reply.status < 500 and reply.status != 429:
                    raise AssertionError(f"a right enqueue was answered {reply.status}: {answer}")
            except (OSError, http.client.HTTPException, ValueError) as error:
                ledger.write({"what": "no answer", "key": key, "error": repr(error)})
                lines.pop(url).close()
            if time.monotonic() > patience:
                raise AssertionError(f"{key} was not accepted within 60 s")
            time.sleep(0.05)

    while not stop.asked:
        number += 1
        key = f"{name}-{number}"
        body = json.dumps({"form": {"ID": key, "ticket": "T"}, "priority": rng.choice((0, 0, 0, 5))}).encode()
        accepted = post(key, body)
        ledger.write({"what": "accepted", "key": key, "task": accepted["taskId"]})
        if rng.random() < 0.05:  # a client that is not sure asks once more
            ledger.write({"what": "accepted", "key": key, "task": post(key, body)["taskId"]})
        time.sleep(rng.expovariate(rate))


# --- who holds -------------------------------------------------------------------------------------------------------


async def hold(ledger: Ledger, name: str, seed: str, flow: str, lease_ms: int, store_url: str) -> None:
    """Claims, works, heartbeats and finishes; now and then it is too slow, and must be refused."""
    rng = random.Random(f"{seed}-{name}")
    stop = Stop()
    store = Store(store_url, replicas_ack=REPLICAS_ACK)
    queue = Queue(store)
    in_hand: set[asyncio.Task[None]] = set()
    while not stop.asked or in_hand:
        room = 8 - len(in_hand)
        if room and not stop.asked:
            with contextlib.suppress(Unavailable):
                for held in await queue.wait_claim(name, flow, limit=room, lease_ms=lease_ms, timeout_s=0.2):
                    task = asyncio.create_task(_work(queue, ledger, held, rng.randrange(1 << 30), lease_ms))
                    in_hand.add(task)
        done = {task for task in in_hand if task.done()}
        for task in done:
            task.result()
        in_hand -= done
        await asyncio.sleep(0.01)
    await store.close()


async def _work(queue: Queue, ledger: Ledger, held: Held, seed: int, lease_ms: int) -> None:
    rng = random.Random(seed)
    mine = {"task": held.task_id, "owner": held.owner, "token": held.token}
    ledger.write({"what": "held", "attempt": held.attempt, **mine})
    unsure = False

    async def told(verb: Callable[[], Awaitable[Any]]) -> Any:
        """Asks until there is an answer. A lost one may have been obeyed."""
        nonlocal unsure
        while True:
            try:
                return await verb()
            except Unavailable:
                unsure = True
                await asyncio.sleep(0.05)

    try:
        await told(lambda: queue.answer(held))
        style = rng.random()
        if style < 0.12:  # a long call, kept by heartbeats
            until = time.monotonic() + rng.uniform(1.5, 2.5) * lease_ms / 1000
            while time.monotonic() < until:
                await asyncio.sleep(lease_ms / 3000)
                await told(lambda: queue.heartbeat(held))
        elif style < 0.16:  # a holder that hangs, and comes back late
            await asyncio.sleep(rng.uniform(1.5, 3.0) * lease_ms / 1000)
        else:
            await asyncio.sleep(rng.uniform(0.0, 0.08))
        if rng.random() < 0.5:
            await told(lambda: queue.hang_up(held, EndReason.COMPLETED, wrapup_ms=lease_ms))
        unsure = False
        ledger.write({"what": "finishing", **mine})
        outcome = f"{held.owner}:{held.token}"
        await told(lambda: queue.finish(held, EndReason.COMPLETED, outcome=outcome, result=mine))
        ledger.write({"what": "finished", **mine})
    except (LeaseLost, NotFound) as lost:
        ledger.write({"what": "unsure" if unsure else "lost", "said": str(lost), **mine})
    # What comes after the end, or after the loss, is refused: each of these writes would overwrite another's.
    for verb, late in (
        ("finish", lambda: queue.finish(held, EndReason.FAILED, outcome="late")),
        ("heartbeat", lambda: queue.heartbeat(held)),
        ("release", lambda: queue.release(held, "late")),
    ):
        try:
            await told(late)
        except (LeaseLost, NotFound):
            ledger.write({"what": "late refused", "verb": verb, **mine})
        else:
            ledger.write({"what": "late accepted", "verb": verb, **mine})


# --- who follows -----------------------------------------------------------------------------------------------------


async def follow(ledger: Ledger, flow: str, store_url: str) -> None:
    """Writes down every event of the flow's stream."""
    stop = Stop()
    store = Store(store_url)
    queue = Queue(store)
    after = "0-0"
    while True:
        last_round = stop.asked
        try:
            while events := await queue.events(flow, after, limit=1_000):
                ledger.write(
                    *(
                        {
                            "id": event.id,
                            "task": event.task_id,
                            "key": event.caller_id,
                            "from": event.previous,
                            "to": event.state,
                            "cause": event.cause,
                            "attempt": event.attempt,
                            "owner": event.owner,
                            "reason": event.end_reason,
                        }
                        for event in events
                    )
                )
                after = events[-1].id
        except SwitchroomError:
            last_round = False
        if last_round:
            break
        await asyncio.sleep(0.2)
    await store.close()


async def fill(flow: str, count: int, store_url: str) -> None:
    """Puts `count` calls in the queue directly."""
    store = Store(store_url)
    queue = Queue(store)
    for number in range(count):
        await queue.enqueue(flow, NewCall(form={"ID": f"fill-{number}"}), Rules(lines=count))
    await store.close()


def main() -> None:
    match sys.argv[1:]:
        case ["enqueue", path, name, seed, flow, rate, *urls]:
            enqueue(Ledger(path), name, seed, flow, float(rate), urls)
        case ["hold", path, name, seed, flow, lease_ms, store_url]:
            asyncio.run(hold(Ledger(path), name, seed, flow, int(lease_ms), store_url))
        case ["follow", path, flow, store_url]:
            asyncio.run(follow(Ledger(path), flow, store_url))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
