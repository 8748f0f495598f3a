"""Which addresses an outbound request may reach: public ones, and the private ones that the operator named.

A name is resolved once and the connection goes to the address that was checked, so that a DNS answer that changes
between check and connect (rebinding) gains nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import unicodedata
from collections.abc import Iterable

from aiohttp.abc import AbstractResolver, ResolveResult

from switchroom.errors import SwitchroomError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.ip_network("64:ff9b:1::/48")
_RESOLVE_TIMEOUT_S = 10.0


class OutboundError(SwitchroomError):
    """A request to the outside did not bring an answer; `cause` says why, in one word of a closed set.

    `bad_url address_refused dns connect tls timeout too_large redirect_loop too_many_redirects decode protocol`
    """

    status = 502
    title = "Outbound request failed"

    def __init__(self, cause: str, detail: str) -> None:
        super().__init__(detail, code=f"outbound_{cause}")
        self.cause = cause


class Guard:
    """Decides about hosts and addresses.

    `allow` names what may be reached although it is not public: host names (`intranet.example`), suffixes
    (`*.corp.example`), addresses (`127.0.0.1`) and networks (`10.0.0.0/8`).
    """

    def __init__(self, allow: Iterable[str] = ()) -> None:
        self._hosts: set[str] = set()
        self._suffixes: list[str] = []
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for entry in allow:
            text = entry.strip().lower().rstrip(".")
            if not text:
                continue
            try:
                self._networks.append(ipaddress.ip_network(text.strip("[]"), strict=False))
            except ValueError:
                if text.startswith("*."):
                    self._suffixes.append(text[1:])
                else:
                    self._hosts.add(text)

    def permits(self, host: str, address: str) -> bool:
        """Whether a connection to `address` may be made on behalf of the name `host`."""
        try:
            ip = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if self._named(host):
            return True
        seen = _innermost(ip)
        if any(seen in network for network in self._networks if network.version == seen.version):
            return True
        return is_public(ip)

    def names(self, host: str) -> bool:
        """Whether `allow` has this host: by its name or a suffix, or its address where it is one."""
        try:
            seen = _innermost(ipaddress.ip_address(host.strip("[]").partition("%")[0]))
        except ValueError:
            return self._named(host)
        return any(seen in network for network in self._networks if network.version == seen.version)

    def _named(self, host: str) -> bool:
        name = host.lower().rstrip(".")
        return name in self._hosts or any(name.endswith(suffix) for suffix in self._suffixes)

    async def resolve(self, host: str, port: int, family: int = socket.AF_UNSPEC) -> list[tuple[int, str]]:
        """The permitted addresses of `host` as `(family, address)`.

        Raises `OutboundError`: `dns` where the name has none, `address_refused` where none of them is permitted.
        """
        bare = host.strip("[]")
        try:
            literal = ipaddress.ip_address(bare.partition("%")[0])
        except ValueError:
            found = await self._look_up(bare, port, family)
        else:
            found = [(socket.AF_INET if literal.version == 4 else socket.AF_INET6, bare)]
        allowed = [(fam, address) for fam, address in found if self.permits(host, address)]
        if not allowed:
            raise OutboundError(
                "address_refused",
                f"{host} leads to an address that is not public; the operator can allow it by host or network.",
            )
        return allowed

    @staticmethod
    async def _look_up(host: str, port: int, family: int) -> list[tuple[int, str]]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_RESOLVE_TIMEOUT_S):
                infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
        except (OSError, UnicodeError) as error:
            if isinstance(error, TimeoutError):
                raise OutboundError(
                    "dns", f"The name {host} was not resolved within {_RESOLVE_TIMEOUT_S:.0f} s."
                ) from None
            raise OutboundError("dns", f"The name {host} cannot be resolved.") from error
        found = dict.fromkeys((int(fam), str(address[0])) for fam, _, _, _, address in infos)
        if not found:
            raise OutboundError("dns", f"The name {host} has no address.")
        return list(found)


class GuardedResolver(AbstractResolver):
    """aiohttp's resolver that hands out checked addresses only; aiohttp connects to exactly these."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        addresses = await self._guard.resolve(host, port, family)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=fam,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for fam, address in addresses
        ]

    async def close(self) -> None:
        """Nothing is held."""


def address_in(host: str) -> str | None:
    """The address that a host name spells in any of the forms that resolvers take for one (`127.1`, `0x7f000001`,
    full-width digits, a dot at the end); None for a name that has to be looked up."""
    name = unicodedata.normalize("NFKC", host).strip("[]").partition("%")[0].rstrip(".")
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(name))
    except (OSError, UnicodeError):
        return None


def is_public(ip: IPAddress) -> bool:
    """Whether an address is on the public internet, seen through every IPv6 form that carries an IPv4 address."""
    inner = _innermost(ip)
    if inner is not ip:
        return is_public(inner)
    if ip.version == 6 and (ip in _NAT64_LOCAL or ip.is_site_local):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def _innermost(ip: IPAddress) -> IPAddress:
    """The IPv4 address inside an IPv4-mapped, 6to4, Teredo or NAT64 address, else the address itself."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    if ip.sixtofour is not None:
        return ip.sixtofour
    if ip.teredo is not None:
        return ip.teredo[1]
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip
