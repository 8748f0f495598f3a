"""Our holder and producer, the same roles and lines as the peers' programs (`peers/jobs.py`).

The holder of `work` closes what it has and claims the next in one run of the function; two batches of 32 are under way
at once, 64 calls as with the peers. Every call is claimed, answered and finished with its history, its events and its
statistics. `hold` takes calls and works on them for ever.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "peers"))

import jobs

from switchroom.queue import EndReason, Finished, NewCall, Queue, Rules
from switchroom.store import Store

FLOW = "line"
RULES = Rules(cap=10**9, lines=100_000)
BATCH = 32
AT_ONCE = 2


def call_of(form: dict[str, Any], state: dict[str, Any], put_ns: int) -> NewCall:
    return NewCall(
        form=form, state=state | {"put": put_ns}, idempotency_key=f"ticket-{form['ID']}", payload_digest="0" * 64
    )


async def producing(url: str, count: int, gap_ms: float) -> None:
    queue = Queue(await Store.connect(url))
    await queue.configure(FLOW, RULES)
    await jobs.produce(lambda *words: queue.enqueue(FLOW, call_of(*words), RULES), count, gap_ms)


async def working(url: str, seen: Callable[[int], None]) -> None:
    queue = Queue(await Store.connect(url))
    await queue.configure(FLOW, RULES)
    print("ready", flush=True)

    async def work(owner: str) -> None:
        finished: list[Finished] = []
        while True:
            held, lost = await queue.turn_over(FLOW, owner, finished, limit=BATCH, answered=True)
            assert not lost
            if not held:
                held = await queue.wait_claim(owner, FLOW, limit=BATCH, answered=True)
            for one in held:
                seen(one.call.memory["put"])
            finished = [Finished(held=one, reason=EndReason.COMPLETED) for one in held]

    await asyncio.gather(*(work(f"bench-{number}") for number in range(AT_ONCE)))


async def holding(url: str, wanted: int) -> None:
    """Holds `wanted` calls, with heartbeats, and says so with the moment; ends only by a signal."""
    queue = Queue(await Store.connect(url))
    await queue.configure(FLOW, RULES)
    held: list[Any] = []
    print("ready", flush=True)
    while len(held) < wanted:
        held += await queue.wait_claim(
            f"holder-{time.monotonic_ns()}", FLOW, limit=wanted - len(held), answered=True, timeout_s=1.0
        )
    print(f"RESULT {time.monotonic_ns()}", flush=True)
    while True:
        await asyncio.sleep(1)
        await asyncio.gather(*(queue.heartbeat(one) for one in held))


if __name__ == "__main__":
    if sys.argv[1] == "hold":
        import uvloop

        uvloop.run(holding(f"redis://127.0.0.1:{sys.argv[2]}", int(sys.argv[3])))
    jobs.main(producing, working)
