"""A softphone at `/softphone`: a page of ours that calls a flow over WebRTC, with no asset from elsewhere.

`/softphone?flow=ID` makes a new call of the flow and joins it; with `&task=ID` it joins that call, and
`&token=TOKEN` opens it for somebody without an API key (`POST …/calls/token`). A reload comes back
into the call. The page itself is public: what it asks of the API carries the key that its user types in.
"""

from __future__ import annotations

from pathlib import Path

from aiohttp import hdrs, web

from switchroom.errors import NotFound
from switchroom.gateway.operation import operation

_FOLDER = Path(__file__).parent / "softphone"
_FILES = {
    "page.js": "text/javascript",
    "call.js": "text/javascript",
    "meter.js": "text/javascript",
    "softphone.css": "text/css",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; media-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


def routes() -> list[web.RouteDef]:
    return [web.get("/softphone", page), web.get("/softphone/{name}", part)]


@operation(None, "A page that calls a flow over WebRTC", tag="calls", replies={200: "text/html"})
async def page(request: web.Request) -> web.StreamResponse:
    return _file("softphone.html", "text/html")


@operation(None, "A file of the softphone", tag="calls", replies={200: "text/javascript"}, errors=(404,))
async def part(request: web.Request) -> web.StreamResponse:
    name = request.match_info["name"]
    if name not in _FILES:
        raise NotFound("The softphone has no such file.")
    return _file(name, _FILES[name])


def _file(name: str, media_type: str) -> web.FileResponse:
    headers = {
        hdrs.CONTENT_TYPE: f"{media_type}; charset=utf-8",
        hdrs.CACHE_CONTROL: "no-cache",
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
    }
    return web.FileResponse(_FOLDER / name, headers=headers)
