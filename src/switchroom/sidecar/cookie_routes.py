"""`/sitemap/web-cookies`: cookies of a signed-in browser come in; only counts, domains and expiries go out."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import msgspec
from aiohttp import web

from switchroom.crawler import job_store
from switchroom.crawler.cookies import Verdict, normalise, unwrap
from switchroom.crawler.job import JobState
from switchroom.errors import BadInput, Unprocessable
from switchroom.http_problems import read_body
from switchroom.net import OutboundError, parse_url
from switchroom.sidecar.context import COOKIES, JOBS, SETTINGS, TOOLS
from switchroom.sidecar.cookies import first_expiry, summary

log = logging.getLogger(__name__)

PATH = "/sitemap/web-cookies"
_ENCODER = msgspec.json.Encoder()
_NETSCAPE = (b"# Netscape HTTP Cookie File", b"# HTTP Cookie File")


def routes() -> list[web.RouteDef]:
    return [web.get(PATH, show), web.post(PATH, ingest)]


async def ingest(request: web.Request) -> web.Response:
    """Replace the cookie file. Body: an array of cookies in any shape of `crawler.cookies`, an object with `cookies`,
    or Netscape text; `?url=` gives a host to cookies without one, `?replace=empty` lets an empty array through.

    200 with what was kept and what was not and why; 422 where nothing could be kept (the old cookies stay); 400 where
    the body is no shape of cookies.
    """
    url = request.query.get("url")
    if url is not None:
        try:
            parse_url(url)
        except OutboundError as error:
            raise BadInput("The parameter url is not an absolute http(s) URL.") from error
    body = await read_body(request, request.app[SETTINGS].max_cookie_bytes)
    verdict = await asyncio.to_thread(_judge, body, request.content_type, url)
    rejected = [msgspec.structs.asdict(item) for item in verdict.rejected]
    if verdict.total == 0 and request.query.get("replace") != "empty":
        raise BadInput(
            "The array is empty, and good cookies are not replaced by none; post to ?replace=empty to clear them.",
            code="empty_cookies",
        )
    if verdict.total > 0 and not verdict.accepted:
        raise Unprocessable(
            "None of the cookies can be kept; those from before stay.",
            code="no_cookie_accepted",
            extra={"accepted": 0, "rejected": rejected},
        )
    stored = await request.app[COOKIES].replace(verdict.accepted)
    woken = await request.app[JOBS].cookies_posted()
    domains = sorted({cookie.host for cookie in verdict.accepted})
    log.info(
        "cookies taken",
        extra={"accepted": len(verdict.accepted), "rejected": len(rejected), "version": stored.version, "jobs": woken},
    )
    return _json(
        {
            "accepted": len(verdict.accepted),
            "rejected": rejected,
            "domains": domains,
            "expiresAt": first_expiry(verdict.accepted),
        }
    )


async def show(request: web.Request) -> web.Response:
    """Counts, domains, expiries, and the jobs that wait for fresh cookies."""
    stored = await request.app[COOKIES].read()
    waiting = [
        {"job": job.id, "domain": job.waiting.domain, "sessionLost": job.waiting.session_lost}
        for job in await job_store.list_jobs(request.app[TOOLS].store, limit=1000)
        if job.state == JobState.WAITING_LOGIN and job.waiting is not None
    ]
    return _json({**summary(stored, time.time()), "waitingJobs": waiting})


def _judge(body: bytes, content_type: str, url: str | None) -> Verdict:
    """Parse and normalise; runs in a thread, 5,000 cookies take about 0.1 s."""
    shape = unwrap(_parse(body, content_type))
    if shape is None:
        raise BadInput("The body is not an array of cookies.", code="not_cookies")
    items, own_url = shape
    return normalise(items, now_s=time.time(), url=url or own_url)


def _parse(body: bytes, content_type: str) -> Any:
    start = body.lstrip(b"\xef\xbb\xbf \t\r\n")
    if (content_type == "text/plain" and start[:1] not in (b"[", b"{", b'"')) or start.startswith(_NETSCAPE):
        try:
            return body.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BadInput("The text is not UTF-8.", code="not_cookies") from error
    if not start:
        raise BadInput("The body is empty; a JSON array of cookies is expected.", code="invalid_json")
    try:
        return msgspec.json.decode(start)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # The decoder's words carry a byte offset, never the content.
        words = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise BadInput(f"The body is not JSON: {words}.", code="invalid_json") from None


def _json(value: dict[str, Any]) -> web.Response:
    return web.Response(
        body=_ENCODER.encode(value), content_type="application/json", headers={"Cache-Control": "no-store"}
    )
