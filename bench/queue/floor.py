"""The floor: a bare httptools protocol that makes the same script call as our enqueue and checks nothing.

No router, access, validation or problem details: what is left is HTTP's parser, the JSON, the store's round trip.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import httptools
import msgspec
import uvloop

from switchroom.queue import NewCall, Queue, Rules
from switchroom.store import Store


class Body(msgspec.Struct):
    form: dict[str, Any]
    state: dict[str, Any] = {}


decode = msgspec.json.Decoder(Body).decode
encode = msgspec.json.Encoder().encode
RULES = Rules()
DIGEST = "0" * 64


class Protocol(asyncio.Protocol):
    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""
        self.key = ""
        self.tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name == b"Idempotency-Key":
            self.key = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        task = asyncio.create_task(self.answer(self.body, self.key))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        self.body, self.key = b"", ""

    async def answer(self, raw: bytes, key: str) -> None:
        body = decode(raw)
        call = NewCall(form=body.form, state=body.state, idempotency_key=key, payload_digest=DIGEST)
        accepted = await self.queue.enqueue("line", call, RULES)
        reply = encode({"accepted": True, "taskId": accepted.task_id, "pendingCount": accepted.pending})
        self.transport.write(
            b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(reply)
            + reply
        )


async def main(url: str) -> None:
    queue = Queue(await Store.connect(url))
    server = await asyncio.get_running_loop().create_server(lambda: Protocol(queue), "127.0.0.1", 0)
    print(f"ready http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


uvloop.run(main(sys.argv[1]))
