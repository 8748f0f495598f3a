"""A small member site to try the crawler on: `python examples/member_site.py --port 8099`.

Public pages, member pages behind a session cookie, one member page that only JavaScript fills, a logout that really
ends the session. Log in with POST /login (user "ana", password "switchroom"): the reply sets the cookie `session`.
Add `?as=json` to get the cookie as a Unity-style JSON array, ready to post to the sidecar.
"""

from __future__ import annotations

import argparse
import hmac
import json
import secrets
import socket
from html import escape

from aiohttp import web
from aiohttp.typedefs import Handler

USER, PASSWORD = "ana", "switchroom"
COOKIE = "session"
SESSIONS = web.AppKey("sessions", set[str])

PUBLIC = {
    "/": (
        "Harbour Energy",
        "<p>Harbour Energy brings power and heat to 40,000 homes on the coast. Our offices are open on weekdays.</p>"
        '<p>See our <a href="/prices">prices</a> or enter the <a href="/members/">member area</a>.</p>',
    ),
    "/prices": (
        "Prices",
        "<p>The prices hold from January, taxes included.</p><table><tr><th>Tariff</th><th>Price a kWh</th></tr>"
        "<tr><td>Day</td><td>0.19</td></tr><tr><td>Night</td><td>0.11</td></tr></table>",
    ),
}
MEMBERS = {
    "/members/": (
        "Member area",
        "<p>Welcome back. These pages are for members of Harbour Energy only.</p>"
        '<ul><li><a href="/members/outages">Planned outages</a></li>'
        '<li><a href="/members/refunds">Refund rules</a></li>'
        '<li><a href="/members/balance">Your balance</a></li></ul><p><a href="/logout">Log out</a></p>',
    ),
    "/members/outages": (
        "Planned outages",
        "<h2>This week</h2><p>On Thursday from 9 to 11 the power is off in Pier Street while a transformer is "
        'replaced.</p><p>Back to the <a href="/members/">member area</a>.</p>',
    ),
    "/members/refunds": (
        "Refund rules",
        "<h2>When we pay back</h2><p>An outage of more than 12 hours is paid back with 35 euros on the next bill, "
        "without a form to fill in.</p>",
    ),
}
BALANCE_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Your balance</title></head>
<body><div id="app"></div><script>
fetch('/api/balance', {credentials: 'same-origin'}).then(r => r.json()).then(data => {
  const app = document.getElementById('app');
  app.innerHTML = '<h1>Your balance</h1><table><tr><th>Month</th><th>Amount</th></tr>' +
    data.months.map(m => `<tr><td>${m.month}</td><td>${m.amount} EUR</td></tr>`).join('') +
    '</table><p>Your account is in credit by ' + data.credit + ' euros, which the next bill takes into account.</p>';
});
</script></body></html>"""
BALANCE = {
    "credit": "48.20",
    "months": [{"month": "September", "amount": "61.40"}, {"month": "October", "amount": "57.10"}],
}


def page(title: str, body: str) -> web.Response:
    html = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title></head><body>'
        f"<main><h1>{escape(title)}</h1>{body}</main></body></html>"
    )
    return web.Response(text=html, content_type="text/html")


def signed_in(request: web.Request) -> bool:
    given = request.cookies.get(COOKIE, "")
    return any(hmac.compare_digest(given, session) for session in request.app[SESSIONS])


@web.middleware
async def members_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.path.startswith("/members") and not signed_in(request):
        raise web.HTTPFound(f"/login?next={request.path}")
    return await handler(request)


async def content(request: web.Request) -> web.Response:
    known = PUBLIC.get(request.path) or MEMBERS.get(request.path)
    if known is None:
        raise web.HTTPNotFound
    return page(*known)


async def login_form(_: web.Request) -> web.Response:
    return page(
        "Log in",
        '<form method="post"><label>User <input name="user"></label> <label>Password '
        '<input name="password" type="password"></label> <button>Log in</button></form>',
    )


async def login(request: web.Request) -> web.Response:
    form = await request.post()
    right = [
        hmac.compare_digest(str(form.get(field, "")), expected)
        for field, expected in (("user", USER), ("password", PASSWORD))
    ]
    if not all(right):
        raise web.HTTPForbidden(text="wrong user or password")
    session = secrets.token_urlsafe(24)
    request.app[SESSIONS].add(session)
    if request.query.get("as") != "json":
        answer: web.Response = web.HTTPSeeOther("/members/")
    else:
        unity = {"Name": COOKIE, "Value": session, "Domain": request.url.host, "Path": "/", "Secure": False}
        answer = web.json_response([unity | {"HttpOnly": True, "ExpirationDate": 0, "IsValid": True}])
    answer.set_cookie(COOKIE, session, httponly=True, samesite="Lax")
    return answer


async def logout(request: web.Request) -> web.Response:
    request.app[SESSIONS].discard(request.cookies.get(COOKIE, ""))
    answer = page("Logged out", "<p>You are logged out.</p>")
    answer.del_cookie(COOKIE)
    return answer


async def balance_page(_: web.Request) -> web.Response:
    return web.Response(text=BALANCE_PAGE, content_type="text/html")


async def balance(request: web.Request) -> web.Response:
    if not signed_in(request):
        return web.json_response({"error": "log in first"}, status=401)
    return web.Response(text=json.dumps(BALANCE), content_type="application/json")


async def robots(request: web.Request) -> web.Response:
    return web.Response(text=f"User-agent: *\nDisallow: /private/\nSitemap: {request.url.origin()}/sitemap.xml\n")


async def sitemap(request: web.Request) -> web.Response:
    entries = "".join(f"<url><loc>{request.url.origin()}{path}</loc></url>" for path in (*PUBLIC, *MEMBERS))
    xml = f'<?xml version="1.0"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{entries}</urlset>'
    return web.Response(text=xml, content_type="application/xml")


def build() -> web.Application:
    app = web.Application(middlewares=[members_only])
    app[SESSIONS] = set()
    app.router.add_get("/login", login_form)
    app.router.add_post("/login", login)
    app.router.add_get("/logout", logout)
    app.router.add_get("/members/balance", balance_page)
    app.router.add_get("/api/balance", balance)
    app.router.add_get("/robots.txt", robots)
    app.router.add_get("/sitemap.xml", sitemap)
    app.router.add_get("/{path:.*}", content)
    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8099, help="0 takes a free one")
    arguments = parser.parse_args()
    listening = socket.create_server((arguments.host, arguments.port))
    url = f"http://{arguments.host}:{listening.getsockname()[1]}"
    web.run_app(build(), sock=listening, print=lambda _: print(f"ready {url}", flush=True))


if __name__ == "__main__":
    main()
