"""The cookies of one crawl: which go to a URL (RFC 6265 §5.4), and what the site's Set-Cookie answers change."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import urlsplit

from yarl import URL

from switchroom.crawler.cookies import Cookie, parse_set_cookie

Key = tuple[str, str, str, str | None]


class Jar:
    """Cookies by domain. `changes` holds what sites set (a cookie) or deleted (None) since the last `take_changes()`.

    `cleared` counts, a host, the cookies that we had sent and that the host then deleted: the usual sign of a session
    that it does not honour any more.
    """

    def __init__(self, cookies: Iterable[Cookie] = (), *, clock: Callable[[], float] = time.time) -> None:
        self._by_domain: dict[str, dict[Key, Cookie]] = {}
        self._clock = clock
        self._changes: dict[Key, Cookie | None] = {}
        self.cleared: dict[str, int] = {}
        self.revision = 0
        """Grows with every change that a site makes."""
        for cookie in cookies:
            self._put(cookie)

    def __len__(self) -> int:
        return sum(len(held) for held in self._by_domain.values())

    def all(self) -> list[Cookie]:
        """Every cookie that has not expired."""
        now = self._clock()
        return [c for held in self._by_domain.values() for c in held.values() if c.expires is None or c.expires > now]

    def matching(self, url: URL) -> list[Cookie]:
        """The cookies that belong to `url`, longest path first."""
        host = (url.raw_host or "").lower()
        host = f"[{host}]" if ":" in host else host
        path = url.raw_path or "/"
        # Loopback counts as trustworthy for `Secure`, as browsers have it.
        secure = url.scheme == "https" or host in ("localhost", "127.0.0.1", "[::1]") or host.endswith(".localhost")
        now = self._clock()
        found = [
            cookie
            for domain in _domains_of(host)
            for cookie in self._by_domain.get(domain, {}).values()
            if (secure or not cookie.secure)
            and _path_matches(path, cookie.path)
            and (cookie.expires is None or cookie.expires > now)
            and (cookie.partition_key is None or _same_site(host, cookie.partition_key))
        ]
        found.sort(key=lambda cookie: -len(cookie.path))
        return found

    def header_for(self, url: URL) -> str:
        """The Cookie header's value for `url`, empty where none applies."""
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.matching(url)) if self._by_domain else ""

    def absorb(self, url: URL, set_cookie: Sequence[str]) -> None:
        """Take the Set-Cookie lines that `url` answered."""
        host = (url.raw_host or "").lower()
        for line in set_cookie:
            parsed = parse_set_cookie(line, host, url.raw_path or "/", self._clock())
            if parsed is None:
                continue
            cookie, deletes = parsed
            if cookie.secure and url.scheme != "https" and host not in ("localhost", "127.0.0.1"):
                continue
            if deletes:
                self.remove(cookie.key, host)
            elif self._by_domain.get(cookie.domain, {}).get(cookie.key) != cookie:
                self.put(cookie)

    def put(self, cookie: Cookie) -> None:
        """Take a cookie that a site set."""
        self._put(cookie)
        self._changes[cookie.key] = cookie
        self.revision += 1

    def remove(self, key: Key, host: str) -> None:
        """Delete a cookie because `host` said so."""
        if self._by_domain.get(key[1], {}).pop(key, None) is not None:
            self.cleared[host] = self.cleared.get(host, 0) + 1
            self._changes[key] = None
            self.revision += 1

    def take_changes(self) -> dict[Key, Cookie | None]:
        """What sites changed since the last call."""
        changes, self._changes = self._changes, {}
        return changes

    def _put(self, cookie: Cookie) -> None:
        self._by_domain.setdefault(cookie.domain, {})[cookie.key] = cookie


def browser_cookie(cookie: Cookie) -> dict[str, object]:
    """The form that Playwright's `add_cookies` takes."""
    shaped: dict[str, object] = {
        "name": cookie.name,
        "value": cookie.value,
        "domain": cookie.domain,
        "path": cookie.path,
        "expires": -1 if cookie.expires is None else cookie.expires,
        "httpOnly": cookie.http_only,
        "secure": cookie.secure,
    }
    if cookie.same_site is not None:
        shaped["sameSite"] = cookie.same_site
    if cookie.partition_key is not None:
        shaped["partitionKey"] = cookie.partition_key
    return shaped


def _domains_of(host: str) -> list[str]:
    """The `domain` values that cover `host`: itself, and each of its parents with a dot."""
    domains = [host, "." + host]
    rest = host
    while "." in rest and not host[-1].isdigit():
        rest = rest.partition(".")[2]
        domains.append("." + rest)
    return domains


def _path_matches(path: str, cookie_path: str) -> bool:
    if path == cookie_path or cookie_path == "/":
        return True
    return path.startswith(cookie_path) and (cookie_path.endswith("/") or path[len(cookie_path)] == "/")


def _same_site(host: str, partition: str) -> bool:
    site = urlsplit(partition).hostname or partition
    return host == site or host.endswith("." + site)
