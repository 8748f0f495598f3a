"""What every Python peer's program shares: the payload, the clock, and the one line of result.

    python NAME.py produce PORT COUNT GAP_MS    puts COUNT jobs in; with a gap one by one, without by 64 at once
    python NAME.py work PORT COUNT              works until COUNT jobs were started, then prints `RESULT …`
    python NAME.py hold PORT COUNT              starts jobs that never end; at the COUNTth prints `RESULT` and when

CLOCK_MONOTONIC is the machine's, so that a job can carry the moment at which it was put in.
"""

import asyncio
import gc
import os
import sys
import time

NOTE = "a line of what the CRM knows of this caller; " * 7
CONCURRENCY = 64


def payload(number):
    form = {"ID": f"+3864{number:09d}", "question": "Hey, how are you?", "note": NOTE}
    return form, {"crm": {"tier": "gold", "id": number}}


class Seen:
    """Counts the starts of jobs and says the result after the last one."""

    def __init__(self, count):
        self.count = count
        self.waits = []

    def __call__(self, put_ns):
        now = time.monotonic_ns()
        if not self.waits:
            self.first, self.cpu = now, time.process_time()
        self.waits.append(now - put_ns)
        if len(self.waits) == self.count:
            waits = sorted(self.waits[self.count // 10 :])
            p50, p99 = waits[len(waits) // 2] / 1e6, waits[int(len(waits) * 0.99)] / 1e6
            cpu = time.process_time() - self.cpu
            print(f"RESULT {self.count} {(now - self.first) / 1e9} {cpu} {p50} {p99}", flush=True)
            os._exit(0)


class Held:
    """What jobs wait on that never end; says when so many different ones have begun."""

    def __init__(self, count):
        self.count = count
        self.begun = set()

    def __call__(self, put_ns):
        self.begun.add(put_ns)
        if len(self.begun) == self.count:
            print(f"RESULT {time.monotonic_ns()}", flush=True)
            self.count = 0
        return asyncio.Event().wait()


async def produce(put, count, gap_ms):
    """`put(form, state, put_ns)` puts one job in."""
    if gap_ms:
        for number in range(count):
            await put(*payload(number), time.monotonic_ns())
            await asyncio.sleep(gap_ms / 1000)
        return
    numbers = iter(range(count))

    async def some():
        for number in numbers:
            await put(*payload(number), time.monotonic_ns())

    await asyncio.gather(*(some() for _ in range(CONCURRENCY)))


def main(producing, working):
    import uvloop

    role, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    url = f"redis://127.0.0.1:{port}"
    gc.freeze()  # as our roles do when they are ready; for all, so that no peer's tail is the collector's
    if role == "produce":
        uvloop.run(producing(url, count, float(sys.argv[4])))
    else:
        uvloop.run(working(url, (Held if role == "hold" else Seen)(count)))
