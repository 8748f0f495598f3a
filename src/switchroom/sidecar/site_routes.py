"""`/crawl/sites`: the sites that crawls made, their pages, and what a person wants of each page."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import unquote

import msgspec
from aiohttp import web

from switchroom.crawler import local_pdf, marks, sites, urls
from switchroom.crawler.job import ExtractMode, Job, PageRecord, RenderMode
from switchroom.crawler.marks import Choice, HostMarks
from switchroom.crawler.output import rfc3339_ms
from switchroom.crawler.shelf import Shelf
from switchroom.errors import BadInput, Conflict, Fault, NotFound
from switchroom.http_problems import read_json
from switchroom.sidecar.context import FRESHNESS, JOBS, TOOLS

MAX_BODY_BYTES = 4_194_304
MAX_MARKS = 10_000
_BATCH = 200


class MarkBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """One mark. `url` is a page, or a pattern with `*`; without a `mark` (null) the page is as it was before any."""

    url: str
    mark: marks.Mark | None = None
    render: RenderMode | None = None
    extract: ExtractMode | None = None
    images: bool | None = None


def routes() -> list[web.RouteDef]:
    one = "/crawl/sites/{host}"
    return [
        web.get("/crawl/sites", list_sites),
        web.post("/crawl/sites/adopt", adopt_folders),
        web.post("/crawl/sites/local_pdf/look", look_at_pdfs),
        web.get(one, show),
        web.patch(one, change),
        web.delete(one, forget),
        web.get(one + "/pages", pages),
        web.patch(one + "/pages", mark),
        web.get(one + "/marks", list_marks),
        web.get(one + "/changes/{name:.+}", diff),
    ]


async def list_sites(request: web.Request) -> web.Response:
    """All sites with the number of their pages."""
    store = request.app[TOOLS].store
    found = [await _described(request, host) for host in await sites.all_sites(store)]
    return web.json_response({"sites": found})


async def adopt_folders(request: web.Request) -> web.Response:
    """Make sites of folders with a `sitemap.xml` that somebody put among the sites; a job each reads its pages."""
    made = await request.app[FRESHNESS].adopt()
    return web.json_response({"sites": made})


async def look_at_pdfs(request: web.Request) -> web.Response:
    """Read the PDF files in the folder `Local_PDF` that are new or changed into the collection of that name."""
    return web.json_response(msgspec.to_builtins(await local_pdf.look(request.app[TOOLS])))


async def show(request: web.Request) -> web.Response:
    """One site."""
    return web.json_response(await _described(request, await _host(request)))


async def change(request: web.Request) -> web.Response:
    """`{"alwaysFresh": false}` leaves a site out of the daily run, `true` takes it in again."""
    host = await _host(request)
    body = await read_json(request, MAX_BODY_BYTES)
    fresh = body.get("alwaysFresh") if isinstance(body, dict) else None
    if not isinstance(fresh, bool) or len(body) != 1:
        raise BadInput("alwaysFresh is wanted.", faults=[Fault("is not true or false", "/alwaysFresh")])
    await sites.set_fresh(request.app[TOOLS].store, host, fresh)
    return web.json_response(await _described(request, host))


async def forget(request: web.Request) -> web.Response:
    """Remove a site: its pages, files, marks and knowledge. `Conflict` while a job is at it."""
    host = await _host(request)
    tools = request.app[TOOLS]
    if await request.app[JOBS].at_work_on(host):
        raise Conflict("A job is at work on this site; cancel it first.", code="site_busy")
    shelf = Shelf(tools, Job(id="", spec=await sites.spec_of(tools.store, host)))
    return web.json_response({"host": host, "removedPages": await shelf.drop(host)})


async def pages(request: web.Request) -> web.Response:
    """The pages of a site by URL: those that were read and placeholders. `?mark=`, `?state=` (`kept`, `found`, `gone`,
    `passed`) and `?contains=` pick; `?offset=` and `?limit=` (200, at most 1000) page."""
    host = await _host(request)
    offset = _number(request, "offset", 0, 0, 10_000_000)
    limit = _number(request, "limit", 200, 1, 1000)
    rows = await _rows(request, host)
    for name in ("mark", "state"):
        if (wanted := request.query.get(name)) is not None:
            rows = [row for row in rows if row[name] == wanted]
    if part := request.query.get("contains"):
        rows = [row for row in rows if part in row["url"]]
    return web.json_response({"pages": rows[offset : offset + limit], "total": len(rows)})


async def list_marks(request: web.Request) -> web.Response:
    """What was wanted of pages, by URL and by pattern."""
    host = await _host(request)
    found = await marks.all_of(request.app[TOOLS].store, host)
    return web.json_response({name: _choice(choice) for name, choice in sorted(found.items())})


async def mark(request: web.Request) -> web.Response:
    """Mark pages: `[{"url", "mark": "use" | "ignore" | "delete" | null, "render", "extract", "images"}]`, where `url`
    may be a pattern such as `https://example.com/archive/*`.

    It holds at once: pages that are ignored leave the knowledge, deleted ones the folder too; pages that are used again
    come back into the knowledge if their text is still there, and with the next crawl if not. 200 with how many known
    pages each mark holds for.
    """
    host = await _host(request)
    tools = request.app[TOOLS]
    body = await read_json(request, MAX_BODY_BYTES)
    choices = _read_marks(body, host)
    held = await marks.all_of(tools.store, host)
    patterns = sum("*" in name for name in {**held, **choices})
    if patterns > marks.MAX_PATTERNS:
        raise BadInput(f"A site has at most {marks.MAX_PATTERNS} patterns.", code="too_many_patterns")
    before = HostMarks(held)
    await marks.keep(tools.store, host, choices)
    after = HostMarks(await marks.all_of(tools.store, host))
    await _obey(request, host, before, after)
    known = [row["url"] for row in await _rows(request, host)]
    counted = {
        name: sum(1 for url in known if marks.fitting(name).fullmatch(url)) if "*" in name else int(name in set(known))
        for name in choices
    }
    return web.json_response({"marked": counted})


async def diff(request: web.Request) -> web.Response:
    """A difference that a change names (`diff`): unified, as text."""
    host = await _host(request)
    name = "changes/" + unquote(request.match_info["name"])
    if not all(part and not part.startswith(".") for part in name.split("/")) or not name.endswith(".diff"):
        raise NotFound("There is no such difference.")
    path = request.app[TOOLS].output.folder(host) / name
    try:
        text = await asyncio.to_thread(path.read_text, "utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound("There is no such difference.") from None
    return web.Response(text=text, content_type="text/x-diff", charset="utf-8")


def _read_marks(body: Any, host: str) -> dict[str, Choice | None]:
    try:
        rows = msgspec.convert(body if isinstance(body, list) else [body], list[MarkBody])
    except msgspec.ValidationError as error:
        raise BadInput(f"The marks are wrong: {error}.", faults=[Fault(str(error), "")]) from error
    if not 0 < len(rows) <= MAX_MARKS:
        raise BadInput(f"1 to {MAX_MARKS} marks are taken at once.")
    found: dict[str, Choice | None] = {}
    faults: list[Fault] = []
    for place, row in enumerate(rows):
        as_it_is = "*" in row.url or row.url.startswith(local_pdf.PREFIX)
        url = row.url if as_it_is else urls.canonical(row.url)
        try:
            ours = url is not None and marks.host_of(url.partition("*")[0]) == host
        except (ValueError, AssertionError):
            ours = False
        if url is None or not ours:
            faults.append(Fault(f"is no page of {host}, nor a pattern that begins with its address", f"/{place}/url"))
            continue
        options = {"render": row.render, "extract": row.extract, "images": row.images}
        empty = row.mark is None and all(value is None for value in options.values())
        found[url] = None if empty else Choice(mark=row.mark or "use", **options)  # type: ignore[arg-type]
    if faults:
        raise BadInput("Some pages cannot be marked.", faults=faults)
    return found


async def _obey(request: web.Request, host: str, before: HostMarks, after: HostMarks) -> None:
    """Let the folder and the knowledge be as the marks say."""
    tools = request.app[TOOLS]
    shelf = Shelf(tools, Job(id="", spec=await sites.spec_of(tools.store, host)))
    changed: dict[str, list[PageRecord]] = {"use": [], "ignore": [], "delete": []}
    for page in await sites.site_pages(tools.store, host):
        wanted = after.of(page.url).mark
        if wanted != before.of(page.url).mark:
            changed[wanted].append(page)
    if changed["ignore"]:
        await shelf.hide(host, [page.url for page in changed["ignore"]])
    if changed["delete"]:
        await shelf.forget(host, [page.url for page in changed["delete"]])
        kept = {
            page.url: sites.Placeholder(found_ms=page.fetched_ms, title=page.title, depth=page.depth)
            for page in changed["delete"]
        }
        await sites.keep_placeholders(tools.store, host, kept)
    for start in range(0, len(changed["use"]), _BATCH):
        await shelf.show(host, changed["use"][start : start + _BATCH])
    if any(changed.values()):
        await shelf.write_index(host)


async def _host(request: web.Request) -> str:
    host = urls.bare_host(request.match_info["host"])
    await sites.spec_of(request.app[TOOLS].store, host)
    return host


async def _described(request: web.Request, host: str) -> dict[str, Any]:
    store = request.app[TOOLS].store
    spec = await sites.spec_of(store, host)
    kept, found = await sites.sizes(store, host)
    return {
        "host": host,
        "starts": list(spec.starts),
        "collection": spec.collection or host,
        "pages": kept,
        "placeholders": found,
        "alwaysFresh": await sites.is_fresh(store, host),
    }


async def _rows(request: web.Request, host: str) -> list[dict[str, Any]]:
    store = request.app[TOOLS].store
    wanted = HostMarks(await marks.all_of(store, host))
    rows: dict[str, dict[str, Any]] = {}
    for url, found in (await sites.placeholders(store, host)).items():
        rows[url] = {
            "url": url,
            "state": "passed" if found.cause else "found",
            "title": found.title or None,
            "cause": found.cause or None,
            "status": found.status or None,
            "leadsTo": found.leads_to or None,
            "depth": found.depth,
            "lastmod": found.lastmod or None,
            "fetchedAt": rfc3339_ms(found.checked_ms) if found.checked_ms else None,
        }
    for page in await sites.site_pages(store, host):
        rows[page.url] = {
            "url": page.url,
            "state": "gone" if page.gone_ms else "kept",
            "title": page.title or None,
            "status": page.status or None,
            "depth": page.depth,
            "rendered": page.rendered,
            "chars": page.chars,
            "lastmod": page.lastmod or None,
            "fetchedAt": rfc3339_ms(page.fetched_ms),
            "changedAt": rfc3339_ms(page.changed_ms or page.fetched_ms),
            "goneAt": rfc3339_ms(page.gone_ms) if page.gone_ms else None,
        }
    for url, row in rows.items():
        row.update(_choice(wanted.of(url)))
    return [rows[url] for url in sorted(rows)]


def _choice(choice: Choice) -> dict[str, Any]:
    told: dict[str, Any] = {"mark": choice.mark}
    options = {"render": choice.render, "extract": choice.extract, "images": choice.images}
    return told | {name: value for name, value in options.items() if value is not None}


def _number(request: web.Request, name: str, default: int, least: int, most: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isdigit() or not least <= int(text) <= most:
        raise BadInput(f"{name} is not a number from {least} to {most}.", faults=[Fault("is out of range", f"/{name}")])
    return int(text)
