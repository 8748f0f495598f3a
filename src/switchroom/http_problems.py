"""Errors on the wire as problem details (RFC 9457), the correlation ID, and bounded reading of request bodies.

Shared by the gateway and the sidecar: `install_problems(app)` once an application, then raise `SwitchroomError`s.
"""

from __future__ import annotations

import logging
import re
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import hdrs, web
from aiohttp.http_exceptions import ContentEncodingError
from aiohttp.typedefs import Handler

from switchroom.errors import BadInput, Fault, SwitchroomError, TooLarge
from switchroom.ids import new_uuid

log = logging.getLogger(__name__)

CORRELATION_HEADER = "X-Correlation-Id"
PROBLEM_TYPE = "application/problem+json"

correlation_id: ContextVar[str] = ContextVar("correlation_id", default="")
"""The correlation ID of the request that this task serves, for log formatters; empty outside one."""

_request_key = web.RequestKey("correlation_id", str)
_begun_key = web.RequestKey("response_begun", bool)
_SANE_ID = re.compile(r"[A-Za-z0-9._:@+=-]{1,128}", re.ASCII)
_ENCODER = msgspec.json.Encoder()


def install_problems(app: web.Application) -> None:
    """Make `app` answer errors as problem details and put `X-Correlation-Id` on each answer, streams included."""
    app.middlewares.insert(0, problem_middleware)
    app.on_response_prepare.append(_stamp)


@web.middleware
async def problem_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns `SwitchroomError`, aiohttp's HTTP errors and unknown exceptions into `application/problem+json`.

    An unknown exception becomes a 500 that names only the correlation ID; its traceback goes to the log. A handler
    that fails after its stream has begun cannot be answered any more: the connection is closed.
    """
    cid = request_correlation_id(request)
    token = correlation_id.set(cid)
    try:
        return await handler(request)
    except SwitchroomError as error:
        log_refusal(error, request.path)
        _raise_if_begun(request, error)
        return problem_response(request, error)
    except web.HTTPException as error:
        error.headers[CORRELATION_HEADER] = cid
        if error.status < 400:
            raise
        problem = _problem(
            request.path, cid, error.status, _code_of(error.status), error.reason, error.text or error.reason
        )
        headers: dict[str, str] = {hdrs.ALLOW: error.headers[hdrs.ALLOW]} if hdrs.ALLOW in error.headers else {}
        return _answer(problem, headers)
    except ConnectionError as error:
        if request.transport is None or request.transport.is_closing():
            log.info("client left", extra={"path": request.path})
            raise
        return _unknown(request, error)
    except Exception as error:
        return _unknown(request, error)
    finally:
        correlation_id.reset(token)


def log_refusal(error: SwitchroomError, path: str) -> None:
    """Logs an error that is ours, not the client's. Who is asked to come back later was refused on purpose: a line of
    log, and no trace of the way there."""
    if error.status < 500:
        return
    if error.retry_after_s is not None:
        log.warning("request refused for now", extra={"path": path, "code": error.code, "detail": error.detail})
    else:
        log.error("request failed", extra={"path": path, "code": error.code}, exc_info=error)


def request_correlation_id(request: web.Request) -> str:
    """The request's correlation ID: the client's where it is a plain token of at most 128 characters, else a UUID."""
    known = request.get(_request_key)
    if known is None:
        known = request[_request_key] = correlation_id_from(request.headers.get(CORRELATION_HEADER, ""))
    return known


def correlation_id_from(offered: str) -> str:
    """What a client offers as its correlation ID where it is sane, else a new UUID."""
    return offered if _SANE_ID.fullmatch(offered) else new_uuid()


def problem_response(request: web.Request, error: SwitchroomError) -> web.Response:
    """`error` as a response with the body of `problem_of`."""
    headers: dict[str, str] = {} if error.retry_after_s is None else {hdrs.RETRY_AFTER: str(error.retry_after_s)}
    response = _answer(problem_of(error, request.path, request_correlation_id(request)), headers)
    if request.content.exception() is not None:
        # Nothing more can be read behind a broken body: said here, or the client's next request meets a closed door.
        response.force_close()
    return response


def problem_of(error: SwitchroomError, path: str, cid: str) -> dict[str, Any]:
    """The problem details of `error`: `type, title, status, detail, instance, code, correlationId, errors` and its
    `extra`."""
    problem = _problem(path, cid, error.status, error.code, error.title, error.detail)
    if error.faults:
        problem["errors"] = [fault._asdict() for fault in error.faults]
    for name, value in error.extra.items():
        problem.setdefault(name, value)
    return problem


_decode = msgspec.json.Decoder().decode


def decoded_json(body: bytes) -> Any:
    """A body as JSON; empty, not JSON or nested too deep raises `BadInput`."""
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if not body.strip():
            raise BadInput("The body is empty; JSON is expected.", code="invalid_json") from None
        # The decoder's words carry a byte offset, never the content.
        detail = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise BadInput(f"The body is not JSON: {detail}.", code="invalid_json", faults=[Fault(detail, "")]) from error


async def read_body(request: web.Request, max_bytes: int) -> bytes:
    """The whole body, at most `max_bytes` after content decoding; more raises `TooLarge` without reading on."""
    declared = request.content_length
    if declared is not None and declared > max_bytes:
        raise too_large(max_bytes)
    parts: list[bytes] = []
    size = 0
    try:
        async for chunk in request.content.iter_any():
            size += len(chunk)
            if size > max_bytes:
                raise too_large(max_bytes)
            parts.append(chunk)
    except (ContentEncodingError, web.RequestPayloadError) as error:
        raise BadInput("The body cannot be read: it does not match its headers.") from error
    return b"".join(parts)


async def read_json(request: web.Request, max_bytes: int) -> Any:
    """The body as JSON (any media type); empty, not JSON or nested too deep raises `BadInput`, too long `TooLarge`."""
    return decoded_json(await read_body(request, max_bytes))


def too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"The body is larger than {max_bytes} bytes.", extra={"maxBytes": max_bytes})


def _problem(path: str, cid: str, status: int, code: str, title: str, detail: str) -> dict[str, Any]:
    return {
        "type": f"urn:switchroom:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": path,
        "code": code,
        "correlationId": cid,
    }


def _answer(problem: dict[str, Any], headers: dict[str, str]) -> web.Response:
    headers = {**headers, CORRELATION_HEADER: problem["correlationId"], hdrs.CACHE_CONTROL: "no-store"}
    return web.Response(
        body=_ENCODER.encode(problem), status=problem["status"], content_type=PROBLEM_TYPE, headers=headers
    )


def _unknown(request: web.Request, error: Exception) -> web.StreamResponse:
    log.exception("unexpected error", extra={"path": request.path, "method": request.method})
    _raise_if_begun(request, error)
    return problem_response(request, hidden_error())


def hidden_error() -> SwitchroomError:
    """What a client is told of an error that we did not expect."""
    return SwitchroomError("Something went wrong on our side; the correlation ID finds it in the log.")


def _raise_if_begun(request: web.Request, error: Exception) -> None:
    """Raise `error` again where the answer has begun: a second status line would corrupt the stream."""
    if request.get(_begun_key):
        raise error


def _code_of(status: int) -> str:
    try:
        return HTTPStatus(status).name.lower()
    except ValueError:
        return "http_error"


async def _stamp(request: web.Request, response: web.StreamResponse) -> None:
    request[_begun_key] = True
    response.headers[CORRELATION_HEADER] = request_correlation_id(request)
