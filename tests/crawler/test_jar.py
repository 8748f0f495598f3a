"""Which cookies go where, and what sites change about them."""

from __future__ import annotations

from yarl import URL

from switchroom.crawler.cookies import Cookie, parse_set_cookie
from switchroom.crawler.jar import Jar

NOW = 1_795_000_000.0


def test_jar_sends_only_where_it_belongs() -> None:
    jar = Jar(
        [
            Cookie(name="host", value="1", domain="app.example.com"),
            Cookie(name="all", value="2", domain=".example.com", secure=True),
            Cookie(name="deep", value="3", domain="app.example.com", path="/a/b"),
            Cookie(name="old", value="4", domain="app.example.com", expires=NOW - 1),
            Cookie(name="ip", value="5", domain="127.0.0.1"),
            Cookie(name="part", value="6", domain=".example.com", partition_key="https://other.example"),
        ],
        clock=lambda: NOW,
    )
    assert jar.header_for(URL("https://app.example.com/")) == "host=1; all=2"
    assert jar.header_for(URL("http://app.example.com/")) == "host=1"
    assert jar.header_for(URL("https://app.example.com/a/b/c")) == "deep=3; host=1; all=2"
    assert jar.header_for(URL("https://app.example.com/a/bc")) == "host=1; all=2"
    assert jar.header_for(URL("https://example.com/")) == "all=2"
    assert jar.header_for(URL("https://sub.app.example.com/")) == "all=2"
    assert jar.header_for(URL("https://notexample.com/")) == ""
    assert jar.header_for(URL("https://example.com.evil.example/")) == ""
    assert jar.header_for(URL("http://127.0.0.1:8080/")) == "ip=5"
    assert jar.header_for(URL("http://1.127.0.0.1/")) == ""


def test_jar_takes_what_sites_set() -> None:
    jar = Jar([Cookie(name="sid", value="1", domain="app.example.com")], clock=lambda: NOW)
    here = URL("https://app.example.com/x/y")
    jar.absorb(
        here,
        ["sid=2; Path=/", "new=1; Domain=example.com; Path=/", "evil=1; Domain=other.example", "tld=1; Domain=com"],
    )
    assert jar.header_for(here) == "sid=2; new=1"
    assert set(jar.take_changes()) == {("sid", "app.example.com", "/", None), ("new", ".example.com", "/", None)}
    jar.absorb(here, ["sid=gone; Path=/; Max-Age=0"])
    assert jar.header_for(here) == "new=1"
    assert jar.cleared == {"app.example.com": 1}
    jar.absorb(here, ["new=; Domain=example.com; Path=/; Expires=Thu, 01 Jan 1970 00:00:01 GMT"])
    assert jar.header_for(here) == ""
    assert jar.take_changes() == {("sid", "app.example.com", "/", None): None, ("new", ".example.com", "/", None): None}


def test_set_cookie_default_path_and_junk() -> None:
    parsed = parse_set_cookie("a=1", "h.example", "/x/y", NOW)
    assert parsed is not None
    assert (parsed[0].path, parsed[0].domain) == ("/x", "h.example")
    for junk in ("", ";", "noequals", "=novalue", "a\x00=1"):
        assert parse_set_cookie(junk, "h.example", "/", NOW) is None
