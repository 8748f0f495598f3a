"""`/crawl/jobs`: create, list, watch, pause, resume, cancel; pages and their Markdown."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any, Literal, cast

from aiohttp import web
from yarl import URL

from switchroom.crawler import job_store, sites, urls
from switchroom.crawler.frontier import Frontier
from switchroom.crawler.job import ExtractMode, JobEvent, JobMode, JobSpec, PageRecord, RenderMode
from switchroom.crawler.output import rfc3339_ms
from switchroom.errors import BadInput, Fault, NotFound, Unprocessable
from switchroom.http_problems import read_json
from switchroom.net import GuardedClient, OutboundError, parse_url
from switchroom.sidecar import job_events
from switchroom.sidecar.context import JOBS, SETTINGS, TOOLS
from switchroom.sidecar.jobs import describe
from switchroom.sidecar.settings import signs

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 262_144
MAX_STARTS = 1000
MAX_NAME_CHARS = 200
_KNOWN = frozenset({
    "url", "urls", "domain", "depth", "max_pages", "maxPages", "render", "sitemaps", "on_login_wall", "onLoginWall",
    "extract", "images", "conditional", "warc", "screenshots", "webhook", "mode", "collection",
})  # fmt: skip
_FLAGS = ("sitemaps", "images", "conditional", "warc", "screenshots")
_SCHEME_TIMEOUT_S = 8.0


def routes() -> list[web.RouteDef]:
    return [
        web.post("/crawl/jobs", create),
        web.get("/crawl/jobs", list_all),
        web.get("/crawl/jobs/{id}", show),
        web.get("/crawl/jobs/{id}/pages", pages),
        web.get("/crawl/jobs/{id}/content", content),
        web.get("/crawl/jobs/{id}/screenshot", screenshot),
        web.get("/crawl/jobs/{id}/events", job_events.events),
        web.post("/crawl/jobs/{id}/pause", pause),
        web.post("/crawl/jobs/{id}/resume", resume),
        web.post("/crawl/jobs/{id}/cancel", cancel),
    ]


async def create(request: web.Request) -> web.Response:
    """Queue a job: `{"url": ... | "urls": [...] | "domain": ...}` and the options of `JobSpec` by their names there.

    202 with the job. Members that mean nothing here are named in `ignored`; whether private addresses may be reached is
    the server's setting, never the request's.
    """
    body = await read_json(request, MAX_BODY_BYTES)
    if not isinstance(body, dict):
        raise BadInput("The body is not an object.")
    body = await _choose_scheme(request.app[TOOLS].client, body)
    spec = read_spec(body, request.app[SETTINGS].max_pages)
    for index, start in enumerate(spec.starts):
        parts = URL(start)
        try:
            await request.app[TOOLS].client.guard.resolve(parts.host or "", parts.port or 0)
        except OutboundError as error:
            if error.cause == "address_refused":
                raise Unprocessable(
                    error.detail, code="address_refused", faults=[Fault(error.detail, f"/urls/{index}")]
                ) from error
            log.info("start cannot be resolved now", extra={"host": parts.host, "cause": error.cause})
    job = await request.app[JOBS].create(spec)
    described = await describe(request.app[TOOLS], job)
    if spec.webhook and (made := await request.app[JOBS].alerts.keep_secret(job.id, _secret_of(body))) is not None:
        described["webhookSecret"] = made  # shown this once
    described["ignored"] = sorted(str(name) for name in body if name not in _KNOWN)
    return web.json_response(described, status=202, headers={"Location": f"/crawl/jobs/{job.id}"})


def read_spec(body: dict[str, Any], most_pages: int) -> JobSpec:
    """The job that a request body describes; `BadInput` names every member that is wrong."""
    faults: list[Fault] = []
    given = [name for name in ("url", "urls", "domain") if body.get(name) not in (None, [], "")]
    starts: list[str] = []
    if len(given) != 1:
        faults.append(Fault("exactly one of url, urls and domain is needed", ""))
    else:
        raw = body[given[0]]
        for index, text in enumerate(raw if isinstance(raw, list) else [raw]):
            pointer = f"/{given[0]}/{index}" if isinstance(raw, list) else f"/{given[0]}"
            url = urls.canonical(text) if isinstance(text, str) else None
            if url is None:
                faults.append(Fault("is not an absolute http(s) URL", pointer))
            else:
                starts.append(url)
    if len(starts) > MAX_STARTS:
        faults.append(Fault(f"more than {MAX_STARTS} URLs", "/urls"))
    depth = _whole(body, ("depth",), 3, 0, 100, faults)
    max_pages = _whole(body, ("max_pages", "maxPages"), min(1000, most_pages), 1, most_pages, faults)
    render = _choice(body, ("render",), "auto", ("auto", "always", "never"), faults)
    on_wall = _choice(body, ("on_login_wall", "onLoginWall"), "wait", ("wait", "skip"), faults)
    extract = _choice(body, ("extract",), "page", ("page", "article"), faults)
    mode = _choice(body, ("mode",), "crawl", ("crawl", "discover", "root", "fresh"), faults)
    collection = body.get("collection", "")
    if not isinstance(collection, str) or len(collection) > MAX_NAME_CHARS or not collection.isprintable():
        faults.append(Fault(f"is not a name of at most {MAX_NAME_CHARS} characters", "/collection"))
    webhook = _webhook(body, faults)
    options: dict[str, Any] = {name: _flag(body, name, name == "sitemaps", faults) for name in _FLAGS}
    if faults:
        raise BadInput("The job is not described properly.", faults=faults)
    options["conditional"] = options["conditional"] or mode == "fresh"
    unique = tuple(dict.fromkeys(starts))
    return JobSpec(
        starts=unique,
        hosts=tuple(dict.fromkeys(urls.bare_host(urls.host_of(start)) for start in unique)),
        mode=cast(JobMode, mode),
        collection=str(collection).strip(),
        depth=depth,
        max_pages=max_pages,
        render=cast(RenderMode, render),
        on_login_wall=cast(Literal["wait", "skip"], on_wall),
        extract=cast(ExtractMode, extract),
        webhook=webhook,
        **options,
    )


def _webhook(body: dict[str, Any], faults: list[Fault]) -> str:
    """The URL of `"webhook": "https://..."` or `{"url": ..., "secret": ...}`."""
    given = body.get("webhook")
    if given in (None, ""):
        return ""
    url = given.get("url") if isinstance(given, dict) else given
    try:
        found = str(parse_url(url)) if isinstance(url, str) else ""
    except OutboundError:
        found = ""
    if not found:
        place = "/webhook/url" if isinstance(given, dict) else "/webhook"
        faults.append(Fault("is not an absolute http(s) URL", place))
    if isinstance(given, dict) and (secret := given.get("secret")) is not None and not signs(secret):
        faults.append(Fault("is not whsec_ and the base64 of 24 to 64 bytes", "/webhook/secret"))
    return found


def _secret_of(body: dict[str, Any]) -> str | None:
    given = body.get("webhook")
    return given.get("secret") if isinstance(given, dict) else None


def _flag(body: dict[str, Any], name: str, default: bool, faults: list[Fault]) -> bool:
    value = body.get(name, default)
    if not isinstance(value, bool):
        faults.append(Fault("is not true or false", f"/{name}"))
        return default
    return value


def _whole(
    body: dict[str, Any], names: tuple[str, ...], default: int, least: int, most: int, faults: list[Fault]
) -> int:
    name = next((name for name in names if name in body), names[0])
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        faults.append(Fault(f"is not a whole number from {least} to {most}", f"/{name}"))
        return default
    return value


def _choice(
    body: dict[str, Any], names: tuple[str, ...], default: str, allowed: tuple[str, ...], faults: list[Fault]
) -> str:
    name = next((name for name in names if name in body), names[0])
    value = body.get(name, default)
    if value not in allowed:
        faults.append(Fault(f"is not one of {', '.join(allowed)}", f"/{name}"))
        return default
    return str(value)


async def _choose_scheme(client: GuardedClient, body: dict[str, Any]) -> dict[str, Any]:
    """A bare `domain` as a URL: https where it answers so, else http."""
    domain = body.get("domain")
    if not isinstance(domain, str) or "://" in domain or urls.canonical(f"https://{domain}/") is None:
        return body
    try:
        await client.fetch(f"https://{domain}/", method="HEAD", timeout_s=_SCHEME_TIMEOUT_S, follow=False)
    except OutboundError as error:
        if error.cause in ("connect", "tls", "protocol", "timeout"):
            return {**body, "domain": f"http://{domain}/"}
    return {**body, "domain": f"https://{domain}/"}


async def list_all(request: web.Request) -> web.Response:
    """The newest jobs first, at most `?limit=` (100)."""
    limit = request.query.get("limit", "100")
    if not limit.isdigit() or not 1 <= int(limit) <= 1000:
        raise BadInput("limit is not a number from 1 to 1000.")
    jobs = await job_store.list_jobs(request.app[TOOLS].store, int(limit))
    return web.json_response({"jobs": [await describe(request.app[TOOLS], job) for job in jobs]})


async def show(request: web.Request) -> web.Response:
    """A job with its progress."""
    job = await job_store.load_job(request.app[TOOLS].store, request.match_info["id"])
    return web.json_response(await describe(request.app[TOOLS], job))


async def pages(request: web.Request) -> web.Response:
    """What became of each URL, in portions: go on with `?cursor=` until it is null. `?outcome=` picks."""
    job = await job_store.load_job(request.app[TOOLS].store, request.match_info["id"])
    cursor = request.query.get("cursor", "0")
    if not cursor.isdigit() or len(cursor) > 20:
        raise BadInput("cursor is not one that this list gave.")
    wanted = request.query.get("outcome")
    book = Frontier(request.app[TOOLS].store, job.id, job.spec.max_pages)
    after, records = await book.pages(int(cursor))
    shown = [
        {
            "url": record.url,
            "finalUrl": record.final_url or record.url,
            "outcome": record.outcome,
            "cause": record.cause or None,
            "status": record.status or None,
            "title": record.title or None,
            "depth": record.depth,
            "rendered": record.rendered,
            "chars": record.chars,
            "fetchedAt": rfc3339_ms(record.fetched_ms) if record.fetched_ms else None,
        }
        for record in records
        if wanted is None or record.outcome == wanted
    ]
    walled = await book.walled_urls(1000) if after == 0 else []
    return web.json_response({"pages": shown, "waitingLogin": walled, "cursor": str(after) if after else None})


async def content(request: web.Request) -> web.Response:
    """The Markdown of the page `?url=` as it was kept; 404 where none was."""
    record, folder = await _good_page(request)
    path = folder / record.file
    try:
        text = await asyncio.to_thread(path.read_text, "utf-8")
    except FileNotFoundError:
        raise NotFound("The page's file is gone.") from None
    headers = {"X-File-Name": f"{folder.name}/{record.file}"}
    return web.Response(text=text, content_type="text/markdown", charset="utf-8", headers=headers)


async def screenshot(request: web.Request) -> web.Response:
    """The JPEG of the page `?url=`, of jobs with `screenshots`; 404 where none was taken."""
    record, folder = await _good_page(request)
    if not record.screenshot:
        raise NotFound("There is no picture of this page.")
    try:
        picture = await asyncio.to_thread((folder / record.screenshot).read_bytes)
    except FileNotFoundError:
        raise NotFound("The page's picture is gone.") from None
    return web.Response(body=picture, content_type="image/jpeg")


async def _good_page(request: web.Request) -> tuple[PageRecord, Path]:
    """The newest good reading of the page `?url=` of a job, and its domain's folder."""
    job = await job_store.load_job(request.app[TOOLS].store, request.match_info["id"])
    url = urls.canonical(request.query.get("url", ""))
    if url is None or not urls.in_scope(url, frozenset(job.spec.hosts)):
        raise NotFound("There is no such page in this job.")
    asked = await Frontier(request.app[TOOLS].store, job.id, job.spec.max_pages).record(url)
    url = (asked.final_url if asked is not None else "") or url
    host = urls.bare_host(urls.host_of(url))
    record = await sites.site_page(request.app[TOOLS].store, host, url)
    if record is None:
        raise NotFound("There is no such page in this job.")
    return record, request.app[TOOLS].output.folder(host)


async def pause(request: web.Request) -> web.Response:
    """Stop a job until it is resumed; its frontier stays."""
    return await _act(request, JobEvent.PAUSE)


async def resume(request: web.Request) -> web.Response:
    """Go on with a job that is paused or waits for a login."""
    return await _act(request, JobEvent.RESUME)


async def cancel(request: web.Request) -> web.Response:
    """End a job for good; what it kept stays."""
    return await _act(request, JobEvent.CANCEL)


async def _act(request: web.Request, event: JobEvent) -> web.Response:
    job = await request.app[JOBS].act(request.match_info["id"], event)
    return web.json_response(await describe(request.app[TOOLS], job))
