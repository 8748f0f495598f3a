"""Every cookie shape of the findings' table, the edges that browsers refuse or drop, and what dates mean."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchroom.crawler.cookie_dates import MAX_AGE_S, UnreadableDate, expiry_of
from switchroom.crawler.cookies import Cookie, normalise, unwrap
from switchroom.crawler.jar import browser_cookie

NOW = 1_795_000_000.0
LATER = 1_800_000_000
LATER_ISO = "2027-01-15T08:00:00"  # LATER as a date


def one(item: Any, url: str | None = None) -> Cookie:
    verdict = normalise([item], now_s=NOW, url=url)
    assert verdict.rejected == []
    (cookie,) = verdict.accepted
    return cookie


def reason(item: Any, url: str | None = None) -> str:
    verdict = normalise([item], now_s=NOW, url=url)
    assert verdict.accepted == []
    (rejected,) = verdict.rejected
    return rejected.reason


SHAPES: dict[str, tuple[Any, Cookie]] = {
    "playwright": (
        {
            "name": "a",
            "value": "1",
            "domain": ".example.com",
            "path": "/x",
            "expires": LATER,
            "httpOnly": True,
            "secure": True,
            "sameSite": "Lax",
        },
        Cookie(
            name="a",
            value="1",
            domain=".example.com",
            path="/x",
            expires=LATER,
            http_only=True,
            secure=True,
            same_site="Lax",
        ),
    ),
    "playwright session": (
        {"name": "a", "value": "1", "domain": "example.com", "path": "/", "expires": -1},
        Cookie(name="a", value="1", domain="example.com"),
    ),
    "playwright url": (
        {"name": "a", "value": "1", "url": "https://app.example.com/a/b"},
        Cookie(name="a", value="1", domain="app.example.com", path="/a", secure=True),
    ),
    "cdp": (
        {
            "name": "a",
            "value": "1",
            "domain": "example.com",
            "path": "/",
            "expires": -1,
            "size": 2,
            "session": True,
            "priority": "Medium",
            "sameParty": False,
            "sourceScheme": "Secure",
            "sourcePort": 443,
            "secure": True,
            "partitionKey": {"topLevelSite": "https://top.example", "hasCrossSiteAncestor": False},
        },
        Cookie(name="a", value="1", domain="example.com", secure=True, partition_key="https://top.example"),
    ),
    "puppeteer": (
        {
            "name": "a",
            "value": "1",
            "domain": "example.com",
            "path": "/",
            "partitionKey": {"sourceOrigin": "https://top.example"},
            "secure": True,
        },
        Cookie(name="a", value="1", domain="example.com", secure=True, partition_key="https://top.example"),
    ),
    "selenium": (
        {"name": "a", "value": "1", "domain": "example.com", "path": "/", "expiry": LATER, "httpOnly": False},
        Cookie(name="a", value="1", domain="example.com", expires=LATER),
    ),
    "editthiscookie": (
        {
            "domain": ".example.com",
            "expirationDate": LATER + 0.5,
            "hostOnly": False,
            "httpOnly": True,
            "name": "a",
            "path": "/",
            "sameSite": "no_restriction",
            "secure": True,
            "session": False,
            "storeId": "0",
            "value": "1",
            "id": 1,
        },
        Cookie(
            name="a",
            value="1",
            domain=".example.com",
            expires=LATER + 0.5,
            http_only=True,
            secure=True,
            same_site="None",
        ),
    ),
    "cookie-editor": (
        {
            "name": "a",
            "value": "1",
            "domain": "example.com",
            "hostOnly": True,
            "path": "/",
            "secure": False,
            "httpOnly": False,
            "sameSite": None,
            "session": True,
            "firstPartyDomain": "",
            "partitionKey": None,
            "storeId": None,
        },
        Cookie(name="a", value="1", domain="example.com"),
    ),
    "har": (
        {
            "name": "a",
            "value": "1",
            "domain": "example.com",
            "path": "/",
            "expires": LATER_ISO + ".000Z",
            "httpOnly": False,
        },
        Cookie(name="a", value="1", domain="example.com", expires=LATER),
    ),
    "chrome database": (
        {
            "host_key": ".example.com",
            "name": "a",
            "value": "1",
            "path": "/",
            "is_secure": 1,
            "is_httponly": 0,
            "samesite": 2,
            "expires_utc": (LATER + 11_644_473_600) * 1_000_000,
            "has_expires": 1,
            "top_frame_site_key": "",
        },
        Cookie(name="a", value="1", domain=".example.com", expires=LATER, secure=True, same_site="Strict"),
    ),
    "vuplex session": (
        {
            "Name": "a",
            "Value": "1",
            "Domain": "example.com",
            "Path": "/",
            "Secure": True,
            "HttpOnly": True,
            "ExpirationDate": 0,
            "IsValid": True,
        },
        Cookie(name="a", value="1", domain="example.com", secure=True, http_only=True),
    ),
    "vuplex": (
        {"Name": "a", "Value": "1", "Domain": ".example.com", "Path": "/", "ExpirationDate": LATER},
        Cookie(name="a", value="1", domain=".example.com", expires=LATER),
    ),
    "system.net.cookie session": (
        {
            "Comment": "",
            "CommentUri": None,
            "HttpOnly": True,
            "Discard": False,
            "Domain": "example.com",
            "Expired": False,
            "Expires": "0001-01-01T00:00:00",
            "Name": "a",
            "Path": "/",
            "Port": "",
            "Secure": False,
            "TimeStamp": "2026-11-21T10:00:00.1234567+01:00",
            "Value": "1",
            "Version": 0,
        },
        Cookie(name="a", value="1", domain="example.com", http_only=True),
    ),
    "system.net.cookie never": (
        {"Name": "a", "Value": "1", "Domain": "example.com", "Expires": "9999-12-31T23:59:59.9999999"},
        Cookie(name="a", value="1", domain="example.com", expires=NOW + MAX_AGE_S),
    ),
    "json.net date": (
        {"Name": "a", "Value": "1", "Domain": "example.com", "Expires": f"/Date({LATER}000+0100)/"},
        Cookie(name="a", value="1", domain="example.com", expires=LATER),
    ),
    "zfbrowser": (
        {
            "name": "a",
            "value": "1",
            "domain": "example.com",
            "path": "/",
            "creation": "2026-01-01T00:00:00",
            "lastAccess": "2026-01-01T00:00:00",
            "expires": LATER_ISO,
            "secure": False,
            "httpOnly": False,
        },
        Cookie(name="a", value="1", domain="example.com", expires=LATER),
    ),
    "snake case": (
        {
            "name": "a",
            "value": "1",
            "domain": "example.com",
            "http_only": True,
            "same_site": "strict",
            "expiration-date": LATER,
        },
        Cookie(name="a", value="1", domain="example.com", http_only=True, same_site="Strict", expires=LATER),
    ),
    "milliseconds": (
        {"name": "a", "value": "1", "domain": "example.com", "expires": LATER * 1000},
        Cookie(name="a", value="1", domain="example.com", expires=LATER),
    ),
    "netscape": (
        f".example.com\tTRUE\t/\tTRUE\t{LATER}\ta\t1",
        Cookie(name="a", value="1", domain=".example.com", secure=True, expires=LATER),
    ),
    "netscape http only": (
        "#HttpOnly_example.com\tFALSE\t/\tFALSE\t0\ta\t1",
        Cookie(name="a", value="1", domain="example.com", http_only=True),
    ),
    "set-cookie line with a domain": (
        "Set-Cookie: a=1; Domain=.example.com; Path=/x; Secure; HttpOnly; SameSite=None",
        Cookie(name="a", value="1", domain=".example.com", path="/x", secure=True, http_only=True, same_site="None"),
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape: str) -> None:
    item, expected = SHAPES[shape]
    kept = one(item)
    told = {name: value for name, value in msgspec.structs.asdict(kept).items() if value and name != "value"}
    print(f"{shape:34} {told}")  # the table of shapes: pytest -s
    assert kept == expected


def test_shapes_that_need_a_url() -> None:
    url = "https://app.example.com/start"
    assert one({"Name": "a", "Value": "1", "Domain": "", "Path": "/"}, url).domain == "app.example.com"
    verdict = normalise(["a=1; b=2=3", "Cookie: c=4"], now_s=NOW, url=url)
    assert [(c.name, c.value, c.domain) for c in verdict.accepted] == [
        ("a", "1", "app.example.com"),
        ("b", "2=3", "app.example.com"),
        ("c", "4", "app.example.com"),
    ]
    assert one("a=1; Path=/; HttpOnly", url).http_only
    for bare in ({"Name": "a", "Value": "1", "Domain": ""}, "a=1; b=2"):
        verdict = normalise([bare], now_s=NOW)
        assert {item.reason for item in verdict.rejected} == {"has no domain, and no URL was given"}


def test_bodies() -> None:
    cookie = {"name": "a", "value": "1", "domain": "example.com"}
    assert unwrap([cookie]) == ([cookie], None)
    assert unwrap({"cookies": [cookie], "origins": []}) == ([cookie], None)
    assert unwrap({"url": "https://x.example/", "cookies": "a=1; b=2"}) == (["a=1; b=2"], "https://x.example/")
    text = (
        "# Netscape HTTP Cookie File\n\n.example.com\tTRUE\t/\tFALSE\t0\ta\t1\r\n"
        "#HttpOnly_b.example\tFALSE\t/\tTRUE\t0\tb\t\n"
    )
    items, _ = unwrap(text) or ([], None)
    assert [c.key for c in normalise(items, now_s=NOW).accepted] == [
        ("a", ".example.com", "/", None),
        ("b", "b.example", "/", None),
    ]
    for other in (cookie, {}, 7, None, True, {"cookies": 7}):
        assert unwrap(other) is None


BASE = {"name": "a", "value": "1", "domain": "example.com"}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "name is empty"),
    ({"name": None}, "name is missing"),
    ({"name": "a;b"}, "name has a character that cookies cannot carry"),
    ({"name": "a=b"}, "name has a character that cookies cannot carry"),
    ({"value": None}, "value is missing"),
    ({"value": ["x"]}, "value is not text"),
    ({"value": "a\nb"}, "value has a character that cookies cannot carry"),
    ({"value": "a;b"}, "value has a character that cookies cannot carry"),
    ({"value": "x" * 4096}, "name and value are longer than 4096 bytes together"),
    ({"value": "č" * 2048}, "name and value are longer than 4096 bytes together"),
    ({"domain": 7}, "domain is not text"),
    ({"domain": "exa mple.com"}, "domain is not a host name"),
    ({"domain": "-.example"}, "domain is not a host name"),
    ({"domain": "https://"}, "domain is not a host name"),
    ({"path": "/\x00"}, "path has a character that cookies cannot carry"),
    ({"path": "/" * 1025}, "path is longer than 1024 bytes"),
    ({"expires": NOW - 1}, "expired"),
    ({"expires": "Wed, 21 Oct 2015 07:28:00 GMT"}, "expired"),
    ({"expires": "next week"}, "its expiry is not a date that can be read"),
    ({"expires": {"s": 1}}, "its expiry is neither a number nor a date"),
    ({"Expired": True}, "expired"),
    ({"IsValid": False}, "marked as not valid by its source"),
    ({"name": "__Secure-a", "secure": False}, "its name prefix needs the secure flag"),
    (
        {"name": "__Host-a", "domain": ".example.com"},
        "the prefix __Host- needs a host without a leading dot and the path /",
    ),
    ({"name": "__Host-a", "path": "/x"}, "the prefix __Host- needs a host without a leading dot and the path /"),
    ({"value": "", "encrypted_value": "djEw"}, "its value is encrypted by the browser"),
]


@pytest.mark.parametrize(("change", "why"), REFUSED)
def test_refused_alone(change: dict[str, Any], why: str) -> None:
    good = {"name": "good", "value": "1", "domain": "example.com"}
    verdict = normalise([good, {**BASE, **change}, good | {"name": "good2"}], now_s=NOW)
    assert [cookie.name for cookie in verdict.accepted] == ["good", "good2"]
    assert [(item.index, item.reason) for item in verdict.rejected] == [(1, why)]


@pytest.mark.parametrize("item", [7, None, True, [], "", "novalue", "\x00"])
def test_items_that_are_no_cookies(item: Any) -> None:
    verdict = normalise([item], now_s=NOW, url="https://example.com/")
    assert verdict.accepted == []
    assert [(rejected.index, rejected.name) for rejected in verdict.rejected] == [(0, None)]


def test_mended_where_a_browser_would_drop() -> None:
    assert one({**BASE, "sameSite": "None", "secure": False}).same_site == "Lax"
    assert one({**BASE, "sameSite": "whatever"}).same_site is None
    assert one({**BASE, "sameSite": "NO_RESTRICTION", "secure": True}).same_site == "None"
    assert one({**BASE, "name": "__Secure-a"}).secure
    assert one({**BASE, "name": "__Host-a"}).secure
    assert one({**BASE, "value": 42}).value == "42"
    assert one({**BASE, "value": True}).value == "true"
    assert one({**BASE, "domain": "https://Example.COM:8443/x"}).domain == "example.com"
    assert one({**BASE, "domain": "EXAMPLE.com:443"}).domain == "example.com"
    assert one({**BASE, "domain": "127.0.0.1:8080"}).domain == "127.0.0.1"
    assert one({**BASE, "domain": ".127.0.0.1"}).domain == "127.0.0.1"
    assert one({**BASE, "domain": "[::1]:80"}).domain == "[::1]"
    assert one({**BASE, "domain": "bücher.example"}).domain == "xn--bcher-kva.example"
    assert one({**BASE, "hostOnly": False}).domain == ".example.com"
    assert one({**BASE, "path": "relative"}).path == "/"
    assert one({**BASE, "expires": False}).expires is None
    assert one({**BASE, "expires": LATER * 10}).expires == NOW + MAX_AGE_S
    assert one({**BASE, "expires": 10**400}).expires == NOW + MAX_AGE_S
    assert one({**BASE, "expires": -(10**400)}).expires is None
    assert one({**BASE, "maxAge": 10**400}).expires == NOW + MAX_AGE_S
    assert reason({**BASE, "value": 10**400}) == "value is not text"
    assert reason({**BASE, "path": "/\ud800"}) == "is not valid Unicode"


def test_the_last_of_two_wins_and_the_first_is_told() -> None:
    items = [BASE, BASE | {"path": "/other"}, BASE | {"value": "2"}]
    verdict = normalise(items, now_s=NOW)
    assert [(c.path, c.value) for c in verdict.accepted] == [("/other", "1"), ("/", "2")]
    assert [(r.index, r.name) for r in verdict.rejected] == [(0, "a")]
    assert len(verdict.accepted) + len(verdict.rejected) == verdict.total == 3


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, None),
        (-1, None),
        (-1.5, None),
        (None, None),
        ("", None),
        ("0", None),
        ("Session", None),
        (True, None),
        (str(LATER), LATER),
        (f"{LATER}.25", LATER + 0.25),
        (LATER * 1e6, LATER),
        ((LATER + 11_644_473_600) * 1e6, LATER),
        (LATER_ISO, LATER),
        (LATER_ISO + "Z", LATER),
        ("2027-01-15T09:00:00+01:00", LATER),
        ("2027-01-15T08:00:00.1234567Z", LATER),
        ("Fri, 15 Jan 2027 08:00:00 GMT", LATER),
        ("Fri, 15-Jan-2027 08:00:00 GMT", LATER),
        ("1/15/2027 8:00:00 AM", LATER),
        ("/Date(-62135596800000)/", None),
        ("0001-01-01T00:00:00Z", None),
        ("2027-01-15", LATER - 8 * 3600),
    ],
)
def test_dates(value: Any, expected: float | None) -> None:
    assert expiry_of(value, NOW) == expected


@pytest.mark.parametrize(
    "value", ["2027-13-45T99:00:00", "soon", "/Date(x)/", "2015-01-01T00:00:00", 1, LATER - 10_000_000]
)
def test_dates_that_do_not_let_it_live(value: Any) -> None:
    with pytest.raises(UnreadableDate):
        expiry_of(value, NOW)


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(
    [
        "name",
        "Name",
        "value",
        "Value",
        "domain",
        "Domain",
        "host_key",
        "path",
        "expires",
        "ExpirationDate",
        "expiry",
        "secure",
        "sameSite",
        "samesite",
        "partitionKey",
        "hostOnly",
        "url",
        "IsValid",
        "Expired",
        "maxAge",
        "encrypted_value",
    ]
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.dictionaries(KEYS, JSONISH, max_size=10) | JSONISH, max_size=4))
def test_whatever_comes_each_item_is_judged(items: list[Any]) -> None:
    verdict = normalise(items, now_s=NOW)
    assert all(0 <= item.index < len(items) for item in verdict.rejected)
    for cookie in verdict.accepted:
        shaped = browser_cookie(cookie)
        assert cookie.name
        assert cookie.path.startswith("/")
        assert cookie.expires is None or NOW < cookie.expires <= NOW + MAX_AGE_S
        assert not (shaped.get("sameSite") == "None" and not cookie.secure)


def test_no_value_in_any_verdict() -> None:
    secret = "tOpSeCrEt"
    items: list[Any] = [{**BASE, **change} for change, _ in REFUSED]
    items = [item | {"value": secret if isinstance(item.get("value"), str) else item.get("value")} for item in items]
    items += [secret, f"{secret};{secret}", {"value": secret}, {"name": f"x{secret};", "value": secret}]
    verdict = normalise(items, now_s=NOW)
    assert secret not in repr(verdict.rejected)
