"""What a crawl makes of login walls: which it believes, and whether one means that the session is lost.

`login_wall` tells the signs in a single answer; here stands what only the run of a crawl can tell.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import OrderedDict, deque
from typing import Protocol

from yarl import URL

from switchroom.crawler import extract, login_wall, sites, urls
from switchroom.crawler.desk import Work
from switchroom.crawler.frontier import Step
from switchroom.crawler.job import PageRecord, Waiting
from switchroom.crawler.read import Reading
from switchroom.errors import SwitchroomError
from switchroom.store import Store

log = logging.getLogger(__name__)

_CONFIRMED = 3  # a host's first walls are confirmed by a second look, later ones believed
MOST_ALIKE = 3
"""More pages of one text than that are looked into."""
_REMEMBERED = 500
_REMEMBERED_TEXTS = 5000
_PROVEN = ("leads_away", "hidden", "same_everywhere")
"""Signs that were looked for at other pages: the session is lost."""
_SHORTER = 0.5
_PROBES = 3
_FINE_S = 1.0


class Look(Protocol):
    """Reads a URL once more, with the crawl's cookies or as an anonymous visitor."""

    async def __call__(self, url: str, *, anonymous: bool = False) -> Reading: ...


class Walls:
    """One a crawl. `last` is the newest wall, `lost` the one that showed that the session is gone."""

    def __init__(self, store: Store, look: Look, *, wait: bool) -> None:
        self._store = store
        self._look = look
        self._wait = wait
        self._seen: dict[str, int] = {}
        self._knew_us: set[str] = set()
        self._signed_in_pages: deque[tuple[str, int]] = deque(maxlen=5)
        self._same_body = login_wall.SameBody(MOST_ALIKE)
        self._texts: OrderedDict[int, list[str]] = OrderedDict()
        self._for_any: dict[int, bool] = {}
        self._fine_until = 0.0  # nothing was found amiss with pages that were good, less than a second ago
        self._other_until = 0.0
        self.last: Waiting | None = None
        self.lost: Waiting | None = None

    def forget(self) -> None:
        """Other cookies are there."""
        self._seen.clear()
        self._knew_us.clear()
        self._texts.clear()
        self._for_any.clear()

    def good(self, host: str, url: str, text: str, *, signed_in: bool) -> None:
        """A page that was kept, with what it said."""
        self._seen.pop(host, None)
        if signed_in:
            self._knew_us.add(host)
            self._signed_in_pages.append((url, hash(text)))

    def knew_us(self, host: str) -> bool:
        """Whether the host showed us pages with the cookies as they were given; it may have taken one away since."""
        return host in self._knew_us

    def alike(self, url: str, text: str) -> list[str]:
        """The URLs that showed this text, which speaks of a login, where they are too many for a page."""
        return self._same_body.add(url, text)

    async def is_soft(self, final: str, text: str, before: PageRecord, reading: Reading) -> bool:
        """Whether an answer that would replace a good page is what anybody gets to see in its place. Asked only of one
        that speaks of a login, or says much less than the page did."""
        if before.content_hash == extract.content_hash(reading.markdown):
            return False
        if not login_wall.speaks_of_login(text) and len(reading.markdown) > _SHORTER * before.chars:
            return False
        try:
            anonymous = await self._look(final, anonymous=True)
        except SwitchroomError:
            return False
        return anonymous.markdown == reading.markdown

    async def leads_away(self, work: Work, final: str) -> bool:
        """Whether the site sends us to `final` because it knows us no more: other pages lead there now as well."""
        return await self._are_gone(work.url, final)

    async def is_hidden(self, work: Work) -> bool:
        """Whether a page is not found because the session is lost: others are not found now either."""
        return await self._are_gone(work.url, work.url)

    async def is_everywhere(self, work: Work, text: str, *, surely: bool) -> bool:
        """Whether a page that said something else a moment ago shows this very text now; asked once a second at most,
        unless there is more reason (`surely`)."""
        now = time.monotonic()
        others = {page for page, said in self._signed_in_pages if said != hash(text)}
        other = next((page for page in self._beside(work.url) if page != work.url and page in others), None)
        if other is None or (now < self._other_until and not surely):
            return False
        again = await self._once_more(other)
        if again is not None and again.page is not None and again.page.text == text:
            return True
        self._other_until = now + _FINE_S
        return False

    async def is_for_any(self, url: str, text: str) -> bool:
        """Whether the site answers an address that nobody has made with this very text too: then it is no page."""
        digest = hash(text)
        if digest not in self._for_any:
            if len(self._for_any) > _REMEMBERED:
                self._for_any.clear()
            again = await self._once_more(str(URL(url).with_path(f"/{uuid.uuid4().hex}").with_query(None)))
            self._for_any[digest] = again is not None and again.page is not None and again.page.text == text
        return self._for_any[digest]

    def repeated(self, url: str, text: str) -> list[str]:
        """The first URLs that had this text, `url` included, where there are several; empty else."""
        digest = hash(text)
        shown = self._texts.setdefault(digest, [url])
        self._texts.move_to_end(digest)
        if len(self._texts) > _REMEMBERED_TEXTS:
            self._texts.popitem(last=False)
        if len(shown) <= MOST_ALIKE and url not in shown:
            shown.append(url)
        return shown if len(shown) > 1 else []

    async def judge(self, work: Work, reading: Reading, *, signed_in: bool, has_cookies: bool) -> Step | Reading:
        """What a wall comes to. A `Reading` where a second look found none; `Step` of what became of the URL else.

        403 with cookies, while a page beside it still reads, is no wall: the step is empty then.
        """
        url = work.url
        host = urls.bare_host(urls.host_of(url))
        sign = reading.wall or "password_form"
        seen = self._seen[host] = self._seen.get(host, 0) + 1
        # Without the cookie that was taken away, a second look would not be the same.
        gone = sign == "cookie_cleared" and not has_cookies
        if seen <= _CONFIRMED and not gone and sign not in ("same_body", "same_as_anonymous", *_PROVEN):
            again = await self._once_more(url)
            if again is not None and not again.wall:
                if host in self._seen:
                    self._seen[host] -= 1
                return again
        lost = signed_in and await self._is_lost(work, sign)
        if sign == "status_403" and signed_in and not lost:
            return Step()
        waiting = Waiting(urls.host_of(url), url, sign, session_lost=lost)
        self.last = waiting
        told = {"event": "login_wall", "domain": waiting.domain, "url": url, "sign": sign, "session_lost": lost}
        if lost and self._wait:
            log.warning("session lost", extra={"domain": waiting.domain, "sign": sign})
            self.lost = waiting
        return Step(walled=[url], counts={"login_walls": 1}, events=[told])

    async def _is_lost(self, work: Work, sign: str) -> bool:
        """Whether a wall in spite of cookies means that the session is gone, not just that this page needs more.

        It is when the site took our cookie away, when the page was good before, or when one that was good a moment ago
        shows the wall now too.
        """
        if sign == "cookie_cleared" or sign in _PROVEN or work.before is not None:
            return True
        for page in self._beside(work.url)[:2]:
            again = await self._once_more(page)
            if again is not None and again.wall:
                return True
        return False

    async def _are_gone(self, url: str, final: str) -> bool:
        """Whether a page that was good a moment ago leads to `final` or is not found now. Where none is known of this
        run, some of earlier ones tell, if they agree."""
        now = time.monotonic()
        if now < self._fine_until:
            return False
        known = recent = self._beside(url)
        if not recent:
            host = urls.bare_host(urls.host_of(url))
            known = await sites.any_pages(self._store, host, _PROBES + 2)
        gone = 0
        for page in [page for page in known if page not in (url, final)][:_PROBES]:
            again = await self._once_more(page)
            if again is None:
                continue
            if again.wall or again.cause == "not_found" or again.url == final != page:
                gone += 1
                if recent:
                    return True
            elif not recent:
                gone = 0
                break
        if not gone:
            self._fine_until = now + _FINE_S
        return gone > 0

    def _beside(self, url: str) -> list[str]:
        """Pages that were good a moment ago, those of the same folder first."""
        beside = URL(url).parent
        pages = [page for page, _ in self._signed_in_pages]
        return sorted(pages, key=lambda page: URL(page).parent != beside)

    async def _once_more(self, url: str) -> Reading | None:
        try:
            return await self._look(url)
        except SwitchroomError as error:
            log.debug("second look at a login wall failed", extra={"url": url, "code": error.code})
            return None
