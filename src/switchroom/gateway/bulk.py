"""Dialect: a campaign of calls at `/api/v1/openai-realtime/{flowId}/queue/enqueue/bulk`: streamed in, answered line by
line, in constant memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import Any

import msgspec
from aiohttp import hdrs, web

from switchroom.access import Scope
from switchroom.errors import BadInput, Fault, SwitchroomError, TooMany
from switchroom.gateway.bulk_lines import CsvLines, JsonLines, Line, ascii_based
from switchroom.gateway.enqueue import accept, require_realtime
from switchroom.gateway.enqueue_body import IDEMPOTENCY_KEY
from switchroom.gateway.operation import operation
from switchroom.gateway.queue import BASE
from switchroom.gateway.reply import bad_parameter, query_int
from switchroom.gateway.services import PRINCIPAL, known_flow, services
from switchroom.http_problems import hidden_error, problem_of, request_correlation_id

log = logging.getLogger(__name__)

WINDOW = 256
"""Lines on their way to the store at once: they share its round trips, and bound what is held in memory."""
READ_TIMEOUT_S = 300.0
WRITE_TIMEOUT_S = 60.0
"""A client that does not read its answers for so long is left: it may go on with the same keys."""
NDJSON = "application/x-ndjson"
_JSON_TYPES = frozenset({NDJSON, "application/ndjson", "application/jsonl"})
_MAX_LINE = 1 << 40

_encode = msgspec.json.Encoder().encode


class BulkAnswer(msgspec.Struct, rename="camel", omit_defaults=True):
    """The answer to a line: `accepted` with the call's `taskId`, or `error`, the problem that a single enqueue would
    have answered."""

    line: int
    accepted: bool = False
    task_id: str | None = None
    position: int | None = None
    duplicate: bool = False
    error: dict[str, Any] | None = None


class BulkDone(msgspec.Struct, rename="camel"):
    """The last line of the answer; without it the stream was cut. `duplicates` counts, within `accepted`, the lines
    whose ID had a call already."""

    done: bool = True
    lines: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0


def routes() -> list[web.RouteDef]:
    return [web.post(f"{BASE}/enqueue/bulk", enqueue_bulk)]


@operation(
    Scope.QUEUE_WRITE,
    "Put many calls in a flow's queue: NDJSON or CSV in, an answer a line out, while it streams",
    tag="queue",
    body=NDJSON,
    replies={200: NDJSON},
    query={
        "firstLine": (int, "number of the first line sent (of CSV: after its header), to go on with a file"),
        "answers": (str, "`all` (default) or `errors`: only the lines that were refused, and the last one"),
    },
    headers=IDEMPOTENCY_KEY,
    errors=(400, 404, 409, 413, 415),
)
async def enqueue_bulk(request: web.Request) -> web.StreamResponse:
    """A line that is wrong does not stop the others. A line may carry its own `idempotencyKey`; else, with the header
    `Idempotency-Key`, its key is that one with the line's number, so that a file that was cut off can be sent again
    without doubles."""
    require_realtime(await known_flow(request, request.match_info["flow_id"]))
    if (answers := request.query.get("answers", "all")) not in ("all", "errors"):
        raise bad_parameter("answers", "must be `all` or `errors`")
    bulk = _Bulk(request)
    # A header that names no columns is answered with a status of its own, so it is read before the answer begins.
    waiting = await bulk.begin()
    reply = web.StreamResponse(headers={hdrs.CONTENT_TYPE: NDJSON, "X-Accel-Buffering": "no"})
    reply.enable_chunked_encoding()
    await reply.prepare(request)
    try:
        async for window in bulk.windows(waiting):
            found = await bulk.take(window)
            if out := b"".join(_encode(one) + b"\n" for one in found if answers == "all" or not one.accepted):
                await _write(reply, out)
            if bulk.over:
                break
        await _write(reply, _encode(bulk.done) + b"\n")
        await reply.write_eof()
    except TimeoutError as error:
        log.warning("a bulk client neither sent nor read for too long", extra={"lines": bulk.done.lines})
        raise ConnectionResetError from error
    return reply


class _Bulk:
    """One request: its lines, and what became of them."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._parts = services(request)
        self._flow_id = request.match_info["flow_id"]
        self._key = request.headers.get("Idempotency-Key")
        self._lines: JsonLines | CsvLines
        if request.content_type in _JSON_TYPES:
            self._lines = JsonLines(self._parts.max_body_bytes)
        elif request.content_type == "text/csv":
            charset = request.charset or "utf-8"
            if not ascii_based(charset):
                raise web.HTTPUnsupportedMediaType(
                    text=f"the charset {charset} cannot be read line by line: send UTF-8"
                )
            self._lines = CsvLines(self._parts.max_body_bytes, charset)
        else:
            raise web.HTTPUnsupportedMediaType(text=f"send {NDJSON} or text/csv, not {request.content_type}")
        self._first = query_int(request, "firstLine", 0, lowest=1, highest=_MAX_LINE)
        self._shift = 0
        self.done = BulkDone()
        self.over = False
        """The bound on lines was reached: the rest is not read."""

    async def begin(self) -> Iterator[Line]:
        """Reads a CSV's header. Returns the lines that came with it. Raises `BadInput`, `TooLarge`."""
        if isinstance(self._lines, JsonLines):
            self._number_from(1)
            return iter(())
        while chunk := await self._read():
            lines = self._lines.splitter.feed(chunk)
            if (header := next(lines, None)) is not None:
                break
        else:
            lines = iter(())
            header = next(self._lines.splitter.end(), None)
        if header is None:
            raise BadInput("The body is empty: a CSV begins with a header row.", code="invalid_csv")
        self._lines.header(header)
        self._number_from(header.number + (header.raw or b"").count(b"\n") + 1)
        return lines

    def _number_from(self, own: int) -> None:
        """The line that is the body's `own`th is the client's `firstLine`."""
        if self._first:
            self._shift = self._first - own

    async def windows(self, waiting: Iterator[Line]) -> AsyncIterator[list[Line]]:
        """Lines as they come in, at most `WINDOW` at once; few where the client sends slowly."""
        while True:
            while window := list(islice(waiting, WINDOW)):
                yield window
            chunk = await self._read()
            if not chunk:
                break
            waiting = self._lines.splitter.feed(chunk)
        if window := list(self._lines.splitter.end()):
            yield window

    async def take(self, window: list[Line]) -> list[BulkAnswer]:
        """Enqueues the lines of a window, in their order. Returns the answers in the same order."""
        left = self._parts.max_bulk_lines - self.done.lines
        answers = await asyncio.gather(*(self._one(line) for line in window[: max(left, 0)]))
        if len(window) > left:
            self.over = True
            most = TooMany(f"A request takes {self._parts.max_bulk_lines} lines.", code="too_many_lines")
            answers.append(self._refused(window[left].number + self._shift, most))
        for answer in answers:
            self.done.lines += 1
            self.done.accepted += answer.accepted
            self.done.duplicates += answer.duplicate
            self.done.rejected += not answer.accepted
        return answers

    async def _one(self, line: Line) -> BulkAnswer:
        number = line.number + self._shift
        try:
            body = self._lines.body(line)
            key = f"{self._key}:{number}" if self._key else None
            if isinstance(body, dict) and (own := body.pop("idempotencyKey", None)) is not None:
                if not isinstance(own, str):
                    raise BadInput(
                        "idempotencyKey must be a string", faults=[Fault("must be a string", "/idempotencyKey")]
                    )
                key = own
            reply = await accept(self._parts, self._request[PRINCIPAL], self._flow_id, body, key)
        except SwitchroomError as error:
            return self._refused(number, error)
        except Exception:
            log.exception("a bulk line failed", extra={"flow_id": self._flow_id, "line": number})
            return self._refused(number, hidden_error())
        return BulkAnswer(
            line=number,
            accepted=True,
            task_id=reply.task_id,
            position=reply.position,
            duplicate=reply.duplicate,
        )

    def _refused(self, number: int, error: SwitchroomError) -> BulkAnswer:
        problem = problem_of(error, self._request.path, request_correlation_id(self._request))
        return BulkAnswer(line=number, error=problem)

    async def _read(self) -> bytes:
        async with asyncio.timeout(READ_TIMEOUT_S):
            return await self._request.content.readany()


async def _write(reply: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(WRITE_TIMEOUT_S):
        await reply.write(data)
