"""What `SWITCHROOM_STORE_URL` may say: one server, a Sentinel group, or a Cluster."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from redis.asyncio.connection import parse_url

DEFAULT_PORT = 6379
SENTINEL_PORT = 26379

Kind = Literal["server", "sentinel", "cluster"]


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM, by redis-py's names in a URL: `ssl_ca_certs` (whom we believe; else the system's authorities, or
    those in `SSL_CERT_FILE`), `ssl_certfile` and `ssl_keyfile` (who we are). The server's name is always checked."""

    ca_certs: str | None = None
    certfile: str | None = None
    keyfile: str | None = None

    def context(self) -> ssl.SSLContext:
        """Reads the files: not for an event loop. Raises `OSError` that names the one that cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca_certs)
        except OSError as error:
            raise OSError(f"ssl_ca_certs {self.ca_certs}: {error.strerror or error}") from error
        if self.certfile is not None:
            try:
                context.load_cert_chain(self.certfile, self.keyfile)
            except OSError as error:
                files = " with ssl_keyfile ".join(name for name in (self.certfile, self.keyfile) if name)
                raise OSError(f"ssl_certfile {files}: {error.strerror or error}") from error
        return context

    @classmethod
    def from_options(cls, options: dict[str, str]) -> Tls:
        """Takes what is its own out of a URL's options."""
        given = {name: options.pop(f"ssl_{name}", None) for name in ("ca_certs", "certfile", "keyfile")}
        if given["keyfile"] and not given["certfile"]:
            raise ValueError("ssl_keyfile needs ssl_certfile")
        return cls(**given)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is: a socket path, or a host and port with optional TLS and credentials."""

    path: str | None
    host: str
    port: int
    username: str | None
    password: str | None
    database: int
    tls: Tls | None

    @classmethod
    def from_url(cls, url: str) -> Address:
        """Reads `redis://`, `rediss://` or `unix://` (redis-py's spelling; of its options `db` and `Tls`'s files)."""
        given = _options(url)
        given.pop("db", None)
        tls = Tls.from_options(given) if url.startswith("rediss://") else None
        _nothing_left(given)
        options: dict[str, Any] = dict(parse_url(url))
        return cls(
            path=options.get("path"),
            host=options.get("host") or "localhost",
            port=int(options.get("port") or DEFAULT_PORT),
            username=options.get("username"),
            password=options.get("password"),
            database=int(options.get("db") or 0),
            tls=tls,
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

        each with the files of `Tls` as options where it is `rediss`.
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
        options = _options(url)
        tls = Tls.from_options(options) if scheme == "rediss" else None
        sentinel_password = options.pop("sentinel_password", None) if kind == "sentinel" else None
        _nothing_left(options)
        primary = Address(
            path=None,
            host="",
            port=0,
            username=unquote(username) or None,
            password=unquote(password) or None,
            database=0,
            tls=tls,
        )
        words = [unquote(word) for word in parts.path.split("/") if word]
        if kind == "cluster":
            if words and words != ["0"]:
                raise ValueError("a cluster has database 0 only")
            return cls("cluster", tuple(_seeds(hosts, primary, DEFAULT_PORT)), primary)
        if not words or len(words) > 2 or (len(words) == 2 and not words[1].isdigit()):
            raise ValueError("redis+sentinel:// needs the service's name: redis+sentinel://host:port/name")
        asked = replace(primary, username=None, password=sentinel_password)
        primary = replace(primary, database=int(words[1]) if len(words) == 2 else 0)
        return cls("sentinel", tuple(_seeds(hosts, asked, SENTINEL_PORT)), primary, words[0])


def _options(url: str) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(urlsplit(url).query, keep_blank_values=True).items()}


def _nothing_left(options: dict[str, str]) -> None:
    """An option that we do not know is not passed over: it may be what keeps a connection safe."""
    if options:
        raise ValueError(f"a store's URL has no option {', '.join(sorted(options))} here")


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
