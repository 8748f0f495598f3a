"""The one guarded way out: `GuardedClient` over HTTP, `GuardedSocks` for a browser, `Guard` that decides."""

from switchroom.net.client import CookieSource, Fetched, GuardedClient, Hop, parse_url
from switchroom.net.guard import Guard, OutboundError, address_in
from switchroom.net.socks import GuardedSocks

__all__ = [
    "CookieSource",
    "Fetched",
    "Guard",
    "GuardedClient",
    "GuardedSocks",
    "Hop",
    "OutboundError",
    "address_in",
    "parse_url",
]
