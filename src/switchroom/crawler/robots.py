"""robots.txt (RFC 9309) and Crawl-delay, once a host and crawl, over the guarded client."""

from __future__ import annotations

import logging

from protego import Protego
from yarl import URL

from switchroom.net import GuardedClient, OutboundError

log = logging.getLogger(__name__)

MAX_BYTES = 512_000
MAX_DELAY_S = 30.0
AGENT = "Switchroom"


class Robots:
    """What one host asks of crawlers. `delay_s` is its Crawl-delay, capped at 30 s."""

    def __init__(self, text: str, *, closed: bool = False) -> None:
        self._rules = Protego.parse(text)
        self._closed = closed
        self._open = not closed and not text.strip()
        self.sitemaps: tuple[str, ...] = tuple(self._rules.sitemaps)
        self.delay_s = min(float(self._rules.crawl_delay(AGENT) or 0.0), MAX_DELAY_S)

    def allows(self, url: str) -> bool:
        """Whether `url` may be fetched."""
        return self._open or (not self._closed and bool(self._rules.can_fetch(url, AGENT)))


async def load_robots(client: GuardedClient, url: str) -> Robots:
    """The robots.txt of `url`'s host. Without one (4xx) all is allowed; where the host fails (5xx, no answer) nothing
    is, as RFC 9309 §2.3.1.4 has it. Raises `OutboundError` where the host cannot be reached at all."""
    address = str(URL(url).origin() / "robots.txt")
    try:
        got = await client.fetch(address, max_bytes=MAX_BYTES, timeout_s=15)
    except OutboundError as error:
        if error.cause in ("too_large", "decode", "protocol", "redirect_loop", "too_many_redirects", "bad_url"):
            return Robots("")
        raise
    if got.status >= 500:
        log.warning("robots.txt fails, host is left alone", extra={"status": got.status, "url": address})
        return Robots("", closed=True)
    return Robots(got.text() if got.status < 300 else "")
