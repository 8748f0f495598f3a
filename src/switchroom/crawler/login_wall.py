"""Whether an answer is a login wall instead of the page that was asked for. Pure; the runner confirms by a probe."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict

from yarl import URL

from switchroom.crawler import urls
from switchroom.crawler.page import Page

_LOGIN_WORDS = re.compile(
    r"\b(?:log ?in|log on|sign ?in|sign on|prijava|prijavi|anmelden|anmeldung|einloggen|connexion|connectez"
    r"|iniciar sesi[oó]n|accedi|password|geslo|passwort|mot de passe)\b",
    re.IGNORECASE,
)
_LOGIN_STEMS = (
    "log in", "login", "log on", "logon", "sign in", "signin", "sign on", "signon", "prijav", "anmeld", "einloggen",
    "connexion", "connectez", "iniciar sesi", "accedi", "password", "geslo", "passwort", "mot de passe",
)  # fmt: skip
_ASKS = re.compile(
    r"(?:please|you (?:must|need to|have to)(?: first)?) (?:log|sign)[ -]?(?:in|on)"
    r"|(?:must|need to) be (?:logged|signed) in"
    r"|(?:log|sign)[ -]?in (?:is )?(?:required|to (?:continue|view|access|see|read))"
    r"|session (?:has |is )?(?:expired|timed out|ended)"
    r"|authentication required|members only|za ogled se prijavite|bitte (?:melden sie sich an|anmelden|einloggen)",
    re.IGNORECASE,
)
# What an API says in place of a page: a short JSON object with such a word.
_TOLD = re.compile(
    r'"(?:log[ _-]?in|sign[ _-]?in|(?:login|auth|authentication|authorization)[ _-]?(?:required|needed|failed)'
    r"|unauthori[sz]ed|unauthenticated|not[ _-](?:logged|signed)[ _-]in|not[ _-]authenticated"
    r'|(?:session|token)[ _-](?:expired|invalid|timeout|not[ _-]found)|no[ _-]session|please log ?in[^"]{0,80})[.!]?"',
    re.IGNORECASE,
)
_TOLD_CHARS = 2000
_SHORT_CHARS = 1500
_NOTICE_CHARS = 800
_HTTP_AUTH = re.compile(r"^\s*(?:basic|digest|negotiate|ntlm)\b", re.IGNORECASE)


def http_auth(status: int, authenticate: str) -> bool:
    """Whether a 401 asks for HTTP authentication, which no cookie can answer."""
    return status == 401 and _HTTP_AUTH.match(authenticate) is not None


def suspect(asked: str, got: str, status: int, page: Page | None, *, cookie_cleared: bool = False) -> str | None:
    """The sign of a login wall in an answer, None where there is none.

    `asked` and `got` are the URLs before and after redirects; `cookie_cleared` says that the site deleted a cookie that
    we had sent. Signs: `status_401 status_403 redirected_to_login cookie_cleared password_form asks_to_log_in`.
    A login page that was asked for by its own address is no wall.
    """
    if status in (401, 403):
        return f"status_{status}"
    if status >= 300 or urls.is_login_url(asked):
        return None
    moved = asked != got
    if moved and (urls.is_login_url(got) or sent_back_later(asked, got)):
        return "redirected_to_login"
    if page is None:
        return None
    if told_to_log_in(page.text):
        return "asks_to_log_in"
    if page.refresh is not None and urls.is_login_url(page.refresh) and len(page.text) < _NOTICE_CHARS:
        return "redirected_to_login"
    short = len(page.text) < _NOTICE_CHARS
    # The search costs as much as parsing the page, so long texts are searched only where something else points there.
    asks = page.password_form or ((short or cookie_cleared) and _ASKS.search(page.text[:4000]) is not None)
    if cookie_cleared and (moved or asks):
        return "cookie_cleared"
    if page.password_form:
        heads = " ".join((page.title, *page.headings))
        if moved or len(page.text) < _SHORT_CHARS or _LOGIN_WORDS.search(heads):
            return "redirected_to_login" if moved else "password_form"
    return "asks_to_log_in" if asks and short else None


def sent_back_later(asked: str, got: str) -> bool:
    """Whether a redirect takes along where it came from (`/welcome?return=/bills`), as gates do."""
    parts = URL(got)
    if not parts.query_string:
        return False
    asked_for = URL(asked)
    if asked_for.path == "/" or parts.path == asked_for.path:
        return False
    wanted = {asked, asked_for.path, asked_for.path_qs, asked_for.raw_path, asked_for.raw_path_qs}
    return any(value in wanted for value in parts.query.values())


def told_to_log_in(text: str) -> bool:
    """Whether an answer that is no page, but data, says that a login is needed."""
    return len(text) <= _TOLD_CHARS and text.lstrip()[:1] == "{" and _TOLD.search(text) is not None


def speaks_of_login(text: str) -> bool:
    """Whether a text is short and has a word of logins in it: not a wall by itself, but worth a second look."""
    if len(text) > 4 * _SHORT_CHARS:
        return False
    small = text.lower()
    # Plain searches first: the expression costs as much as reading the page.
    return any(words in small for words in _LOGIN_STEMS) and _LOGIN_WORDS.search(text) is not None


class SameBody:
    """Sees one body on many URLs: `add` says which share a text, once `limit` of them do and it speaks of a login."""

    def __init__(self, limit: int = 3, remembered: int = 2000) -> None:
        self._limit = limit
        self._remembered = remembered
        self._urls: OrderedDict[bytes, list[str]] = OrderedDict()

    def add(self, url: str, text: str) -> list[str]:
        """The URLs that had this text, `url` included, from the `limit`-th on; else empty."""
        if not speaks_of_login(text):
            return []
        digest = hashlib.blake2b(text.encode(), digest_size=12).digest()
        seen = self._urls.setdefault(digest, [])
        self._urls.move_to_end(digest)
        if url not in seen:
            seen.append(url)
        if len(self._urls) > self._remembered:
            self._urls.popitem(last=False)
        return list(seen) if len(seen) >= self._limit else []
