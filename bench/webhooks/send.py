"""Status webhooks: how soon one leaves, how many a sender process sends, and what a message costs.

Run: `python bench/webhooks/send.py [CALLS]`. Everything is real: embedded Valkey (fsync always), the queue, the feed,
the sender in a process of its own, and an HTTP receiver in this one, over loopback.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import cast

import uvloop

from switchroom.net import GuardedClient
from switchroom.queue import NewCall, Queue, Rules
from switchroom.store import EmbeddedServer, Store, keys
from switchroom.webhook_feed import WebhookFeed
from switchroom.webhooks import CALLBACK, Deliveries, Webhooks

FLOW = "bench"
RULES = Rules(lines=1_000, cap=1_000_000)
ANSWER = b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"


class Receiver(asyncio.Protocol):
    """Answers 204 to each POST; counts them, and notes when the last came."""

    got = 0
    last = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            length = next(int(line[15:]) for line in head.split(b"\r\n") if line[:15].lower() == b"content-length:")
            if len(rest) < length:
                return
            self._buffer = rest[length:]
            Receiver.got += 1
            Receiver.last = time.perf_counter()
            self._transport.write(ANSWER)


async def send_forever(url: str) -> None:
    store = await Store.connect(url)
    webhooks = Webhooks(store, GuardedClient(("127.0.0.1",)))
    print("ready", flush=True)
    await WebhookFeed(store, Queue(store), webhooks).run()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def arrived(wanted: int) -> None:
    while Receiver.got < wanted:
        await asyncio.sleep(0.0005)


async def used_memory(store: Store) -> int:
    info = (await store.call("INFO", "memory")).decode()
    return int(next(line for line in info.splitlines() if line.startswith("used_memory:")).partition(":")[2])


async def main(calls: int) -> None:
    server = EmbeddedServer(Path(tempfile.mkdtemp(prefix="bench-webhooks-")), fsync="always")
    store = await Store.connect(await server.start())
    sink = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", 0)
    callback = f"http://127.0.0.1:{sink.sockets[0].getsockname()[1]}/hook"
    queue = Queue(store)

    async def enqueue(caller: str) -> None:
        await queue.enqueue(FLOW, NewCall(form={"ID": caller}, callback_url=callback), RULES)

    # what a message costs while it waits: made, but not sent
    rooms = Webhooks(store, GuardedClient())
    await asyncio.gather(*(enqueue(f"m{number}") for number in range(calls)))
    before, begun = await used_memory(store), time.perf_counter()
    feed = WebhookFeed(store, queue, rooms)
    cpu = time.process_time()
    while entries := await store.call("XRANGE", keys.queue_outbox(FLOW), "-", "+", "COUNT", 100):
        await feed._exchange(FLOW, entries)
    made_s, made_cpu = time.perf_counter() - begun, time.process_time() - cpu
    waiting = (await Deliveries(store).counts(FLOW, CALLBACK)).open
    each = (await used_memory(store) - before) / waiting
    cost = f"{made_cpu / calls * 1e6:5.0f} µs CPU a message"
    print(f"exchanged  {calls / made_s:7.0f} /s   {cost} of the feed   {each:.0f} bytes of the store while it waits")

    process = subprocess.Popen(
        [sys.executable, __file__, "--sender", store.url], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout
    begun = time.perf_counter()
    await asyncio.to_thread(process.stdout.readline)
    begun, cpu = time.perf_counter(), cpu_s(process.pid)
    await arrived(calls)
    took, used = time.perf_counter() - begun, cpu_s(process.pid) - cpu
    print(f"sent       {calls / took:7.0f} /s   {used / calls * 1e6:5.0f} µs CPU a message of the sender process")

    waits = []
    for number in range(300):
        await asyncio.sleep(0.01)
        begun, wanted = time.perf_counter(), Receiver.got + 1
        await enqueue(f"i{number}")
        await arrived(wanted)
        waits.append((Receiver.last - begun) * 1000)
    waits.sort()
    print(f"idle       enqueue → at the receiver: p50 {statistics.median(waits):.1f} ms, p99 {waits[-4]:.1f} ms")
    print(f"load       {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores (other work included)")
    process.kill()
    process.wait()
    sink.close()
    await store.close()
    await server.stop()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--sender"]:
        uvloop.run(send_forever(sys.argv[2]))
    else:
        uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5_000))
