"""Problem details over real HTTP: shape, correlation ID, body limits, streams that had begun."""

from __future__ import annotations

import gzip
import logging
import uuid
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from switchroom.errors import Fault, TooMany, Unprocessable
from switchroom.http_problems import correlation_id, install_problems, read_json

Client = Callable[[web.Application], Awaitable[TestClient[web.Request, web.Application]]]


async def _echo(request: web.Request) -> web.Response:
    return web.json_response({"got": await read_json(request, 1000), "cid": correlation_id.get()})


async def _faulty(_: web.Request) -> web.Response:
    raise Unprocessable("No.", faults=[Fault("is empty", "/form")], extra={"limit": 3, "status": 200})


async def _busy(_: web.Request) -> web.Response:
    raise TooMany("Later.", retry_after_s=7)


async def _bug(_: web.Request) -> web.Response:
    raise RuntimeError("hunter2 is the secret")


async def _torn_stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"begun")
    raise Unprocessable("too late to say so")


@pytest.fixture
async def client(aiohttp_client: Client) -> TestClient[web.Request, web.Application]:
    app = web.Application()
    install_problems(app)
    app.router.add_post("/echo", _echo)
    app.router.add_get("/faulty", _faulty)
    app.router.add_get("/busy", _busy)
    app.router.add_get("/bug", _bug)
    app.router.add_get("/torn", _torn_stream)
    return await aiohttp_client(app)


async def test_problem_shape_faults_and_extra(client: TestClient) -> None:
    reply = await client.get("/faulty", headers={"X-Correlation-Id": "abc-1"})
    assert reply.status == 422
    assert reply.content_type == "application/problem+json"
    assert await reply.json() == {
        "type": "urn:switchroom:problem:unprocessable",
        "title": "Unprocessable content",
        "status": 422,
        "detail": "No.",
        "instance": "/faulty",
        "code": "unprocessable",
        "correlationId": "abc-1",
        "errors": [{"detail": "is empty", "pointer": "/form"}],
        "limit": 3,
    }
    assert reply.headers["X-Correlation-Id"] == "abc-1"


async def test_correlation_id_is_ours_when_the_clients_is_not_a_token(client: TestClient) -> None:
    for bad in ("a b", "x" * 129, "<script>", ""):
        reply = await client.post("/echo", json={}, headers={"X-Correlation-Id": bad})
        cid = reply.headers["X-Correlation-Id"]
        assert uuid.UUID(cid)
        assert (await reply.json())["cid"] == cid


async def test_retry_after_and_router_errors(client: TestClient) -> None:
    reply = await client.get("/busy")
    assert (reply.status, reply.headers["Retry-After"]) == (429, "7")
    missing = await client.get("/nowhere")
    assert missing.status == 404
    assert (await missing.json())["code"] == "not_found"
    wrong = await client.get("/echo")
    assert (wrong.status, wrong.headers["Allow"]) == (405, "POST")
    assert (await wrong.json())["code"] == "method_not_allowed"


async def test_unknown_exception_is_logged_and_not_told(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        reply = await client.get("/bug")
    text = await reply.text()
    assert reply.status == 500
    assert "hunter2" not in text
    assert any("hunter2" in (r.exc_text or "") for r in caplog.records)


@pytest.mark.parametrize("body", [b"", b"  ", b"{", b"[1,]", b'{"a": NaN}', b"\xff\xfe", b"[" * 900])
async def test_not_json_is_400(client: TestClient, body: bytes) -> None:
    reply = await client.post("/echo", data=body)
    assert reply.status == 400
    assert (await reply.json())["code"] == "invalid_json"


async def test_body_limit_counts_decoded_bytes(client: TestClient) -> None:
    big = b'"' + b"a" * 5000 + b'"'
    assert (await client.post("/echo", data=big)).status == 413
    bomb = await client.post("/echo", data=gzip.compress(big), headers={"Content-Encoding": "gzip"})
    assert bomb.status == 413
    assert (await client.post("/echo", data=b'"' + b"a" * 998 + b'"')).status == 200


async def test_a_stream_that_had_begun_is_cut_not_continued(client: TestClient) -> None:
    reply = await client.get("/torn")
    assert reply.headers["X-Correlation-Id"]
    with pytest.raises(aiohttp.ClientPayloadError):
        await reply.read()
