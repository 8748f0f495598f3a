"""A real receiver of webhooks, and messages by way of the outbox."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

from switchroom.store import Store, keys
from switchroom.webhooks import CALLBACK, Message, Webhooks, message_id

FLOW = "line"
MakeWebhooks = Callable[..., Webhooks]


class Got(NamedTuple):
    headers: dict[str, str]
    body: bytes
    at: float
    path: str

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Receiver:
    """An HTTP server that keeps what it got and answers by `answer(got, number)`: a status, or a whole response."""

    def __init__(self) -> None:
        self.got: list[Got] = []
        self.under_way = 0
        self.most_under_way = 0
        self.delay_s = 0.0
        self.answer: Callable[[Got, int], int | web.Response] = lambda got, number: 204
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._take)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        got = Got({k.lower(): v for k, v in request.headers.items()}, body, time.monotonic(), request.path)
        self.got.append(got)
        answer = self.answer(got, len(self.got))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(self.delay_s)
        finally:
            self.under_way -= 1
        return answer if isinstance(answer, web.Response) else web.Response(status=answer)


async def entry(store: Store, task_id: str = "task-1") -> str:
    """An entry of the outbox, as the queue's scripts write it; returns its ID."""
    name = await store.call("XADD", keys.queue_outbox(FLOW), "*", "t", task_id)
    return str(name.decode())


def message(
    entry_id: str, endpoint_id: str, *, url: str = "", task_id: str = "task-1", kind: str = "call.live"
) -> Message:
    body = msgspec.json.encode({"type": kind, "data": {"taskId": task_id, "eventId": entry_id}})
    return Message(message_id(entry_id, FLOW, endpoint_id), endpoint_id, url, task_id, kind, body)


async def post(
    store: Store,
    webhooks: Webhooks,
    endpoint_id: str,
    *,
    task_id: str = "task-1",
    kind: str = "call.live",
    url: str = "",
) -> str:
    """Makes one message, through the outbox; returns its ID."""
    if endpoint_id == CALLBACK:
        await webhooks.endpoints.callback(FLOW)
    entry_id = await entry(store, task_id)
    made = message(entry_id, endpoint_id, url=url, task_id=task_id, kind=kind)
    assert (await webhooks.deliveries.schedule(FLOW, [(entry_id, [made])])).made == 1
    return made.id


async def until(probe: Callable[[], Awaitable[Any] | Any], seconds: float = 30.0) -> Any:
    """The first true answer of `probe`."""
    deadline = time.monotonic() + seconds
    while True:
        found = probe()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, "it did not come"
        await asyncio.sleep(0.01)
