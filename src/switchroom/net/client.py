"""The one guarded way out over HTTP: checked and pinned addresses, redirects by hand, caps on size and time."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from switchroom.net.charset import decode_text
from switchroom.net.guard import Guard, GuardedResolver, OutboundError

log = logging.getLogger(__name__)

MAX_REDIRECTS = 10
_CONNECT_TIMEOUT_S = 10.0
_KEPT_LITERALS = 4096
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ORIGIN_BOUND = (hdrs.AUTHORIZATION, hdrs.COOKIE, hdrs.PROXY_AUTHORIZATION)
_BODY_BOUND = (hdrs.CONTENT_TYPE, hdrs.CONTENT_LENGTH, hdrs.CONTENT_ENCODING)


class CookieSource(Protocol):
    """Gives cookies to each hop of a request by the hop's own URL, and takes what the hop sets."""

    def header_for(self, url: URL) -> str:
        """The Cookie header's value for `url`, empty where none applies."""

    def absorb(self, url: URL, set_cookie: Sequence[str]) -> None:
        """Take the Set-Cookie lines that `url` answered."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One redirect on the way: the URL that answered with `status`."""

    status: int
    url: str


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer. `url` is where the redirects ended; `body` is decompressed; header names are case-insensitive."""

    status: int
    url: str
    headers: CIMultiDictProxy[str]
    body: bytes
    redirects: tuple[Hop, ...]

    @property
    def content_type(self) -> str:
        """The media type alone, lower-case, empty where none was sent."""
        return self.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()

    def text(self) -> str:
        """The body as text; see `decode_text`."""
        return decode_text(self.body, self.headers.get(hdrs.CONTENT_TYPE, ""))


class GuardedClient:
    """An HTTP client that reaches public addresses only, and what `allow` names (see `Guard`).

    Use as `async with GuardedClient(...) as client`, or call `close()`. It keeps no cookies of its own.
    """

    def __init__(
        self,
        allow: Sequence[str] = (),
        *,
        user_agent: str = "Switchroom/0.1",
        connections: int = 64,
        connections_per_host: int = 16,
    ) -> None:
        self.guard = Guard(allow)
        self._user_agent = user_agent
        self._limits = (connections, connections_per_host)
        self._session: aiohttp.ClientSession | None = None
        self._literals: set[str] = set()  # permitted before; what is permitted does not change

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the open connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def fetch(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        cookies: CookieSource | None = None,
        max_bytes: int = 8_000_000,
        timeout_s: float = 30.0,
        follow: bool = True,
        cut: bool = False,
        may_follow: Callable[[URL], bool] | None = None,
    ) -> Fetched:
        """Send a request and read the whole answer.

        `max_bytes` caps the body after decompression (a longer one is an error, or with `cut` its rest is not read),
        `timeout_s` everything together, redirects included (they are not followed with `follow=False`, nor where
        `may_follow` says no to their target: the redirect is the answer then).
        `Authorization` and `Cookie` headers stay with the first origin; `cookies` is asked again for each hop. An HTTP
        error status is an answer, not an error.
        Raises `OutboundError`, whose `cause` names what went wrong.
        """
        send = CIMultiDict(headers or {})
        send.setdefault(hdrs.USER_AGENT, self._user_agent)
        try:
            async with asyncio.timeout(timeout_s):
                permit = (may_follow or _always) if follow else _never
                return await self._hops(parse_url(url), method.upper(), send, body, cookies, max_bytes, permit, cut)
        except TimeoutError:
            raise OutboundError("timeout", f"{_host(url)} did not answer in full within {timeout_s:g} s.") from None

    async def _hops(
        self,
        url: URL,
        method: str,
        headers: CIMultiDict[str],
        body: bytes | None,
        cookies: CookieSource | None,
        max_bytes: int,
        follow: Callable[[URL], bool],
        cut: bool,
    ) -> Fetched:
        hops: list[Hop] = []
        visited: set[tuple[str, str, str]] = set()
        while True:
            cookie = cookies.header_for(url) if cookies is not None else headers.get(hdrs.COOKIE, "")
            # The same URL may redirect to itself once it has set a cookie; the same again is a loop.
            step = (method, str(url), cookie)
            if step in visited:
                raise OutboundError("redirect_loop", f"{url.host} redirects in a circle.")
            visited.add(step)
            status, got, content, target = await self._one(
                url, method, headers, cookie, body, cookies, max_bytes, follow, cut
            )
            if target is None:
                return Fetched(status, str(url), got, content, tuple(hops))
            hops.append(Hop(status, str(url)))
            if len(hops) > MAX_REDIRECTS:
                raise OutboundError("too_many_redirects", f"{url.host} redirects more than {MAX_REDIRECTS} times.")
            if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
                method, body = "GET", None
                for name in _BODY_BOUND:
                    headers.popall(name, None)
            if target.origin() != url.origin():
                for name in _ORIGIN_BOUND:
                    headers.popall(name, None)
            url = target

    async def _one(
        self,
        url: URL,
        method: str,
        headers: CIMultiDict[str],
        cookie: str,
        body: bytes | None,
        cookies: CookieSource | None,
        max_bytes: int,
        follow: Callable[[URL], bool],
        cut: bool,
    ) -> tuple[int, CIMultiDictProxy[str], bytes, URL | None]:
        assert url.host is not None
        # aiohttp asks no resolver about an address literal, so it is checked here; names are checked at connect.
        if (url.host[0].isdigit() or ":" in url.host) and url.host not in self._literals:
            await self.guard.resolve(url.host, url.port or 0)
            if len(self._literals) < _KEPT_LITERALS:
                self._literals.add(url.host)
        send = headers.copy()
        if cookie:
            send[hdrs.COOKIE] = cookie
        try:
            async with self._open().request(method, url, headers=send, data=body, allow_redirects=False) as answer:
                if cookies is not None and (lines := answer.headers.getall(hdrs.SET_COOKIE, [])):
                    cookies.absorb(url, lines)
                location = answer.headers.get(hdrs.LOCATION)
                if location and answer.status in _REDIRECTS and follow is not _never:
                    target = parse_url(location, url)
                    # The body of a redirect is of no use; a long one costs the connection instead of the wait.
                    return answer.status, answer.headers, b"", target if follow(target) else None
                body_read = await _read(answer, max_bytes, url, cut)
                if answer.headers.get(hdrs.CONTENT_ENCODING, "").strip().lower() == "x-gzip":
                    body_read = _gunzip(body_read, max_bytes, url)
                return answer.status, answer.headers, body_read, None
        except aiohttp.ClientError as error:
            raise _translate(error, url) from error

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            total, per_host = self._limits
            connector = aiohttp.TCPConnector(
                resolver=GuardedResolver(self.guard), limit=total, limit_per_host=per_host, ttl_dns_cache=60
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, connect=_CONNECT_TIMEOUT_S),
                trust_env=False,
                max_line_size=16_384,
                max_field_size=65_536,
            )
        return self._session


def _always(_: URL) -> bool:
    return True


def _never(_: URL) -> bool:
    return False


def parse_url(text: str, base: URL | None = None) -> URL:
    """An absolute http(s) URL without fragment and user info; anything else raises `OutboundError("bad_url")`."""
    try:
        url = URL(text.strip())
        if base is not None:
            url = base.join(url)
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError(text)
        return url.with_fragment(None).with_user(None) if url.fragment or url.user else url
    except (ValueError, TypeError) as error:
        raise OutboundError("bad_url", "Only absolute http and https URLs can be fetched.") from error


async def _read(answer: aiohttp.ClientResponse, max_bytes: int, url: URL, cut: bool) -> bytes:
    declared = answer.content_length
    if not cut and declared is not None and declared > max_bytes and answer.method != "HEAD":
        raise OutboundError("too_large", f"{url.host} sends {declared} bytes; the limit is {max_bytes}.")
    parts: list[bytes] = []
    size = 0
    async for chunk in answer.content.iter_any():
        size += len(chunk)
        if size > max_bytes and cut:
            parts.append(chunk)
            answer.close()
            return b"".join(parts)[:max_bytes]
        if size > max_bytes:
            raise OutboundError("too_large", f"{url.host} sends more than {max_bytes} bytes.")
        parts.append(chunk)
    return b"".join(parts) if len(parts) != 1 else parts[0]


def _gunzip(body: bytes, max_bytes: int, url: URL) -> bytes:
    """The old name of gzip (RFC 9110 §8.4.1.3), which aiohttp does not unpack."""
    unpack = zlib.decompressobj(wbits=31)
    try:
        plain = unpack.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise OutboundError("decode", f"{url.host} sends a body that does not match its Content-Encoding.") from error
    if len(plain) > max_bytes:
        raise OutboundError("too_large", f"{url.host} sends more than {max_bytes} bytes.")
    return plain


def _translate(error: aiohttp.ClientError, url: URL) -> OutboundError:
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OutboundError):
            return inner
        inner = inner.__cause__
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return OutboundError("dns", f"The name {url.host} cannot be resolved.")
    if isinstance(error, aiohttp.ClientSSLError | aiohttp.ClientConnectorCertificateError):
        return OutboundError("tls", f"No trusted TLS connection to {url.host} could be made.")
    if isinstance(error, aiohttp.ServerTimeoutError):
        return OutboundError("timeout", f"{url.host} did not take the connection within {_CONNECT_TIMEOUT_S:g} s.")
    if isinstance(error, aiohttp.ClientConnectorError):
        return OutboundError("connect", f"{url.host} does not take connections on port {url.port}.")
    if isinstance(error, aiohttp.InvalidURL):
        return OutboundError("bad_url", "Only absolute http and https URLs can be fetched.")
    if isinstance(error, aiohttp.ClientPayloadError) and "ncod" in str(error):
        return OutboundError("decode", f"{url.host} sends a body that does not match its Content-Encoding.")
    if isinstance(error, aiohttp.ClientOSError | aiohttp.ServerDisconnectedError):
        return OutboundError("connect", f"{url.host} broke the connection off.")
    return OutboundError("protocol", f"{url.host} does not answer in proper HTTP.")


def _host(url: str) -> str:
    try:
        return URL(url).host or "the host"
    except ValueError:
        return "the host"
