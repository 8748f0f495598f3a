"""A site with every difficulty that a crawler meets, and what has to become of each of its addresses.

`EXPECTED` is the site's own account: path -> (outcome, cause). Signed-in visitors carry `session=good`.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import uuid
import zlib
from collections import Counter
from urllib.parse import urlencode

from aiohttp import web

HITS: web.AppKey[Counter[str]] = web.AppKey("hits", Counter)
SENT: web.AppKey[Counter[str]] = web.AppKey("sent", Counter)
"""Bytes sent of the answers that are streamed."""
SIGNED_IN: web.AppKey[list[bool]] = web.AppKey("signed_in", list)
"""Whether the session is honoured still: a GET on /logout ends it."""

KEPT = ("kept", "")
EXPECTED: dict[str, tuple[str, str]] = {
    "": KEPT,
    "plain": KEPT,
    # found in another way than by a link
    "orphan": KEPT,
    "nested-orphan": KEPT,
    "text-sitemap": KEPT,
    "utf16-sitemap": KEPT,
    "bare-and?a=1&b=2": KEPT,
    "flaky-sitemap": KEPT,
    "only-canonical": KEPT,
    "names-canonical": KEPT,
    "frames": KEPT,
    "frame": KEPT,
    "back/slash": KEPT,
    "session?page=2": KEPT,
    "shop": KEPT,
    # redirects
    "hop0": KEPT,
    "loop": ("failed", "redirect_loop"),
    "endless/0": ("failed", "too_many_redirects"),
    "ping": ("failed", "redirect_loop"),
    "exit": ("skipped", "logout_link"),
    "elsewhere": ("skipped", "redirected_out"),
    "inward": ("failed", "address_refused"),
    "refreshed": KEPT,
    "refresh-target": KEPT,
    "refresh-header": KEPT,
    "refresh-header-target": KEPT,
    # one page, several addresses
    "dup": KEPT,
    "dup?x=1": ("skipped", "duplicate"),
    # charsets, and servers that are wrong about what they send
    "cp1250": KEPT,
    "shift-jis": KEPT,
    "says-latin1-is-utf8": KEPT,
    "utf16": KEPT,
    "html-as-text": KEPT,
    "html-as-octets": KEPT,
    "png-as-html": ("failed", "unsupported_type"),
    "zip-as-text": ("failed", "unsupported_type"),
    "pdf-as-html": KEPT,
    "data.bin/x": ("failed", "unsupported_type"),
    "notes.txt": KEPT,
    "no-media-type": KEPT,
    "x-gzip": KEPT,
    # documents
    "report.pdf": KEPT,
    "locked.pdf": ("failed", "pdf_encrypted"),
    "late.pdf": KEPT,
    "scanned.pdf": ("failed", "pdf_without_text"),
    "torn.pdf": ("failed", "pdf_broken"),
    # size and time
    "big": ("failed", "too_large"),
    "big-declared": ("failed", "too_large"),
    "bomb": ("failed", "too_large"),
    "slow": KEPT,
    "long": KEPT,
    "footer": KEPT,
    "empty": ("failed", "empty"),
    # hosts in trouble
    "flaky": KEPT,
    "broken-once": KEPT,
    "busy": KEPT,
    "overloaded": KEPT,
    "always-torn": ("failed", "connect"),
    "broken": ("failed", "status_500"),
    "gone": ("failed", "not_found"),
    "missing": ("failed", "not_found"),
    "not-http": ("failed", "protocol"),
    "bad-gzip": ("failed", "decode"),
    # what must not be asked for, or by whom
    "robots-says-no/x": ("skipped", "robots"),
    "basic-auth": ("failed", "http_auth"),
    "vip": ("failed", "forbidden"),
    # behind a login, honoured
    "members/hard": KEPT,
    "members/soft": KEPT,
    "members/clears": KEPT,
    # odd HTML
    "unclosed": KEPT,
    "deep": KEPT,
    "base/page": KEPT,
    "base/linked": KEPT,
}
JAVASCRIPT = {
    "js-only": KEPT,
    "js-linked": KEPT,
    "js-closed-shadow": KEPT,
    "js-in-shadow": KEPT,
    "js-scrolls": KEPT,
    "js-far-down": KEPT,
    "js-routes": KEPT,
    "js-routes#/prices": KEPT,
    "js-late": KEPT,
    "js-stays": KEPT,
    "js-menu": KEPT,
    "js-by-menu": KEPT,
    "js-framed": KEPT,
}
NEVER = ("/logout", "/bye", "/account/delete?id=7", "/robots-says-no/x", "/archive.zip")
"""Addresses that must not be asked for by somebody who is signed in, or at all."""

_PDF_LINES = ("Annual report", "The water price stays at 1.20 EUR in 2027.")


def pdf(*lines: str, extra: bytes = b"") -> bytes:
    """A PDF of one page with a text layer (none without lines), made by hand: PDF 32000-1, 7.5."""
    text = b"".join(b"(%s) Tj 0 -20 Td " % line.encode() for line in lines)
    content = b"BT /F1 12 Tf 40 700 Td " + text + b"ET"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(content), content),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    body, places = b"%PDF-1.7\n", []
    for number, each in enumerate(objects, 1):
        places.append(len(body))
        body += b"%d 0 obj%s endobj\n" % (number, each)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    start = len(body)
    body += b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(objects) + 1, table)
    return body + b"trailer<</Size %d/Root 1 0 R%s>>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, extra, start)


def html(title: str, body: str, head: str = "") -> web.Response:
    text = f"<!doctype html><html><head><title>{title}</title>{head}</head><body><main><h1>{title}</h1>{body}</main>"
    return web.Response(text=text + "</body></html>", content_type="text/html")


def words(path: str) -> str:
    return f"<p>This is the page {path}, with some words of its own: {path[::-1]}.</p>"


def build() -> web.Application:
    app = web.Application()
    app[HITS], app[SENT], app[SIGNED_IN] = Counter(), Counter(), [True]
    app.router.add_get("/{path:.*}", _answer)
    return app


def _home() -> web.Response:
    linked = [path for path in EXPECTED if path not in _UNLINKED]
    links = "".join(f'<li><a href="/{path}{_tracking(path)}">{path}</a></li>' for path in linked)
    token = uuid.uuid4().hex
    links += (
        f'<li><a href="\\back\\slash">b</a> <a href="/session;jsessionid={token}?page=2&amp;sid={token}">s</a></li>'
    )
    traps = '<a href="/calendar/2026/1">Calendar</a> <a href="/sorted?sort=1">Sorted</a>'
    ways_out = (
        '<a href="/logout">Log out</a> <a href="/bye"><img src="/x.png" alt="Sign out"></a> '
        '<a href="/account/delete?id=7">x</a> <a href="https://elsewhere.example/">e</a> <a href="/archive.zip">zip</a>'
    )
    return html("Home", f"<p>Everything is linked from here.</p><ul>{links}</ul><p>{traps} {ways_out}</p>")


def _tracking(path: str) -> str:
    return "" if "?" in path else "?utm_source=home"


_UNLINKED = {
    "", "orphan", "nested-orphan", "text-sitemap", "utf16-sitemap", "bare-and?a=1&b=2", "flaky-sitemap",
    "only-canonical", "frame", "refresh-target", "refresh-header-target", "base/linked", "back/slash", "session?page=2",
}  # fmt: skip
_FILTERS = {
    "color": ("red", "blue", "green"),
    "size": ("s", "m", "l"),
    "brand": ("a", "b", "c"),
    "stock": ("yes", "no"),
}


async def _answer(request: web.Request) -> web.StreamResponse:
    path = request.path
    hits = request.app[HITS]
    if request.method == "HEAD":
        return web.Response()  # a look whether anybody is there
    hits[request.path_qs.partition("?utm_")[0]] += 1
    if path.startswith("/members/"):
        return _members(request)
    if path.startswith("/calendar/"):
        _, _, year, month = path.split("/")
        after = int(year) * 12 + int(month)
        ahead = "".join(f'<a href="/calendar/{(after + i) // 12}/{(after + i) % 12 + 1}">next</a>' for i in range(4))
        return html("Calendar", f"<p>{year}-{month}: nothing is planned in this month.</p>{ahead}")
    match path:
        case "/robots.txt":
            maps = f"Sitemap: /maps/index.xml\nSitemap: {request.url.origin()}/maps/list.txt"
            return web.Response(text=f"User-agent: *\nDisallow: /robots-says-no/\n{maps}\n")
        case "/maps/index.xml":
            names = ("one.xml.gz", "gone.xml", "two.xml", "index.xml", "utf16.xml", "flaky.xml")
            nested = "".join(f"<sitemap><loc>/maps/{name}</loc></sitemap>" for name in names)
            return web.Response(text=f"<sitemapindex>{nested}</sitemapindex>", content_type="application/xml")
        case "/maps/two.xml":
            text = "<sitemapindex><sitemap><loc>/maps/three.xml</loc></sitemap></sitemapindex>"
            return web.Response(text=text, content_type="application/xml")
        case "/maps/three.xml":
            return web.Response(text="<urlset><url><loc>/nested-orphan</loc></url></urlset>", content_type="text/xml")
        case "/maps/list.txt":
            return web.Response(text=f"\ufeff{request.url.origin()}/text-sitemap\n")
        case "/maps/utf16.xml":
            text = "<?xml version='1.0' encoding='UTF-16'?><urlset><url><loc>/utf16-sitemap</loc></url></urlset>"
            return web.Response(body=text.encode("utf-16"), content_type="text/xml")
        case "/maps/flaky.xml":
            if hits[path] < 2:
                raise web.HTTPServiceUnavailable
            found = "<url><loc>/flaky-sitemap</loc></url><url><loc>/bare-and?a=1&b=2</loc></url>"
            return web.Response(text=f"<urlset>{found}</urlset>", content_type="text/xml")
        case "/maps/one.xml.gz":
            body = b"<urlset><url><loc>/orphan</loc><lastmod>2026-01-01</lastmod></url></urlset>"
            return web.Response(body=gzip.compress(body), content_type="application/gzip")
        case "/maps/gone.xml" | "/missing":
            raise web.HTTPNotFound
        case "/":
            return _home()
        case "/logout" | "/bye":
            request.app[SIGNED_IN][0] = False
            return html("Out", "<p>You are logged out.</p>")
        case "/exit":
            return _redirect("/logout")
        case "/account/delete":
            return html("Deleted", "<p>Your account is gone.</p>")
    return (
        _redirects(request)
        or _shapes(request)
        or _kinds(request)
        or _scripts(request)
        or await _troubles(request)
        or html(path.strip("/"), words(path))
    )


def _redirect(target: str, status: int = 302) -> web.Response:
    return web.Response(status=status, headers={"Location": target})


def _redirects(request: web.Request) -> web.Response | None:
    path = request.path
    match path:
        case "/hop0" | "/hop1" | "/hop2":
            return _redirect(f"/hop{int(path[-1]) + 1}", (301, 303, 307)[int(path[-1])])
        case "/loop":
            return _redirect("/loop", 301)
        case "/ping" | "/pong":
            return _redirect("/pong" if path == "/ping" else "/ping", 308)
        case "/elsewhere":
            return _redirect(f"http://localhost:{request.url.port}/plain")
        case "/inward":
            return _redirect(f"http://127.0.0.9:{request.url.port}/plain")
        case "/refreshed":
            return html("Moved", words(path), '<meta http-equiv=refresh content="0;url=/refresh-target">')
        case "/dup":
            page = '<link rel=canonical href="/dup"><title>Dup</title><p>Two addresses.</p><a href="/dup?x=1">2</a>'
            return web.Response(text=page, content_type="text/html")
        case "/base/page":
            return html("Base", words(path) + '<a href="linked">l</a>', '<base href="/base/">')
        case "/unclosed":
            return web.Response(
                text="<title>Open<b><p>words <i>that <table><tr><td>never end", content_type="text/html"
            )
        case "/deep":
            return web.Response(text="<div>" * 5000 + "deep words" + "</div>" * 5000, content_type="text/html")
        case _ if path.startswith("/endless/"):
            return _redirect(f"/endless/{int(path.rsplit('/', 1)[1]) + 1}")
    return None


def _kinds(request: web.Request) -> web.Response | None:
    page = (
        "<html><head><title>Stara</title></head><body><p>Žlahtna šola na Čopovi ulici, od jutra do večera.</p></body>"
    )
    japanese = "<html><head><title>料金</title></head><body><p>電気料金のお知らせです。</p></body></html>"
    given: tuple[bytes, str] | None = None
    match request.path:
        case "/cp1250":
            given = page.encode("cp1250"), "text/html; charset=windows-1250"
        case "/shift-jis":
            given = f"<meta charset=shift_jis>{japanese}".encode("shift_jis"), "text/html"
        case "/says-latin1-is-utf8":
            given = page.encode(), "text/html; charset=iso-8859-1"
        case "/utf16":
            given = page.encode("utf-16"), "text/html"
        case "/html-as-text":
            given = f"<!DOCTYPE html>{page}".encode(), "text/plain"
        case "/html-as-octets":
            given = f"<!DOCTYPE html>{page}".encode(), "application/octet-stream"
        case "/png-as-html":
            given = b"\x89PNG\r\n\x1a\n" + bytes(100), "text/html"
        case "/zip-as-text":
            given = b"PK\x03\x04" + bytes(100), "text/plain"
        case "/pdf-as-html":
            given = pdf("A leaflet", "Call 112."), "text/html"
        case "/data.bin/x":
            given = bytes(range(256)), "application/octet-stream"
        case "/notes.txt":
            given = "Notes\nof a čas".encode(), "text/plain; charset=utf-8"
        case "/report.pdf":
            given = pdf(*_PDF_LINES), "application/pdf"
        case "/locked.pdf":
            key = b"<" + b"00" * 32 + b">"
            given = (
                pdf("x", extra=b"/ID[<00><00>]/Encrypt<</Filter/Standard/V 1/R 2/O%s/U%s/P -4>>" % (key, key)),
                "application/pdf",
            )
        case "/scanned.pdf":
            given = pdf(), "application/pdf"
        case "/torn.pdf":
            given = b"%PDF-1.7\nand nothing of use", "application/pdf"
        case "/empty":
            given = b"", "text/html"
        case "/late.pdf":
            given = b"\r\n\r\n" + pdf("Late, but there."), "application/pdf"
        case "/no-media-type":
            given = words(request.path).encode(), "text"
        case "/long":
            given = f"<p>{'as long as that ' * 140_000}</p>".encode(), "text/html"
        case "/footer":
            given = f"<footer>{words(request.path)}</footer>".encode(), "text/html"
        case "/frames":
            given = b"<html><head><title>F</title></head><frameset><frame src='/frame'></frameset></html>", "text/html"
    return None if given is None else web.Response(body=given[0], headers={"Content-Type": given[1]})


def _shapes(request: web.Request) -> web.Response | None:
    path = request.path
    match path:
        case "/names-canonical":
            return html("A", words(path), "<link rel=canonical href='/only-canonical'>")
        case "/refresh-header":
            answer = html("A", words(path))
            answer.headers["Refresh"] = "0; url=/refresh-header-target"
            return answer
        case "/x-gzip":
            body = gzip.compress(f"<title>X</title>{words(path)}".encode())
            return web.Response(body=body, headers={"Content-Encoding": "x-gzip", "Content-Type": "text/html"})
        case "/shop":
            # Every filter can be put upon every other: 255 lists of the same things.
            more = [{**request.query, name: value} for name, values in _FILTERS.items() for value in values]
            links = "".join(f'<a href="/shop?{urlencode(one)}">{one}</a> ' for one in more)
            return html("Shop", f"<p>A kettle, a lamp, a chair and some thirty other things that we sell.</p>{links}")
    return None


def _scripts(request: web.Request) -> web.Response | None:
    """Pages of JavaScript. Each says in its own way what `words` says."""
    path = request.path
    said = json.dumps(words(path) * 2)
    shell, body = "<div id=app></div>", ""
    match path:
        case "/js-only":
            links = "".join(f'<a href="/{linked}">{linked}</a> ' for linked in _LINKED_BY_SCRIPTS)
            body = f"setTimeout(() => app.innerHTML = {said} + {json.dumps(links)}, 30)"
        case "/js-closed-shadow":
            inside = json.dumps(words(path) * 2 + "<a href=/js-in-shadow>in</a>")
            body = f"app.attachShadow({{mode: 'closed'}}).innerHTML = {inside}"
        case "/js-scrolls":
            body = (
                f"app.innerHTML = {said}; const more = n => {{ const one = document.createElement('div');"
                "one.style.height = '900px'; one.textContent = 'Entry ' + n + ' of the list';"
                "if (n === 5) one.innerHTML += '<a href=/js-far-down>far down</a>'; app.append(one);"
                "if (n < 5) new IntersectionObserver((seen, watch) => { if (seen[0].isIntersecting) {"
                "watch.disconnect(); more(n + 1); } }).observe(one); }; more(1)"
            )
        case "/js-routes":
            body = (
                f"const show = () => app.innerHTML = {said} + 'Route ' + location.hash"
                ' + \'<a href="#/prices">Prices</a><a href="#top">Top</a>\';'
                "addEventListener('hashchange', show); show()"
            )
        case "/js-late":
            body = f"app.textContent = 'Loading…'; setTimeout(() => app.innerHTML = {said}, 700)"
        case "/js-stays":
            body = f"app.innerHTML = {said}; alert('x'); onbeforeunload = () => 'stay'"
        case "/js-menu":
            shell = words(path) * 5 + "<nav id=app></nav>"
            body = "app.innerHTML = '<a href=/js-by-menu>by the menu</a>'"
        case "/js-framed":
            shell = f"<header>{'<p>What stands on every page of ours.</p>' * 12}</header><div id=app></div>"
            body = f"app.innerHTML = {said}"
        case _:
            return None
    text = f"<title>App</title>{shell}<script>const app = document.getElementById('app'); {body}</script>"
    return web.Response(text=text, content_type="text/html")


_LINKED_BY_SCRIPTS = (
    "js-linked", "js-stays", "js-closed-shadow", "js-scrolls", "js-routes", "js-late", "js-menu", "js-framed",
)  # fmt: skip


async def _troubles(request: web.Request) -> web.StreamResponse | None:
    path, hits = request.path, request.app[HITS]
    match path:
        case "/flaky" | "/not-http" | "/always-torn" if path != "/flaky" or hits[path] < 3:
            assert request.transport is not None
            if path == "/not-http":
                request.transport.write(b"this is no HTTP\r\n\r\n")  # type: ignore[attr-defined]
            request.transport.close() if path == "/not-http" else request.transport.abort()
            return web.Response()
        case "/busy" if hits[path] < 2:
            return web.Response(status=429, headers={"Retry-After": "1"})
        case "/broken-once" if hits[path] < 2:
            return web.Response(status=500)
        case "/overloaded" if hits[path] < 2:
            return web.Response(status=503, headers={"Retry-After": "0"})
        case "/slow":
            await asyncio.sleep(0.5)
        case "/gone":
            return web.Response(status=410)
        case "/broken":
            return web.Response(status=500, text="<p>Internal error</p>", content_type="text/html")
        case "/basic-auth":
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        case "/vip":
            return web.Response(status=403, text="<p>For the board only.</p>", content_type="text/html")
        case "/bomb":
            packed = zlib.compressobj(wbits=31)
            body = packed.compress(b"<p>" + b"a" * 64_000_000) + packed.flush()
            return web.Response(body=body, headers={"Content-Encoding": "gzip", "Content-Type": "text/html"})
        case "/bad-gzip":
            return web.Response(body=b"no gzip", headers={"Content-Encoding": "gzip", "Content-Type": "text/html"})
        case "/big" | "/big-declared":
            return await _big(request, declared=path == "/big-declared")
    return None


async def _big(request: web.Request, *, declared: bool) -> web.StreamResponse:
    """64 MB that nobody should take whole."""
    response = web.StreamResponse(headers={"Content-Type": "text/html"})
    if declared:
        response.content_length = 64_000_000
    await response.prepare(request)
    for _ in range(64):
        await response.write(b"x" * 1_000_000)
        request.app[SENT][request.path] += 1_000_000
    return response


def _members(request: web.Request) -> web.Response:
    if request.app[SIGNED_IN][0] and request.cookies.get("session") == "good":
        return html("Members", words(request.path))
    match request.path:
        case "/members/soft":
            form = '<p>Please log in to go on.</p><form><input name=u><input type="password" name=p></form>'
            return html("Log in", form)
        case "/members/clears":
            response = html("Welcome", "<p>Please sign in to see this.</p>")
            response.del_cookie("session")
            return response
    return _redirect(f"/login?next={request.path}")
