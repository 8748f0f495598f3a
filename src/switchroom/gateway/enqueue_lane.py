"""A short way in for enqueue: the one route that a campaign hits thousands of times a second.

aiohttp spends more on a request than everything that we do for it. So a connection whose requests are plain enqueues
is read here, by llhttp, and answered by the very function that the application's route calls. The first request that
is anything else (another route, a large or chunked body, a pipeline, an upgrade, a malformed head) hands the
connection to aiohttp for good, with every byte that was not answered yet: only one place knows how to answer those.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import cast

import httptools
import msgspec
from aiohttp import hdrs

from switchroom.access import presented_key
from switchroom.errors import SwitchroomError
from switchroom.gateway import queue
from switchroom.gateway.enqueue import accept
from switchroom.gateway.operation import operation_of
from switchroom.gateway.services import Services
from switchroom.http_problems import (
    CORRELATION_HEADER,
    PROBLEM_TYPE,
    correlation_id,
    correlation_id_from,
    decoded_json,
    hidden_error,
    log_refusal,
    problem_of,
)

log = logging.getLogger(__name__)

MAX_BYTES = 64 * 1024
"""A request longer than this is not for the lane."""
PARTIAL_S = 30.0
"""How long a connection may take to say its first word, or to complete a request; looked at as often."""
IDLE_S = 3_630.0
"""How long a connection may rest between requests: longer than a proxy keeps one (aiohttp's own value)."""

_START = b"POST /api/v1/openai-realtime/"
_ENQUEUE = re.compile(rb"POST (/api/v1/openai-realtime/([A-Za-z0-9_-]{1,64})/queue/enqueue) HTTP/1\.1\r\n")
_FOR_AIOHTTP = frozenset({b"expect", b"content-encoding", b"transfer-encoding", b"upgrade"})
_READ = {
    name.lower().encode(): name
    for name in ("Authorization", "X-API-Key", "Idempotency-Key", CORRELATION_HEADER, "Host", "Content-Length")
}
_MAX_DIGITS = len(str(MAX_BYTES))
_FIRST_LINE = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}

_encode = msgspec.json.Encoder().encode


class EnqueueLane:
    """Makes the protocol of each connection; `application` makes aiohttp's own."""

    def __init__(self, parts: Services, application: Callable[[], asyncio.Protocol]) -> None:
        declared = operation_of(queue.enqueue)
        assert declared is not None and declared.scope is not None
        self.parts = parts
        self.scope = declared.scope
        self.application = application
        self.connections: set[_Connection] = set()
        self._date = ""
        self._date_until = 0.0

    def __call__(self) -> asyncio.Protocol:
        return _Connection(self)

    def date(self) -> str:
        """The `Date` of an answer."""
        now = time.time()
        if now >= self._date_until:
            self._date = formatdate(now, usegmt=True)
            self._date_until = int(now) + 1
        return self._date

    async def close(self, timeout_s: float) -> None:
        """Closes what rests, and what works as soon as it has answered or `timeout_s` seconds are over."""
        working = [task for connection in list(self.connections) if (task := connection.leave()) is not None]
        if working:
            await asyncio.wait(working, timeout=timeout_s)
        for connection in list(self.connections):
            connection.abort()


class _Connection(asyncio.Protocol):
    """One connection while it is the lane's. `_request` is done while one is being answered; `_unread` is the begin of
    a request, or what came behind the one that is being answered."""

    def __init__(self, lane: EnqueueLane) -> None:
        self._lane = lane
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._task: asyncio.Task[None] | None = None
        self._lost = False
        self._closing = False
        self._since = self._loop.time()
        self._keep = True
        self._begin()

    # --- asyncio.Protocol ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._lane.connections.add(self)
        self._timer = self._loop.call_later(PARTIAL_S, self._check)

    def connection_lost(self, error: Exception | None) -> None:
        # A call that is being put in the queue is put there: the client asks again with its idempotency key.
        self._lost = True
        self._release()

    def data_received(self, data: bytes) -> None:
        if not self._request.done():
            self._read(data)
            return
        self._unread += data
        if len(self._unread) > MAX_BYTES:
            self._transport.pause_reading()

    # --- one request ---------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Nothing of a request has come."""
        self._request: asyncio.Future[re.Match[bytes] | None] = self._loop.create_future()
        self._unread: bytes = b""
        self._headers: dict[str, str] = {}
        self._body: bytes = b""
        self._plain: bool = True
        self._whole: bool = False

    def _read(self, data: bytes) -> None:
        """Reads on in a request: has a whole one answered, waits for the rest of it, or gives the connection away."""
        self._unread = raw = self._unread + data if self._unread else data
        route = _ENQUEUE.match(raw)
        begins = route is not None or (b"\r\n" not in raw and raw.startswith(_START[: len(raw)]))
        if not begins or len(raw) > MAX_BYTES or not self._parse(raw, data):
            self._hand_over()
        elif self._whole:
            self._unread = b""
            self._request.set_result(route)
            if self._task is None:
                self._task = self._loop.create_task(self._serve())

    def _parse(self, raw: bytes, data: bytes) -> bool:
        """Whether `raw`, of which `data` is new, is one request that the lane knows, as far as it has come."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return False
        if self._whole:
            alone = raw.find(b"\r\n\r\n") + 4 + len(self._body) == len(raw)
            return self._plain and alone and "Host" in self._headers
        return self._plain and len(self._headers.get("Content-Length", "")) <= _MAX_DIGITS

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        known = _READ.get(name)
        if known is not None and known not in self._headers:
            self._headers[known] = value.decode("utf-8", "surrogateescape")
        elif known is not None or name in _FOR_AIOHTTP:  # a repeated one too
            self._plain = False

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._whole = True
        self._keep = self._parser.should_keep_alive()

    async def _serve(self) -> None:
        """Answers one request after the other. It is one task: to make one for each costs more than to check a key."""
        parts, scope = self._lane.parts, self._lane.scope
        while (route := await self._request) is not None:
            headers = self._headers
            cid = correlation_id_from(headers.get(CORRELATION_HEADER, ""))
            correlation_id.set(cid)
            more = ""
            try:
                principal = await parts.access.check(presented_key(headers), scope)
                key = headers.get("Idempotency-Key")
                reply = await accept(parts, principal, route[2].decode(), decoded_json(self._body), key)
            except Exception as error:
                path = route[1].decode()
                refusal = self._refusal(error, path)
                status, kind, body = refusal.status, PROBLEM_TYPE, _encode(problem_of(refusal, path, cid))
                more = f"{hdrs.CACHE_CONTROL}: no-store\r\n"
                if refusal.retry_after_s is not None:
                    more += f"{hdrs.RETRY_AFTER}: {refusal.retry_after_s}\r\n"
                if status == 401:
                    more += f"{hdrs.WWW_AUTHENTICATE}: Bearer\r\n"
            else:
                status, kind, body = 202, "application/json", _encode(reply)
            if self._lost:
                return
            keep = self._keep and not self._closing
            if not keep:
                more += "Connection: close\r\n"
            head = (
                f"{_FIRST_LINE[status]}{CORRELATION_HEADER}: {cid}\r\nContent-Type: {kind}\r\n"
                f"Content-Length: {len(body)}\r\nDate: {self._lane.date()}\r\n{more}\r\n"
            )
            self._transport.write(head.encode() + body)
            if not keep:
                self._transport.close()
                return
            self._rest()

    def _rest(self) -> None:
        """Waits for the next request, which may have come already."""
        self._since = self._loop.time()
        data = self._unread
        self._begin()
        if data:
            self._transport.resume_reading()
            self._read(data)

    @staticmethod
    def _refusal(error: Exception, path: str) -> SwitchroomError:
        if not isinstance(error, SwitchroomError):
            log.error("unexpected error", extra={"path": path, "method": "POST"}, exc_info=error)
            return hidden_error()
        log_refusal(error, path)
        return error

    # --- the connection's end, here or for aiohttp ----------------------------------------------------------------

    def _hand_over(self) -> None:
        self._release()
        protocol = self._lane.application()
        protocol.connection_made(self._transport)
        self._transport.set_protocol(protocol)
        self._transport.resume_reading()
        protocol.data_received(self._unread)

    def _release(self) -> None:
        """The lane has nothing more to do with it than to answer what it began."""
        self._lane.connections.discard(self)
        self._timer.cancel()
        if not self._request.done():
            self._request.set_result(None)

    def _check(self) -> None:
        rested_s = self._loop.time() - self._since
        most_s = IDLE_S if self._task is not None and not self._unread else PARTIAL_S
        if not self._request.done() and rested_s >= most_s:
            self._transport.close()
        else:
            self._timer = self._loop.call_later(PARTIAL_S, self._check)

    def leave(self) -> asyncio.Task[None] | None:
        """Closes the connection, now or once the returned task has answered."""
        self._closing = True
        if not self._request.done():
            self._transport.close()
        return self._task

    def abort(self) -> None:
        self._transport.abort()
