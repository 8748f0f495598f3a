"""What every crawl of a process shares."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Protocol

from switchroom.crawler.cookies import Cookie
from switchroom.crawler.hosts import Hosts
from switchroom.crawler.jar import Key
from switchroom.crawler.output import Output
from switchroom.crawler.render import BrowserPool
from switchroom.net import GuardedClient
from switchroom.store import Store


class StoredCookies(Protocol):
    """Cookies with the version that changes when an operator posts new ones."""

    @property
    def version(self) -> int: ...
    @property
    def cookies(self) -> tuple[Cookie, ...]: ...


class CookieProvider(Protocol):
    """Where a crawl gets its cookies, and gives back what sites changed."""

    async def read(self) -> StoredCookies: ...
    async def refresh(self, base_version: int, changes: dict[Key, Cookie | None]) -> object: ...


@dataclass(frozen=True, slots=True)
class Tools:
    """What every crawl of a process shares. `delay_s` is the least time between two requests to one host; `runner`
    names this process to the others that share its jobs. Pages that are gone are kept for `grace_ms`; `verify_ms` is
    about how long a sitemap's word is taken for a page."""

    store: Store
    client: GuardedClient
    browsers: BrowserPool
    cookies: CookieProvider
    output: Output
    workers: int = 8
    per_host: int = 4
    delay_s: float = 0.0
    grace_ms: int = 7 * 86_400_000
    verify_ms: int = 7 * 86_400_000
    runner: str = field(default_factory=lambda: uuid.uuid4().hex)
    hosts: Hosts = field(init=False)

    def __post_init__(self) -> None:
        hosts = Hosts(self.client, self.store, self.runner, per_host=self.per_host, delay_s=self.delay_s)
        object.__setattr__(self, "hosts", hosts)
