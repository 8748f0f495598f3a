"""Spans on their way to a collector, by OTLP over HTTP; what a call's spans are: `test_call.py`."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from switchroom import tracing
from switchroom.errors import NotFound
from switchroom.http_problems import install_problems
from switchroom.http_tracing import install_tracing

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


async def test_requests_join_the_callers_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    took: list[ExportTraceServiceRequest] = []

    async def take(request: web.Request) -> web.Response:
        took.append(ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response()

    async def missing(request: web.Request) -> web.Response:
        raise NotFound("no such call")

    collector = web.Application()
    collector.router.add_post("/v1/traces", take)
    async with TestServer(collector) as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", str(server.make_url("")).rstrip("/"))
        async with tracing.traced("api"):
            app = web.Application()
            install_problems(app)
            app.router.add_get("/calls/{call_id}", missing)
            install_tracing(app)
            async with TestClient(TestServer(app)) as client:
                headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Correlation-Id": "c-1"}
                assert (await client.get("/calls/7", headers=headers)).status == 404
        assert tracing.tracer() is None
        async with asyncio.timeout(30):
            while not took:
                await asyncio.sleep(0.01)
    (resource,) = took[0].resource_spans
    about = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert (about["service.name"], about["switchroom.role"]) == ("switchroom", "api")
    (span,) = resource.scope_spans[0].spans
    assert span.name == "GET /calls/{call_id}"
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    seen = {one.key: one.value.string_value or one.value.int_value for one in span.attributes}
    assert seen == {
        "http.request.method": "GET",
        "http.route": "/calls/{call_id}",
        "http.response.status_code": 404,
        "switchroom.correlation_id": "c-1",
    }


async def test_without_an_exporter_nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    async with tracing.traced("api"):
        app = web.Application()
        install_tracing(app)
        assert tracing.tracer() is None and not app.middlewares
