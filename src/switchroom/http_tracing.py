"""A span for each HTTP request, in the caller's trace where the request names one (`traceparent`)."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler

from switchroom import tracing
from switchroom.http_problems import request_correlation_id


def install_tracing(app: web.Application) -> None:
    """To be called last: the span is around all other middlewares. Nothing where no exporter is set."""
    if tracing.tracer() is not None:
        app.middlewares.insert(0, _span)


@web.middleware
async def _span(request: web.Request, handler: Handler) -> web.StreamResponse:
    from opentelemetry import propagate
    from opentelemetry.trace import SpanKind, StatusCode

    tracer = tracing.tracer()
    if tracer is None:
        return await handler(request)
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else ""
    with tracer.start_as_current_span(
        f"{request.method} {route}".strip(),
        context=propagate.extract(request.headers),
        kind=SpanKind.SERVER,
        attributes={
            "http.request.method": request.method,
            "http.route": route,
            tracing.CORRELATION_ID: request_correlation_id(request),
        },
    ) as span:
        reply = await handler(request)
        span.set_attribute("http.response.status_code", reply.status)
        if reply.status >= 500:
            span.set_status(StatusCode.ERROR)
        return reply
