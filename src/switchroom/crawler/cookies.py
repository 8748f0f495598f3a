"""Cookies in every shape that browsers, WebViews and their exporters write, brought to one form, each judged alone.

Pure: no clock but the one given, no I/O. The rules come from what Chromium and Playwright's `add_cookies` refuse or
silently drop, and from the sources' own formats: Playwright, CDP and Puppeteer, Selenium, the Chrome extension API
(EditThisCookie, Cookie-Editor, Electron), Netscape cookies.txt, HAR, Chrome's cookie database, and from Unity:
Vuplex, System.Net.Cookie, ZFBrowser, UnityWebBrowser, gree unity-webview and UniWebView.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

import msgspec

from switchroom.crawler.cookie_dates import MAX_AGE_S, UnreadableDate, expiry_of

SameSite = Literal["Strict", "Lax", "None"]

MAX_NAME_VALUE_BYTES = 4096
MAX_PATH_BYTES = 1024
_CONTROL = re.compile(r"[\x00-\x1f\x7f;]")
_HOST = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,62})\.)*[a-z0-9_](?:[a-z0-9_-]{0,62})|\[[0-9a-f:.]+\]")
_ATTRIBUTES = frozenset(
    {"path", "domain", "expires", "maxage", "secure", "httponly", "samesite", "partitioned", "priority"}
)
_NAME = re.compile(r"[^\x00-\x20\x7f;,=]{1,128}")


class Cookie(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One cookie. `domain` with a leading dot covers subdomains too; `expires` is Unix seconds, None for a session."""

    name: str
    value: str
    domain: str
    path: str = "/"
    expires: float | None = None
    http_only: bool = False
    secure: bool = False
    same_site: SameSite | None = None
    partition_key: str | None = None

    @property
    def host(self) -> str:
        """The domain without its leading dot."""
        return self.domain.removeprefix(".")

    @property
    def key(self) -> tuple[str, str, str, str | None]:
        """What makes two cookies the same one."""
        return (self.name, self.domain, self.path, self.partition_key)


class Rejected(msgspec.Struct, frozen=True):
    """An item that was not kept: its place in what was sent, its name where it has a readable one, and why."""

    index: int
    name: str | None
    reason: str


class Verdict(msgspec.Struct, frozen=True):
    """What became of a body of cookies. `accepted` and `rejected` never overlap; `total` counts what was sent."""

    accepted: list[Cookie]
    rejected: list[Rejected]
    total: int


class _Refused(Exception):
    """Why one cookie cannot be kept; the words never contain its value."""


def unwrap(data: Any) -> tuple[list[Any], str | None] | None:
    """The cookie items of a body and the URL that it names; None where the body is no shape that we know.

    Shapes: an array; `{"cookies": [...]}` (also Playwright's storage_state) or `{"cookies": "a=1; b=2"}`, either
    with a `url`; text (Netscape cookies.txt, Set-Cookie lines, `a=1; b=2`).
    """
    if isinstance(data, list):
        return data, None
    if isinstance(data, str):
        return list(_lines(data)), None
    if isinstance(data, dict):
        folded = {_fold(key): value for key, value in data.items()}
        url = folded.get("url")
        inner = folded.get("cookies")
        if isinstance(inner, list | str):
            items = inner if isinstance(inner, list) else list(_lines(inner))
            return items, url if isinstance(url, str) else None
    return None


def normalise(items: list[Any], *, now_s: float, url: str | None = None) -> Verdict:
    """Bring `items` to `Cookie`s, each judged alone; `url` gives a host to those that carry none."""
    page = _page(url)
    kept: dict[tuple[str, str, str, str | None], tuple[int, Cookie]] = {}
    rejected: list[Rejected] = []
    for index, item in enumerate(items):
        try:
            fields_of_item = list(_read(item))
        except _Refused as refused:
            rejected.append(Rejected(index, _safe_name(item), str(refused)))
            continue
        if not fields_of_item:
            rejected.append(Rejected(index, None, "is empty"))
        for fields in fields_of_item:
            try:
                cookie = _cookie(fields, page, now_s)
            except _Refused as refused:
                rejected.append(Rejected(index, _safe_name(fields), str(refused)))
                continue
            if earlier := kept.pop(cookie.key, None):
                rejected.append(
                    Rejected(earlier[0], cookie.name, "replaced by a later cookie of the same name, domain and path")
                )
            kept[cookie.key] = (index, cookie)
    rejected.sort(key=lambda verdict: verdict.index)
    return Verdict([cookie for _, cookie in kept.values()], rejected, len(items))


def parse_set_cookie(line: str, host: str, path: str, now_s: float) -> tuple[Cookie, bool] | None:
    """A Set-Cookie line as a browser reads it (RFC 6265 §5.2–5.3): the cookie, and whether it deletes.

    None where the line is no cookie for `host`. `path` is that of the request.
    """
    fields = _set_cookie_fields(line)
    if fields is None:
        return None
    domain = str(fields.get("domain", "")).lower().lstrip(".")
    if domain and not (host == domain or host.endswith("." + domain)):
        return None
    if domain and "." not in domain and domain != "localhost" and domain != host:
        return None
    fields["domain"] = "." + domain if (domain and domain != host) or (domain and not _is_address(host)) else host
    if not str(fields.get("path", "")).startswith("/"):
        fields["path"] = default_path(path)
    deletes = False
    try:
        expiry_of(fields.get("expires"), now_s)
    except UnreadableDate as gone:
        deletes = gone.expired
        fields.pop("expires")
    if fields.pop("deleted", False):
        deletes = True
        fields.pop("maxage")
    try:
        return _cookie(fields, None, now_s), deletes
    except _Refused:
        return None


def default_path(path: str) -> str:
    """The path a cookie gets that names none: the request's up to its last slash (RFC 6265 §5.1.4)."""
    cut = path.rfind("/")
    return path[:cut] if cut > 0 else "/"


def _read(item: Any) -> Iterator[dict[str, Any]]:
    """The cookies of one item as folded fields; a string may hold several."""
    if isinstance(item, Mapping):
        yield {_fold(key): value for key, value in item.items() if isinstance(key, str)}
        return
    if not isinstance(item, str):
        raise _Refused("is neither an object nor a string")
    for line in _lines(item):
        if line.count("\t") >= 5:
            yield _netscape_fields(line)
            continue
        line = re.sub(r"^\s*set-cookie\s*:\s*", "", line, flags=re.IGNORECASE)
        segments = [segment.strip() for segment in line.split(";") if segment.strip()]
        if any(_fold(segment.partition("=")[0]) in _ATTRIBUTES for segment in segments[1:]):
            fields = _set_cookie_fields(line)
            if fields is None:
                raise _Refused("is not a cookie line")
            if fields.pop("deleted", False):
                raise _Refused("expired")
            yield fields
            continue
        line_pairs = re.sub(r"^\s*cookie\s*:\s*", "", line, flags=re.IGNORECASE)
        for pair in line_pairs.split(";"):
            name, equals, value = pair.strip().partition("=")
            if not pair.strip():
                continue
            if not equals:
                raise _Refused("is not of the form name=value")
            yield {"name": name, "value": value}


def _lines(text: str) -> Iterator[str]:
    for line in text.replace("\r\n", "\n").split("\n"):
        if line.startswith("#HttpOnly_") or (line.strip() and not line.startswith("#")):
            yield line


def _netscape_fields(line: str) -> dict[str, Any]:
    http_only = line.startswith("#HttpOnly_")
    parts = line.removeprefix("#HttpOnly_").split("\t", 6)
    domain, subdomains, path, secure, expires, name = parts[:6]
    if subdomains.upper() == "TRUE" and not domain.startswith("."):
        domain = "." + domain
    fields: dict[str, Any] = {"domain": domain, "path": path, "secure": secure.upper() == "TRUE", "expires": expires}
    return fields | {"name": name, "value": parts[6] if len(parts) > 6 else "", "httponly": http_only}


def _set_cookie_fields(line: str) -> dict[str, Any] | None:
    pair, _, attributes = line.partition(";")
    name, equals, value = pair.strip().partition("=")
    if not equals or not name.strip():
        return None
    fields: dict[str, Any] = {"name": name, "value": value, "secure": False}
    for attribute in attributes.split(";"):
        key, _, text = attribute.strip().partition("=")
        folded = _fold(key)
        if folded in ("secure", "httponly", "partitioned"):
            fields[folded] = True
        elif folded in ("path", "domain", "samesite") or (folded == "expires" and "maxage" not in fields):
            fields[folded] = text.strip()
        elif folded == "maxage" and re.fullmatch(r"-?\d{1,12}", text.strip()):
            fields["maxage"] = int(text)
            fields.pop("expires", None)
            fields["deleted"] = int(text) <= 0
    return fields


def _cookie(fields: dict[str, Any], page: SplitResult | None, now_s: float) -> Cookie:
    name = _text(fields.get("name"), "name").strip(" \t")
    if "encryptedvalue" in fields and not fields.get("value") and fields["encryptedvalue"]:
        raise _Refused("its value is encrypted by the browser")
    value = _text(fields.get("value"), "value").strip(" \t")
    if not name:
        raise _Refused("name is empty")
    if _CONTROL.search(name) or "=" in name:
        raise _Refused("name has a character that cookies cannot carry")
    if _CONTROL.search(value):
        raise _Refused("value has a character that cookies cannot carry")
    try:
        size = len(name.encode()) + len(value.encode())
        str(fields.get("path")).encode()
    except UnicodeEncodeError as error:
        raise _Refused("is not valid Unicode") from error
    if size > MAX_NAME_VALUE_BYTES:
        raise _Refused(f"name and value are longer than {MAX_NAME_VALUE_BYTES} bytes together")
    if fields.get("isvalid") is False:
        raise _Refused("marked as not valid by its source")
    if fields.get("expired") is True:
        raise _Refused("expired")
    own_page = _page(fields["url"]) if isinstance(fields.get("url"), str) else None
    domain = _domain(fields, own_page or page)
    path = _path(fields, own_page)
    secure = _flag(fields, "secure", "issecure")
    upper = name.lower()
    if upper.startswith(("__secure-", "__host-")):
        if secure is False and "url" not in fields:
            raise _Refused("its name prefix needs the secure flag")
        secure = True
    if upper.startswith("__host-") and (domain.startswith(".") or path != "/"):
        raise _Refused("the prefix __Host- needs a host without a leading dot and the path /")
    if secure is None:
        secure = own_page is not None and own_page.scheme == "https"
    same_site = _same_site(fields.get("samesite"))
    if same_site == "None" and not secure:
        same_site = "Lax"  # Chromium drops None without secure; a page that one opens oneself needs no more than Lax
    return Cookie(
        name=name,
        value=value,
        domain=domain,
        path=path,
        expires=_expires(fields, now_s),
        http_only=bool(_flag(fields, "httponly", "ishttponly")),
        secure=secure,
        same_site=same_site,
        partition_key=_partition_key(fields),
    )


def _text(value: Any, what: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 64):
        return str(value)
    raise _Refused(f"{what} is missing" if value is None else f"{what} is not text")


def _domain(fields: dict[str, Any], page: SplitResult | None) -> str:
    raw = next((fields[key] for key in ("domain", "hostkey", "host") if fields.get(key) not in (None, "")), None)
    if raw is None:
        if page is None or not page.hostname:
            raise _Refused("has no domain, and no URL was given")
        return _host_name(page.hostname if ":" not in page.hostname else f"[{page.hostname}]")
    if not isinstance(raw, str):
        raise _Refused("domain is not text")
    host, dotted, is_address = _told_host(raw)
    # A leading dot is the usual carrier; an exporter that strips it says hostOnly: false outright.
    return "." + host if not is_address and (dotted or fields.get("hostonly") is False) else host


@lru_cache(maxsize=2048)
def _told_host(raw: str) -> tuple[str, bool, bool]:
    """The host of a `domain` as it was written, whether a dot led it, and whether it is an address. Cookies come in
    hundreds of one domain."""
    text = raw.strip().lower()
    if "://" in text:
        text = _page_host(text)
    dotted = text.startswith(".")
    text = text.lstrip(".").partition("/")[0].rstrip(".")
    if not (text.startswith("[") and text.endswith("]")):
        text = re.sub(r":\d+$", "", text)
    host = _host_name(text)
    return host, dotted, _is_address(host)


@lru_cache(maxsize=2048)
def _host_name(text: str) -> str:
    try:
        host = text if text.isascii() else text.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise _Refused("domain is not a host name") from error
    if len(host) > 253 or not _HOST.fullmatch(host):
        raise _Refused("domain is not a host name")
    return host


@lru_cache(maxsize=256)
def _page(url: str | None) -> SplitResult | None:
    if not url:
        return None
    try:
        parts = urlsplit(url.strip())
        return parts if parts.scheme in ("http", "https") and parts.hostname else None
    except ValueError:
        return None


def _page_host(text: str) -> str:
    page = _page(text)
    if page is None or page.hostname is None:
        raise _Refused("domain is not a host name")
    return page.hostname if ":" not in page.hostname else f"[{page.hostname}]"


def _is_address(host: str) -> bool:
    return host.startswith("[") or re.fullmatch(r"\d{1,3}(\.\d{1,3}){3}", host) is not None


def _path(fields: dict[str, Any], own_page: SplitResult | None) -> str:
    raw = fields.get("path")
    if raw in (None, ""):
        return default_path(own_page.path) if own_page is not None else "/"
    if not isinstance(raw, str):
        raise _Refused("path is not text")
    if _CONTROL.search(raw):
        raise _Refused("path has a character that cookies cannot carry")
    if len(raw) > MAX_PATH_BYTES:
        raise _Refused(f"path is longer than {MAX_PATH_BYTES} bytes")
    return raw if raw.startswith("/") else "/"


def _flag(fields: dict[str, Any], *keys: str) -> bool | None:
    for key in keys:
        value = fields.get(key)
        if isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            return value != 0
        if isinstance(value, str) and value.strip().lower() in ("true", "1", "yes", "false", "0", "no", ""):
            return value.strip().lower() in ("true", "1", "yes")
    return None


def _same_site(value: Any) -> SameSite | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):  # Chrome's database: -1 unspecified, 0 none, 1 lax, 2 strict
        return ({0: "None", 1: "Lax", 2: "Strict"}).get(value)  # type: ignore[return-value]
    if not isinstance(value, str):
        return None
    words: dict[str, SameSite] = {"strict": "Strict", "lax": "Lax", "none": "None", "norestriction": "None"}
    return words.get(_fold(value))


def _partition_key(fields: dict[str, Any]) -> str | None:
    raw = fields.get("partitionkey", fields.get("topframesitekey"))
    if isinstance(raw, Mapping):
        folded = {_fold(str(key)): value for key, value in raw.items()}
        raw = folded.get("toplevelsite", folded.get("sourceorigin"))
    return raw if isinstance(raw, str) and raw.isascii() and raw and not _CONTROL.search(raw) else None


def _expires(fields: dict[str, Any], now_s: float) -> float | None:
    if "maxage" in fields and isinstance(fields["maxage"], int | float) and not isinstance(fields["maxage"], bool):
        if fields["maxage"] <= 0:
            raise _Refused("expired")
        return expiry_of(now_s + min(fields["maxage"], MAX_AGE_S), now_s)
    for key in ("expires", "expirationdate", "expiry", "expiresutc", "expiration", "expirydate"):
        if fields.get(key) in (None, ""):
            continue
        try:
            return expiry_of(fields[key], now_s)
        except UnreadableDate as error:
            raise _Refused(str(error)) from error
    return None


@lru_cache(maxsize=512)
def _fold(key: str) -> str:
    return key.replace("_", "").replace("-", "").replace(" ", "").lower()


def _safe_name(item: Any) -> str | None:
    """A name fit for a reply: of an object, and only where it looks like one (a value pasted there does not pass)."""
    if not isinstance(item, Mapping):
        return None
    name = next((value for key, value in item.items() if isinstance(key, str) and _fold(key) == "name"), None)
    return name if isinstance(name, str) and _NAME.fullmatch(name) else None
