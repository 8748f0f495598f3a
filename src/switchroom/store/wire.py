"""One connection on which the calls of an event-loop tick go out together.

redis-py spends 83-141 µs of CPU a call, several times what the server needs, so the hot path speaks RESP2 itself:
hiredis packs and parses, one `write` carries every command of the tick, and replies are matched in order. Connection
details (URL, TLS, authentication) keep redis-py's spelling.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, cast

import hiredis
from redis.exceptions import ResponseError

from switchroom.errors import Unavailable
from switchroom.store.address import Address

MAX_IN_FLIGHT = 20_000
"""Commands without a reply yet; beyond that the store is too slow for what it is asked, and callers are told so."""


class Wire(asyncio.Protocol):
    """A RESP2 connection. `send` returns a future of the reply; errors of the server are `ResponseError`."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=ResponseError, protocolError=ResponseError)
        self._out: list[bytes] = []
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._flushing = False
        self._confirming: tuple[int, int, asyncio.Future[int]] | None = None
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._retired = False
        self._answered = 0
        self._answered_before = 0
        self.closed = self._loop.create_future()

    @classmethod
    async def open(cls, address: Address, *, timeout_s: float, connect_s: float | None = None) -> Wire:
        """Connects, authenticates and selects the database within `connect_s` seconds (none given: `timeout_s`)."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s if connect_s is None else connect_s):
                if address.path:
                    _, wire = await loop.create_unix_connection(lambda: cls(timeout_s), address.path)
                else:
                    # Read anew for each connection: certificates are renewed while we run.
                    context = await asyncio.to_thread(address.tls.context) if address.tls else None
                    _, wire = await loop.create_connection(
                        lambda: cls(timeout_s), address.host, address.port, ssl=context
                    )
                if address.password:
                    user = (address.username,) if address.username else ()
                    await wire.send("AUTH", *user, address.password)
                if address.database:
                    await wire.send("SELECT", address.database)
                return wire
        except (OSError, TimeoutError) as error:
            raise Unavailable(
                f"the store does not answer: {str(error) or type(error).__name__}", code="store_unavailable"
            ) from error

    @property
    def alive(self) -> bool:
        return self._transport is not None and not self.closed.done()

    def send(self, *command: Any) -> asyncio.Future[Any]:
        """Queues a command; it leaves with all others of this tick."""
        if not self.alive:
            raise Unavailable("the connection to the store is lost", code="store_unavailable", retry_after_s=1)
        if len(self._waiting) >= MAX_IN_FLIGHT:
            raise Unavailable("the store is overloaded", code="store_overloaded", retry_after_s=1)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._out.append(hiredis.pack_command(command))
        self._waiting.append(future)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)
        return future

    def confirm(self, replicas: int, timeout_ms: int) -> asyncio.Future[int]:
        """How many replicas have all that was sent until this tick ends: one `WAIT` for all calls of the tick, so the
        future is to be shielded. The first caller's numbers hold."""
        if self._confirming is None:
            self._confirming = (replicas, timeout_ms, self._loop.create_future())
        return self._confirming[2]

    def close(self) -> None:
        if self._transport is not None:
            self._flush()
            self._transport.close()

    def retire(self) -> None:
        """Closes once the answers that are on their way have come; the caller sends nothing more."""
        self._retired = True
        if not self._waiting:
            self.close()

    def _flush(self) -> None:
        self._flushing = False
        if self._confirming is not None:
            replicas, timeout_ms, future = self._confirming
            self._confirming = None
            self._out.append(hiredis.pack_command(cast(Any, ("WAIT", replicas, timeout_ms))))
            self._waiting.append(future)
        # A transport that just failed says so a tick later; what waits then fails with it.
        if self._out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._out))
            self._out.clear()
            if self._watch is None:
                self._arm()

    # One timer watches the head of the line for all calls, in place of a deadline object a call.
    def _arm(self) -> None:
        self._answered_before = self._answered
        self._watch = self._loop.call_later(self._timeout_s, self._check)

    def _check(self) -> None:
        self._watch = None
        if not self._waiting:
            return
        if self._answered == self._answered_before and self._transport is not None:
            self._transport.abort()
        else:
            self._arm()

    # asyncio.Protocol
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        reply = self._reader.gets()
        while reply is not False:
            self._answered += 1
            future = self._waiting.popleft()
            if not future.done():
                if isinstance(reply, ResponseError):
                    future.set_exception(reply)
                else:
                    future.set_result(reply)
            reply = self._reader.gets()
        if self._retired and not self._waiting:
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
        if not self.closed.done():
            self.closed.set_result(None)
        self._transport = None
        self._out.clear()
        if self._confirming is not None:
            self._waiting.append(self._confirming[2])
            self._confirming = None
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(
                    Unavailable(
                        f"the connection to the store was lost: {error or 'closed'}",
                        code="store_unavailable",
                        retry_after_s=1,
                    )
                )
