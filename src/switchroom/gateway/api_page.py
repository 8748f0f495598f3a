"""A page to read and try the API, at `/docs`: Swagger UI from an installed package, nothing from elsewhere."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

from aiohttp import hdrs, web

from switchroom.errors import NotFound, Unavailable
from switchroom.gateway.operation import operation

_PACKAGE = "fastapi_swagger"
"""Ships Swagger UI's files with each of its releases. Only its folder is looked up: it is never imported."""
_FILES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
_START = b"""window.addEventListener("load", () => {
  SwaggerUIBundle({ url: "openapi.json", dom_id: "#page", deepLinking: true, docExpansion: "list", filter: true,
    validatorUrl: null, persistAuthorization: false });
});
"""
_PAGE = """<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>Switchroom API</title>
    <link rel="icon" href="docs/favicon-32x32.png">
    <link rel="stylesheet" href="docs/swagger-ui.css">
    <script src="docs/swagger-ui-bundle.js" defer></script>
    <script src="docs/start.js" defer></script>
  </head>
  <body><main id="page"></main></body>
</html>
"""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def routes() -> list[web.RouteDef]:
    return [web.get("/docs", page), web.get("/docs/{name}", part)]


@operation(None, "A page to read and try this API", tag="health", replies={200: "text/html"}, errors=(503,))
async def page(request: web.Request) -> web.Response:
    _folder()
    headers = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff", hdrs.CACHE_CONTROL: "no-cache"}
    return web.Response(text=_PAGE, content_type="text/html", headers=headers)


@operation(None, "A file of the page", tag="health", replies={200: "text/javascript"}, errors=(404, 503))
async def part(request: web.Request) -> web.StreamResponse:
    name = request.match_info["name"]
    if name == "start.js":
        return web.Response(body=_START, content_type="text/javascript")
    if name not in _FILES:
        raise NotFound("The page has no such file.")
    headers = {hdrs.CONTENT_TYPE: _FILES[name], hdrs.CACHE_CONTROL: "public, max-age=3600"}
    return web.FileResponse(_folder() / name, headers=headers)


@cache
def _folder() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise Unavailable(
            "The page's files are not installed: `pip install 'switchroom[docs]'`. The document is at /openapi.json.",
            code="docs_not_installed",
        )
    return Path(spec.origin).parent / "resources"
