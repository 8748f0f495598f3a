"""What `SWITCHROOM_STORE_URL` may say: one server, a Sentinel group, or a Cluster."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from redis.asyncio.connection import parse_url

DEFAULT_PORT = 6379
SENTINEL_PORT = 26379

Kind = Literal["server", "sentinel", "cluster"]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is: a socket path, or a host and port with optional TLS and credentials."""

    path: str | None
    host: str
    port: int
    username: str | None
    password: str | None
    database: int
    tls: bool

    @classmethod
    def from_url(cls, url: str) -> Address:
        """Reads `redis://`, `rediss://` or `unix://` (redis-py's spelling)."""
        options: dict[str, Any] = dict(parse_url(url))
        return cls(
            path=options.get("path"),
            host=options.get("host") or "localhost",
            port=int(options.get("port") or DEFAULT_PORT),
            username=options.get("username"),
            password=options.get("password"),
            database=int(options.get("db") or 0),
            tls=url.startswith("rediss://"),
        )

    def at(self, host: str, port: int) -> Address:
        """Another server that takes the same credentials."""
        return replace(self, host=host, port=port)

    def __str__(self) -> str:
        """Never with the credentials."""
        return self.path or f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Target:
    """A store: `seeds` is its one server, its sentinels, or the nodes of a cluster that are asked first.

    `service` is the name by which the sentinels know the primary, and `primary` what its credentials and database are.
    """

    kind: Kind
    seeds: tuple[Address, ...]
    primary: Address
    service: str = ""

    @classmethod
    def from_url(cls, url: str) -> Target:
        """Reads, besides what `Address` reads (`rediss` in place of `redis` for TLS everywhere):

        - `redis+cluster://[user:password@]host:port,host:port/`
        - `redis+sentinel://[user:password@]host:port,host:port/service[/database][?sentinel_password=…]`

        Raises `ValueError` with what is wrong.
        """
        scheme, _, kind = urlsplit(url).scheme.partition("+")
        if not kind:
            address = Address.from_url(url)
            return cls("server", (address,), address)
        if scheme not in ("redis", "rediss") or kind not in ("cluster", "sentinel"):
            raise ValueError(
                "a store's URL begins with redis://, rediss://, unix://, redis+cluster://, redis+sentinel://"
            )
        parts = urlsplit(url)
        user_info, _, hosts = parts.netloc.rpartition("@")
        username, _, password = user_info.partition(":")
        primary = Address(
            path=None,
            host="",
            port=0,
            username=unquote(username) or None,
            password=unquote(password) or None,
            database=0,
            tls=scheme == "rediss",
        )
        words = [unquote(word) for word in parts.path.split("/") if word]
        if kind == "cluster":
            if words and words != ["0"]:
                raise ValueError("a cluster has database 0 only")
            return cls("cluster", tuple(_seeds(hosts, primary, DEFAULT_PORT)), primary)
        if not words or len(words) > 2 or (len(words) == 2 and not words[1].isdigit()):
            raise ValueError("redis+sentinel:// needs the service's name: redis+sentinel://host:port/name")
        asked = replace(primary, username=None, password=parse_qs(parts.query).get("sentinel_password", [None])[0])
        primary = replace(primary, database=int(words[1]) if len(words) == 2 else 0)
        return cls("sentinel", tuple(_seeds(hosts, asked, SENTINEL_PORT)), primary, words[0])


def _seeds(hosts: str, like: Address, default_port: int) -> list[Address]:
    seeds = []
    for item in hosts.split(","):
        host, bracket, rest = item.rpartition("]")
        if bracket:  # an IPv6 address: [::1]:6379
            host, port = host.lstrip("["), rest.lstrip(":")
        else:
            host, _, port = item.partition(":")
        if not host or (port and not port.isdigit()):
            raise ValueError(f"not a host and port: {item or 'nothing'}")
        seeds.append(like.at(host, int(port or default_port)))
    return seeds
