"""The crawler's pure parts: URLs, pages, walls, traps, job states, Markdown, sitemaps, manners."""

from __future__ import annotations

import gzip
from itertools import product

import pytest
from selectolax.lexbor import LexborHTMLParser

from switchroom.crawler import login_wall, urls
from switchroom.crawler.extract import article, document, front_matter
from switchroom.crawler.job import FINAL, TABLE, JobEvent, JobState, next_state
from switchroom.crawler.manners import retry_after_s
from switchroom.crawler.output import file_name
from switchroom.crawler.page import Page, page_of, parsed
from switchroom.crawler.robots import Robots
from switchroom.crawler.sitemap import Entry, parse_sitemap
from switchroom.crawler.traps import ALIKE_BUDGET, Traps
from switchroom.errors import Conflict


def read_page(html: str, url: str) -> Page:
    return page_of(parsed(html), url)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("HTTPS://Example.COM:443/a/../b?utm_source=x&b=2&a=1#top", "https://example.com/b?a=1&b=2"),
        ("http://example.com", "http://example.com/"),
        ("http://user:pw@example.com/x;jsessionid=9A?PHPSESSID=1&q=č", "http://example.com/x?q=%C4%8D"),
        ("https://example.com/?fbclid=1", "https://example.com/"),
        ("https://žito.example/", "https://xn--ito-0wa.example/"),
        ("mailto:a@example.com", None),
        ("/relative", None),
        ("http://[::1", None),
    ],
)
def test_one_spelling_a_page(given: str, expected: str | None) -> None:
    found = urls.canonical(given)
    if expected and "xn--" in expected:
        assert found is not None and found.startswith("https://xn--")
    else:
        assert found == expected
    assert found is None or urls.canonical(found) == found


@pytest.mark.parametrize(
    ("url", "words", "ends"),
    [
        ("https://x.example/logout", "", True),
        ("https://x.example/user/sign_out", "", True),
        ("https://x.example/?action=logout&x=1", "", True),
        ("https://x.example/wp-login.php?action=logout", "", True),
        ("https://x.example/odjava", "", True),
        ("https://x.example/s/7f3", "Log out", True),
        ("https://x.example/blog/logoutput", "", False),
        ("https://x.example/blog/how-to-log", "How to log", False),
        ("https://x.example/catalogue", "", False),
    ],
)
def test_links_that_end_a_session(url: str, words: str, ends: bool) -> None:
    assert urls.ends_session(url, words) is ends


def test_links_that_change_something_and_login_addresses() -> None:
    assert urls.changes_something("https://x.example/items/7/delete")
    assert urls.changes_something("https://x.example/cart?remove=7")
    assert not urls.changes_something("https://x.example/news/undeleted-scenes")
    assert urls.is_login_url("https://x.example/login?next=/a")
    assert urls.is_login_url("https://x.example/accounts/sign-in")
    assert urls.is_login_url("https://x.example/oauth2/authorize")
    assert not urls.is_login_url("https://x.example/blog/authors")


def test_shells_by_rule() -> None:
    def shell(body: str) -> str | None:
        return read_page(f"<html><head><title>t</title></head><body>{body}</body></html>", "https://x.example/").shell

    assert shell('<div id="root"></div><script src="/app.js"></script>') == "empty_root"
    assert shell("<app-root></app-root><script></script>") == "empty_root"
    assert shell("<p>Loading...</p><script></script>") == "asks_for_javascript"
    assert shell("<noscript>Please enable JavaScript</noscript><div></div><script></script>") == "asks_for_javascript"
    assert shell("<div></div><script>x()</script>") == "no_text"
    assert shell('<div id="root"></div>') is None
    words = "<p>plenty of words here </p>" * 20
    assert shell(f'<script></script><a href="/">Home</a>{words}') is None
    assert shell(f"<script></script>{words}") == "no_links"
    assert shell(words) is None
    assert shell(f'<script></script><a href="/">Home</a>{words}<div id="app"></div>') == "empty_root"
    assert shell(f'<script></script><a href="/">Home</a>{words}<div id="app"><p>There</p></div>') is None
    assert (
        shell('<div id="root">' + "rendered on the server " * 20 + '<a href="/x">on</a></div><script></script>') is None
    )


def test_what_a_page_says() -> None:
    page = read_page(
        """<html><head><title> A  title </title><base href="/deep/"><link rel=canonical href="/c?utm_medium=1">
        <meta name=robots content="NoIndex, nofollow"><meta http-equiv=refresh content="0; url=/next"></head><body>
        <h1>Head</h1><a href="one">One</a><a href="one#x">again</a><a href="javascript:x()">no</a>
        <a href="mailto:a@b">no</a><a href="/post" data-method="delete">no</a><a rel="nofollow" href="two">Two</a>
        <input type=PASSWORD></body></html>""",
        "https://x.example/page",
    )
    assert (page.title, page.canonical, page.refresh) == ("A title", "https://x.example/c", "https://x.example/next")
    assert [(link.url, link.words, link.nofollow) for link in page.links] == [
        ("https://x.example/deep/one", "One", False),
        ("https://x.example/deep/two", "Two", True),
    ]
    assert page.noindex
    assert page.nofollow
    assert page.password_form


HOME = "https://x.example/members"
FORM = "<title>Log in</title><form><input type=password></form>"


@pytest.mark.parametrize(
    ("got", "status", "html", "cleared", "sign"),
    [
        ("https://x.example/login?next=/members", 200, FORM, False, "redirected_to_login"),
        ("https://sso.example/auth", 200, "", False, "redirected_to_login"),
        (HOME, 401, "", False, "status_401"),
        (HOME, 403, "", False, "status_403"),
        (HOME, 200, FORM, False, "password_form"),
        (HOME, 200, FORM, True, "cookie_cleared"),
        ("https://x.example/", 200, "<p>Please log in to go on.</p>", True, "cookie_cleared"),
        (HOME, 200, "<p>Your session has expired.</p>", False, "asks_to_log_in"),
        (HOME, 200, '<meta http-equiv=refresh content="0;url=/login"><p>One moment</p>', False, "redirected_to_login"),
        (HOME, 200, "<title>News</title><p>words</p>" * 200 + "<form><input type=password></form>", False, None),
        (HOME, 200, "<p>Please log in</p>" + "<p>words and words</p>" * 100, False, None),
        (HOME, 200, "<p>How a login works</p>", False, None),
        (HOME, 404, FORM, False, None),
        (HOME, 500, FORM, False, None),
    ],
)
def test_signs_of_a_login_wall(got: str, status: int, html: str, cleared: bool, sign: str | None) -> None:
    page = read_page(f"<html><body>{html}</body></html>", got)
    assert login_wall.suspect(HOME, got, status, page, cookie_cleared=cleared) == sign


def test_a_login_page_asked_for_is_no_wall_and_http_auth_is_another_thing() -> None:
    login = "https://x.example/login"
    assert login_wall.suspect(login, login, 200, read_page(FORM, login)) is None
    assert login_wall.http_auth(401, 'Basic realm="x"')
    assert not login_wall.http_auth(401, 'Cookie realm="x"')


def test_one_body_on_many_urls() -> None:
    same = login_wall.SameBody(limit=3)
    text = "Welcome to our portal. Sign in with your company account."
    assert same.add("u1", text) == []
    assert same.add("u1", text) == []
    assert same.add("u2", text) == []
    assert same.add("u3", text) == ["u1", "u2", "u3"]
    assert all(same.add(f"v{i}", "An empty list of results.") == [] for i in range(5))


def test_every_state_and_event() -> None:
    for state, event in product(JobState, JobEvent):
        if (state, event) in TABLE:
            assert next_state(state, event) in JobState
        else:
            with pytest.raises(Conflict):
                next_state(state, event)
    for state in FINAL:
        assert {after for (before, _), after in TABLE.items() if before == state} == {state}
    assert all((state, JobEvent.COOKIES) in TABLE for state in JobState)


def test_a_calendar_is_closed_and_articles_are_not() -> None:
    traps = Traps()
    for month in range(40):
        traps.read(f"https://x.example/calendar/2026/{month}", f"Calendar, page {month}: nothing planned", 1)
    assert traps.is_closed("https://x.example/calendar/2031/7")
    assert traps.admits("https://x.example/calendar/2031/7") == "trap"
    assert traps.take_news() == ["x.example/calendar/#/#"]
    words = "abcdefghijklmnopqrstuvwxyz"
    for number in range(400):
        text = f"Article about {words[number % 26]}{words[number // 26]}"
        traps.read(f"https://x.example/articles/{number}", text, number)
    assert traps.admits("https://x.example/articles/401") is None
    assert traps.admits("https://x.example/" + "a/b/" * 5) == "path_repeats"
    assert traps.admits("https://x.example/?" + "&".join(f"p{i}=1" for i in range(9))) == "too_many_parameters"
    assert sum(traps.admits(f"https://x.example/list?sort={i}") is None for i in range(500)) == 100
    assert sum(traps.admits(f"https://x.example/item?id={i}") is None for i in range(500)) == 500


def test_pages_that_differ_in_numbers_are_no_trap_unless_they_hang_in_an_endless_chain() -> None:
    traps = Traps()
    for number in range(2000):
        traps.read(f"https://x.example/meters/{number}", f"Meter {number} counts {number * 7} kWh", depth=number % 8)
    assert traps.admits("https://x.example/meters/9999") is None
    for number in range(ALIKE_BUDGET - 2000):
        traps.read(f"https://x.example/meters/{number}", f"Meter {number} counts {number * 7} kWh", depth=3)
    assert traps.admits("https://x.example/meters/9999") == "trap", "there are more of them than anybody reads"
    for number in range(30):
        traps.read(f"https://x.example/next/{number}", f"This is number {number}. Next.", depth=number)
    assert traps.admits("https://x.example/next/31") == "trap"


def to_markdown(html: str, url: str, title: str) -> str:
    return document(LexborHTMLParser(html), url, title)


def test_markdown_keeps_title_headings_tables_links_and_code() -> None:
    html = """<html><head><title>Tariffs</title></head><body><nav><a href=/home>Home page link</a></nav>
    <main><h1>Tariffs</h1>
    <p>See the <a href="/rules?utm_source=x">rules</a> first, they are <b>binding</b>.</p><h2>Prices</h2>
    <table><tr><th>Kind</th><th>EUR</th></tr><tr><td>Day | night</td><td>1</td></tr></table>
    <ul><li><a href="/a">First</a></li><li>Second<ol><li>inner</li></ol></li></ul><pre>x = 1
y = 2</pre><blockquote><p>Quoted.</p></blockquote></main>
<footer>Imprint here</footer><script>evil()</script></body></html>"""
    text = to_markdown(html, "https://x.example/t", "Tariffs")
    for part in ("# Tariffs", "[rules](https://x.example/rules", "## Prices", "| Kind | EUR |", "[First](https://x.example/a)",
                 "inner", "x = 1\ny = 2", "Quoted."):  # fmt: skip
        assert part in text, part
    for part in ("evil()", "Imprint", "Home page link"):
        assert part not in text, part
    assert text.count("# Tariffs") == 1


def test_what_stands_around_the_content_is_left_out_without_marks_too() -> None:
    words = "<p>The tariff for heat is set by the council each year in November, and told to all members.</p>" * 8
    html = f"""<body><div class="site-nav"><a href=/a>Section A</a></div><div id="cookie-consent">We use cookies.</div>
    <div class="layout has-sidebar"><h1>Tariff</h1>{words}<div class="sidebar"><p>Latest news</p></div></div>
    <div class="footer">Imprint here</div></body>"""
    for text in (
        to_markdown(html, "https://x.example/t", "Tariff"),
        article(html, LexborHTMLParser(html), "https://x.example/t", "Tariff"),
    ):
        assert text.startswith("# Tariff\n")
        assert "set by the council" in text
        for part in ("Section A", "We use cookies", "Imprint"):
            assert part not in text, part
    menu = '<body><div class="menu">' + "<p>Soup of the day, bread and butter</p>" * 9 + "</div><p>Hello</p></body>"
    assert "Soup of the day" in to_markdown(menu, "https://x.example/m", ""), "a restaurant's menu is its content"
    card = '<main><a href="/c"><div><h3>Card</h3><p>Words</p></div></a><p>a<a href="/d"> b </a>c <b>d</b></p></main>'
    text = to_markdown(card, "https://x.example/", "")
    assert text == "### [Card](https://x.example/c)\n\nWords\n\na [b](https://x.example/d) c **d**\n"
    pictured = document(LexborHTMLParser('<p><img src=/a.png alt="A map"></p>'), "https://x.example/", "", images=True)
    assert pictured == "![A map](https://x.example/a.png)\n"


def test_pages_of_little_or_odd_html_still_give_text() -> None:
    assert "just text" in to_markdown("just text", "https://x.example/", "")
    assert to_markdown("", "https://x.example/", "T") == "# T\n"
    deep = "<div>" * 3000 + "deep words" + "</div>" * 3000
    assert "deep words" in to_markdown(f"<body>{deep}</body>", "https://x.example/", "D")


def test_front_matter_cannot_be_broken_out_of() -> None:
    text = front_matter(
        "body\n", url="https://x/", title='a"\n---\nb: c\\', fetched_at="2026-01-01T00:00:00Z", rendered=False
    )
    assert text.splitlines()[2] == 'title: "a\\" --- b: c\\\\"'
    assert text.count("\n---\n") == 1


def test_sitemaps_of_every_kind() -> None:
    base = "https://x.example/sitemap.xml"
    xml = (
        b'<?xml version="1.0"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">'
        b"<url><loc> https://x.example/a </loc><lastmod>2026-01-01</lastmod></url>"
        b"<url><loc>/b</loc></url><url/></urlset>"
    )
    pages = [Entry("https://x.example/a", "2026-01-01"), Entry("https://x.example/b")]
    assert parse_sitemap(xml, base) == ([], pages)
    assert parse_sitemap(gzip.compress(xml), base) == ([], pages)
    index = b"<sitemapindex><sitemap><loc>https://x.example/s1.xml.gz</loc></sitemap></sitemapindex>"
    assert parse_sitemap(index, base) == (["https://x.example/s1.xml.gz"], [])
    assert parse_sitemap(b"https://x.example/a\n\nhttps://x.example/b\n", base)[1][1].url == "https://x.example/b"
    feed = b"<rss><channel><item><link>https://x.example/p</link></item></channel></rss>"
    assert parse_sitemap(feed, base)[1] == [Entry("https://x.example/p")]
    assert parse_sitemap(b"<urlset></urlset>", base) == ([], [])
    for none in (b"", b"<!DOCTYPE html><html></html>", b"no urls here", b"<a><b/></a>", b"\x1f\x8b broken"):
        with pytest.raises(ValueError):
            parse_sitemap(none, base)


def test_sitemap_bombs_stay_small() -> None:
    lol = (
        b'<!DOCTYPE l [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
        b"<urlset><url><loc>https://x.example/&b;</loc></url></urlset>"
    )
    _, entries = parse_sitemap(lol, "https://x.example/s.xml")
    assert all(len(entry.url) < 60 for entry in entries)
    with pytest.raises(ValueError):
        parse_sitemap(gzip.compress(b"<urlset>" + b" " * 60_000_000), "https://x.example/s.xml")


def test_robots() -> None:
    robots = Robots(
        "User-agent: *\nDisallow: /private/\nAllow: /private/open$\nCrawl-delay: 2\nSitemap: https://x.example/s.xml\n"
    )
    assert robots.allows("https://x.example/a")
    assert not robots.allows("https://x.example/private/x")
    assert robots.allows("https://x.example/private/open")
    assert (robots.delay_s, robots.sitemaps) == (2.0, ("https://x.example/s.xml",))
    assert Robots("").allows("https://x.example/private/")
    assert not Robots("", closed=True).allows("https://x.example/")
    assert Robots("User-agent: *\nCrawl-delay: 99999").delay_s == 30


def test_retry_after() -> None:
    assert retry_after_s("7") == 7
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after_s(None) is None
    assert retry_after_s("soon") is None


def test_file_names_are_safe_and_apart() -> None:
    names = {
        file_name(url)
        for url in ("https://x.example/a", "https://x.example/a?b=1", "https://x.example/A/", "https://y.example/a")
    }
    assert len(names) == 4
    for url in ("https://x.example/../../etc/passwd", "https://x.example/%2e%2e/%00", "https://x.example/" + "a" * 900):
        name = file_name(url)
        assert name.startswith("pages/")
        assert ".." not in name
        assert len(name) < 120
