"""The guarded client and the SOCKS server against real sockets and a real HTTP site."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from switchroom.net import Guard, GuardedClient, GuardedSocks, OutboundError, parse_url
from switchroom.net.charset import decode_text
from switchroom.net.guard import is_public

PRIVATE = [
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "fec0::1", "ff02::1", "::ffff:127.0.0.1",
    "::ffff:10.0.0.1", "2002:7f00:0001::", "64:ff9b::7f00:1", "64:ff9b:1::1", "::127.0.0.1", "192.0.2.1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    assert not Guard().permits("name.example", address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "1.1.1.1", "2606:4700::1111", "64:ff9b::101:101", "2002:101:101::"]
)
def test_public_addresses(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


def test_allow_by_host_suffix_address_and_network() -> None:
    guard = Guard(["intranet.example", "*.corp.example", "10.0.0.0/8", "127.0.0.1", "fd00::/8"])
    assert guard.permits("intranet.example.", "192.168.0.9")
    assert guard.permits("a.corp.example", "192.168.0.9")
    assert not guard.permits("corp.example.evil.example", "192.168.0.9")
    assert guard.permits("any.example", "10.9.9.9")
    assert guard.permits("any.example", "::ffff:127.0.0.1")
    assert guard.permits("any.example", "fd12::1")
    assert not guard.permits("any.example", "192.168.0.9")
    assert not guard.permits("any.example", "not-an-address")


class Jar:
    """A cookie source that records what is asked and given."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.got: list[str] = []

    def header_for(self, url: URL) -> str:
        self.asked.append(str(url.path))
        return "sid=1" if url.path == "/redirect" else ""

    def absorb(self, url: URL, set_cookie: list[str]) -> None:
        self.got += set_cookie


@pytest.fixture
async def site() -> AsyncIterator[TestServer]:
    async def echo(request: web.Request) -> web.Response:
        return web.json_response(
            {"method": request.method, "headers": dict(request.headers), "body": (await request.read()).decode()}
        )

    async def redirect(request: web.Request) -> web.Response:
        response = web.Response(status=int(request.query.get("status", "302")))
        response.headers["Location"] = request.query.get("to", "/echo")
        response.headers["Set-Cookie"] = "seen=1"
        return response

    async def bomb(_: web.Request) -> web.Response:
        body = await asyncio.to_thread(gzip.compress, b"0" * 20_000_000)
        return web.Response(body=body, headers={"Content-Encoding": "gzip"})

    async def slow(_: web.Request) -> web.Response:
        await asyncio.sleep(5)
        return web.Response()

    async def bad_gzip(_: web.Request) -> web.Response:
        return web.Response(body=b"this is not gzip", headers={"Content-Encoding": "gzip"})

    async def circle(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/circle"})

    async def endless(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": f"/endless/{int(request.match_info['n']) + 1}"})

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(100):
            await response.write(b"x" * 100)
            await asyncio.sleep(0.1)
        return response

    app = web.Application()
    app.router.add_route("*", "/echo", echo)
    app.router.add_route("*", "/redirect", redirect)
    app.router.add_get("/bomb", bomb)
    app.router.add_get("/slow", slow)
    app.router.add_get("/bad-gzip", bad_gzip)
    app.router.add_get("/drip", drip)
    app.router.add_get("/circle", circle)
    app.router.add_get("/endless/{n}", endless)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    yield server
    await server.close()


@pytest.fixture
async def client() -> AsyncIterator[GuardedClient]:
    async with GuardedClient(["127.0.0.0/8"]) as guarded:
        yield guarded


async def _cause(client: GuardedClient, url: str, **options: object) -> str:
    with pytest.raises(OutboundError) as caught:
        await client.fetch(url, **options)  # type: ignore[arg-type]
    return caught.value.cause


async def test_loopback_is_refused_in_every_spelling(site: TestServer) -> None:
    async with GuardedClient() as client:
        for host in ("127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]", "0"):
            assert await _cause(client, f"http://{host}:{site.port}/echo") in ("address_refused", "dns", "bad_url"), (
                host
            )
        assert await _cause(client, "http://169.254.169.254/latest/meta-data") == "address_refused"


async def test_redirect_to_a_private_address_is_refused(site: TestServer) -> None:
    async with GuardedClient(["127.0.0.1"]) as client:
        for target in ("http://10.0.0.1/", "http://[::1]/", "http://192.168.0.1:8080/"):
            assert await _cause(client, str(site.make_url("/redirect").with_query(to=target))) == "address_refused"
        assert await _cause(client, str(site.make_url("/redirect").with_query(to="file:///etc/passwd"))) == "bad_url"


async def test_cookies_are_asked_for_each_hop(site: TestServer, client: GuardedClient) -> None:
    jar = Jar()
    got = await client.fetch(str(site.make_url("/redirect")), cookies=jar)
    assert jar.asked == ["/redirect", "/echo"]
    assert jar.got == ["seen=1"]
    assert b"sid=1" not in got.body
    assert [hop.status for hop in got.redirects] == [302]
    assert got.url == str(site.make_url("/echo"))


async def test_credentials_stay_with_the_first_origin(site: TestServer, client: GuardedClient) -> None:
    secret = {"Authorization": "Bearer t", "Cookie": "a=1", "X-Plain": "kept"}
    other = str(site.make_url("/echo").with_host("127.0.0.2"))
    away = await client.fetch(str(site.make_url("/redirect").with_query(to="/echo")), headers=secret)
    assert b"Bearer t" in away.body
    async with GuardedClient(["127.0.0.0/8"]) as fresh:
        cause = await _cause(fresh, str(site.make_url("/redirect").with_query(to=other)), headers=secret)
    assert cause == "connect"  # nothing listens there; what would have been sent is checked below
    moved = site.make_url("/echo").with_host("localhost")
    got = await client.fetch(str(site.make_url("/redirect").with_query(to=str(moved))), headers=secret)
    assert b"Bearer t" not in got.body
    assert b"a=1" not in got.body
    assert b"kept" in got.body


async def test_methods_over_redirects(site: TestServer, client: GuardedClient) -> None:
    for status, method in ((301, "GET"), (302, "GET"), (303, "GET"), (307, "POST"), (308, "POST")):
        url = str(site.make_url("/redirect").with_query(status=str(status)))
        got = await client.fetch(url, method="POST", body=b"data", headers={"Content-Type": "text/plain"})
        assert f'"method": "{method}"' in got.text()
        assert ('"body": "data"' in got.text()) == (method == "POST")


async def test_caps_and_causes(site: TestServer, client: GuardedClient) -> None:
    base = str(site.make_url("/"))
    assert await _cause(client, base + "bomb", max_bytes=1_000_000) == "too_large"
    cut = await client.fetch(base + "bomb", max_bytes=1_000_000, cut=True)
    assert (cut.status, len(cut.body)) == (200, 1_000_000)
    assert await _cause(client, base + "slow", timeout_s=0.2) == "timeout"
    assert await _cause(client, base + "drip", timeout_s=0.4) == "timeout"
    assert await _cause(client, base + "bad-gzip") == "decode"
    assert await _cause(client, base + "circle") == "redirect_loop"
    assert await _cause(client, base + "endless/1") == "too_many_redirects"
    assert await _cause(client, "ftp://127.0.0.1/") == "bad_url"
    assert await _cause(client, "http://no-such-name.invalid/") == "dns"
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert await _cause(client, f"http://127.0.0.1:{unused.getsockname()[1]}/") == "connect"


async def test_not_http_is_named(client: GuardedClient) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert await _cause(client, f"http://127.0.0.1:{port}/") == "protocol"


def test_parse_url_drops_fragment_and_user() -> None:
    assert str(parse_url("https://user:pw@example.com/a#b")) == "https://example.com/a"
    for bad in ("", "example.com", "javascript:alert(1)", "http://", "//x", "http://[::1", "mailto:a@b"):
        with pytest.raises(OutboundError):
            parse_url(bad)


@pytest.mark.parametrize(
    ("body", "declared", "text"),
    [
        ("čaj".encode(), "text/html; charset=iso-8859-1", "čaj"),
        ("čaj in žemlja".encode("cp1250"), "text/html; charset=windows-1250", "čaj in žemlja"),
        (
            b'<meta charset="windows-1250"><p>' + "šola".encode("cp1250"),
            "text/html",
            '<meta charset="windows-1250"><p>šola',
        ),
        ("\ufeffža".encode("utf-16-le"), "text/html; charset=utf-8", "ža"),
        (b"caf\xe9", "text/html; charset=no-such", "café"),
        (b"\x93quoted\x94", "text/html; charset=iso-8859-1", "“quoted”"),
        ("日本語のページ".encode("iso2022_jp"), "text/html; charset=iso-2022-jp", "日本語のページ"),
        (
            "日本語のページです。これは長い文章です。".encode("shift_jis"),
            "",
            "日本語のページです。これは長い文章です。",
        ),
    ],
)
def test_charsets(body: bytes, declared: str, text: str) -> None:
    assert decode_text(body, declared) == text


async def _socks(port: int, request: bytes) -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\x05\x01\x00")
    assert await reader.readexactly(2) == b"\x05\x00"
    writer.write(request)
    return await reader.readexactly(10), reader, writer


async def test_socks_connects_what_is_allowed_and_refuses_the_rest(site: TestServer) -> None:
    port = site.port or 0
    by_name = b"\x05\x01\x00\x03\x09localhost" + port.to_bytes(2, "big")
    by_address = b"\x05\x01\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big")
    open_socks = await GuardedSocks(Guard(["127.0.0.1"])).start()
    shut_socks = await GuardedSocks(Guard()).start()
    try:
        for request in (by_name, by_address):
            reply, reader, writer = await _socks(open_socks.port, request)
            assert reply[1] == 0
            writer.write(b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b"200 OK" in await reader.read(65_536)
            writer.close()
            reply, _, writer = await _socks(shut_socks.port, request)
            assert reply[1] == 2
            writer.close()
        assert shut_socks.refused == 2
        reply, _, writer = await _socks(open_socks.port, b"\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50")
        assert reply[1] == 7
        writer.close()
    finally:
        await open_socks.close()
        await shut_socks.close()
