"""URLs of a crawl: one spelling a page, what is in scope, what must never be followed, what smells of a trap. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

from yarl import URL

_TRACKING = re.compile(
    r"(?:utm_\w+|mc_[ce]id|fbclid|gclid|gbraid|wbraid|dclid|msclkid|yclid|twclid|ttclid|igshid|li_fat_id|_hs\w+|hsctatracking"
    r"|mkt_tok|oly_\w+|vero_\w+|_ga|_gl|ref_src|s_cid|spm|wickedid|phpsessid|jsessionid|aspsessionid\w*|sessionid)",
    re.IGNORECASE,
)
# These names are used for other things as well: a session where the value is one that no person would choose.
_MAYBE_SESSION = re.compile(r"s|sid|sess|sessid|session|session_?id|oscsid|zenid|cftoken", re.IGNORECASE)
_OPAQUE = re.compile(r"(?=[^\d]*\d)(?=[^a-z]*[a-z])[0-9a-z-]{20,}", re.IGNORECASE)
_PATH_SESSION = re.compile(r";(?:jsessionid|phpsessid|sid)=[^/?#]*", re.IGNORECASE)
_ENDS_SESSION = re.compile(
    r"(?:^|[/_.?&=-])(?:log[_-]?(?:me[_-]?)?(?:out|off)|sign[_-]?(?:me[_-]?)?(?:out|off)|logged[_-]?out|end[_-]?session"
    r"|abmelden|ausloggen|odjava|odjavi[_-]?se|izpis|d[eé]connexion|(?:se[_-]?)?d[eé]connecter|cerrar[_-]?sesi[oó]n|esci"
    r"|disconnetti|afmelden|uitloggen|wyloguj|odhl[aá]sit)(?=$|[/_.?&=;-])",
    re.IGNORECASE,
)
_CHANGES = re.compile(
    r"(?:^|[/_.?&=-])(?:delete|destroy|remove|unsubscribe|deactivate|terminate|revoke|purge|cancel|trash|erase|izbrisi)"
    r"(?=$|[/_.?&=;-])|(?:^|/)accounts?/close(?=$|[/?.])",
    re.IGNORECASE,
)
_DOES = re.compile(
    r"(?:delete|destroy|remove|unsubscribe|deactivate|terminate|revoke|purge|erase|discard|cancel|close my account"
    r"|l[oö]schen|entfernen|k[uü]ndigen|supprimer|eliminar|borrar|elimina|izbri[sš]i|odstrani|verwijder\w*)\b",
    re.IGNORECASE,
)
_MOST_WORDS_OF_A_COMMAND = 5
# An address or a title that speaks of logging out or deleting instead of doing it.
_PROSE = re.compile(
    r"(?:^|[\s_-])(?:how|why|when|what|who|where|an?|the|of|and|is|are|best|guides?|about|explained|faqs?|tips|practices|polic(?:y|ies)"
    r"|wie|warum|was|kako|zakaj|comment|pourquoi|c[oó]mo|come)(?=[\s_.-]|$)",
    re.IGNORECASE,
)
_ASKS_HOW = re.compile(
    r"(?:how|why|when|what|where|about|should|can|wie|warum|was|kako|zakaj|comment|pourquoi|c[oó]mo|come)\b",
    re.IGNORECASE,
)
_LOGIN = re.compile(
    r"(?:^|[/_.?&=-])(?:log[_-]?in|sign[_-]?in|log[_-]?on|sign[_-]?on|sso|saml2?|oauth2?|auth|authenticate|authorize|session/new"
    r"|sessions/new|anmelden|einloggen|prijava|connexion|wp-login|accounts?/login)(?=$|[/_.?&=;-])",
    re.IGNORECASE,
)
_LOGIN_PAGE = re.compile(
    r"(?:log[_-]?in|sign[_-]?in|log[_-]?on|sign[_-]?on|wp-login|sso|saml2?|authorize|anmelden|einloggen|prijava|connexion)"
    r"(?:\.[a-z]{2,5})?",
    re.IGNORECASE,
)
_ASSET = re.compile(
    r"\.(?:css|m?js|map|json|xml|rss|atom|ico|png|jpe?g|gif|svg|webp|avif|bmp|tiff?|woff2?|ttf|eot|otf|mp[34]|m4[av]|webm|ogg|"
    r"wav|flac|avi|mov|mkv|zip|gz|tgz|bz2|xz|7z|rar|tar|exe|msi|dmg|pkg|deb|rpm|apk|iso|bin|docx?|xlsx?|pptx?|odt|ods|ics|vcf)$",
    re.IGNORECASE,
)
_VARIABLE = re.compile(r"\d+|[0-9a-f]{8,}(?:-[0-9a-f]{4,})*", re.IGNORECASE)

_ROUTE = re.compile(r"!?/[^/]|![^/]")
_NO_PAGES = ("javascript:", "mailto:", "tel:", "data:", "blob:", "sms:")
# A path that is its own canonical form: no query, nothing to encode, no `.` segment, no session parameter.
_PLAIN_PATH = re.compile(r"(?:/(?!\.)[A-Za-z0-9_.~-]*)+(?:#.*)?")

MAX_URL_CHARS = 2000
MAX_SEGMENTS = 16
MAX_PARAMETERS = 8


@lru_cache(maxsize=8192)
def canonical(text: str) -> str | None:
    """One spelling of an absolute http(s) URL: no fragment but a route of the page's own script (`#/prices`), no
    default port, user, tracking or session parameters, and the parameters that stay in a stable order.
    None for anything that is not one."""
    try:
        url = URL(text.strip())
    except ValueError:
        return None
    if url.scheme not in ("http", "https") or not url.host:
        return None
    if url.user or url.password:
        url = url.with_user(None)
    pairs = [(key, value) for key, value in url.query.items() if not _is_dropped(key, value)]
    path = _PATH_SESSION.sub("", url.path) or "/"
    if path != url.path or path == "/":
        url = url.with_path(path)
    route = url.raw_fragment if _ROUTE.match(url.raw_fragment) else ""
    plain = str(url.with_query(sorted(pairs) or None).with_fragment(None))
    return f"{plain}#{route}" if route else plain


def document_of(url: str) -> str:
    """The address without the route of the page's own script: what is asked for over HTTP."""
    return url.partition("#")[0]


def _is_dropped(name: str, value: str) -> bool:
    """Whether a parameter only says who follows a link, not where it leads."""
    if _TRACKING.fullmatch(name):
        return True
    return _MAYBE_SESSION.fullmatch(name) is not None and _OPAQUE.fullmatch(value) is not None


def resolve(base: str, link: str) -> str | None:
    """An `href` on the page `base` as a canonical URL; None where it leads nowhere that can be crawled."""
    link = link.strip()
    if "\n" in link or "\t" in link or "\r" in link:  # browsers take them out (WHATWG URL, 4.4)
        link = link.replace("\n", "").replace("\t", "").replace("\r", "")
    if "\\" in link:  # browsers take it for a slash, but not in a query
        path, mark, query = link.partition("?")
        link = path.replace("\\", "/") + mark + query
    if "#/" in link or "#!" in link:
        return _resolved(base, link)
    if not link or link[0] == "#" or link[:11].lower().startswith(_NO_PAGES):
        return None
    if link[0] == "/" and link[1:2] != "/":
        # The same on every page of the site; most need no parsing at all.
        origin = base[: base.find("/", 8)]
        if _PLAIN_PATH.fullmatch(link):
            return origin + link.partition("#")[0]
        return _resolved(origin + "/", link)
    return _resolved(base, link)


@lru_cache(maxsize=16_384)
def _resolved(base: str, link: str) -> str | None:
    try:
        return canonical(str(URL(base).join(URL(link))))
    except ValueError:
        return None


def host_of(url: str) -> str:
    """The host as it stands in a canonical URL, with a port that is not the scheme's own."""
    return url.partition("://")[2].partition("/")[0]


def is_asset(url: str) -> bool:
    """Whether the path's extension says that this is no page to read."""
    return _ASSET.search(URL(url).path) is not None


def is_login_page(url: str) -> bool:
    """Whether the address is a login by its last part: such a link is not worth following."""
    parts = URL(url)
    name = parts.fragment.rpartition("/")[2] if parts.fragment else parts.name
    return _LOGIN_PAGE.fullmatch(name) is not None or parts.query.get("action", "").lower() in ("login", "signin")


def is_login_url(url: str) -> bool:
    """Whether path or query look like a login."""
    parts = URL(url)
    return _LOGIN.search(f"{parts.path}/{parts.fragment}") is not None or _LOGIN.search(parts.query_string) is not None


def ends_session(url: str, words: str = "") -> bool:
    """Whether following the link, by its address or its words, would log out; an article about that would not."""
    if _does(_ENDS_SESSION, url):
        return True
    if not words or _ASKS_HOW.match(words.strip()):
        return False
    return _ENDS_SESSION.search(words.strip().replace(" ", "-")) is not None


def changes_something(url: str, words: str = "") -> bool:
    """Whether the link sounds as if a GET on it deleted or cancelled something."""
    if _does(_CHANGES, url):
        return True
    words = words.strip()
    return _DOES.match(words) is not None and len(words.split()) <= _MOST_WORDS_OF_A_COMMAND


def _does(action: re.Pattern[str], url: str) -> bool:
    """Whether an address names an action: as a part of its path that is no title of an article, or in its query."""
    parts = URL(url)
    # A parameter that holds an address says where to go back to.
    asked = "".join(f"&{name}={value}" for name, value in parts.query.items() if "/" not in value)
    if asked and action.search(asked) is not None:
        return True
    path = f"{parts.path}/{parts.fragment}" if parts.fragment else parts.path
    if action.search(path) is None:
        return False
    rest = "/".join("" if _speaks(part) else part for part in path.split("/"))
    return action.search(rest) is not None


def _speaks(text: str) -> bool:
    """Whether a path's segment or a link's words are a title (`how-to-log-out`), not an order (`log-out`)."""
    return _PROSE.search(text) is not None and len(re.split(r"[\s_-]+", text)) > 1


def trap_reason(url: str) -> str | None:
    """Why the address alone says that a site makes up pages without end; None where it does not."""
    if len(url) > MAX_URL_CHARS:
        return "url_too_long"
    parts = URL(url)
    segments = [segment for segment in parts.path.split("/") if segment]
    if len(segments) > MAX_SEGMENTS:
        return "path_too_deep"
    if len(parts.query) > MAX_PARAMETERS:
        return "too_many_parameters"
    if len(segments) >= 6 and _repeats(segments):
        return "path_repeats"
    return None


def pattern_of(url: str) -> str:
    """The address with its numbers and hashes taken out and parameter names only: what pages of one kind share."""
    parts = URL(url)
    path = "/".join(_VARIABLE.sub("#", segment) for segment in parts.path.split("/"))
    names = "&".join(sorted(set(parts.query)))
    return f"{parts.host}{path}{'?' + names if names else ''}"


def in_scope(url: str, roots: frozenset[str]) -> bool:
    """Whether the URL's host (with port) is one of `roots`, seen without a leading `www.`."""
    return bare_host(host_of(url)) in roots


def bare_host(host: str) -> str:
    """A host without its leading `www.`."""
    return host.lower().removeprefix("www.")


def same_page(url: str, canonical: str | None) -> str:
    """The canonical address where it only tidies the URL (query, slash, index file, scheme), else the URL itself: sites
    that name their home page as canonical of everything are common."""
    if canonical is None or canonical == url:
        return url
    here, there = URL(url), URL(canonical)
    same_host = bare_host(host_of(url)) == bare_host(host_of(canonical))
    tidy = [path.removesuffix("index.html").removesuffix("index.php").rstrip("/") for path in (here.path, there.path)]
    return canonical if same_host and tidy[0] == tidy[1] else url


def _repeats(segments: list[str]) -> bool:
    """Three times the same run of segments in a row (`/a/b/a/b/a/b`), six times the same segment."""
    for width, times in ((1, 6), (2, 3), (3, 3)):
        for start in range(len(segments) - times * width + 1):
            if segments[start : start + times * width] == times * segments[start : start + width]:
                return True
    return False
