"""`/crawl/fresh`: Always Fresh's schedule, its runs and their reports, and a run at once."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from aiohttp import web

from switchroom.crawler import urls
from switchroom.crawler.output import rfc3339_ms
from switchroom.errors import BadInput, Fault
from switchroom.http_problems import read_json
from switchroom.sidecar.context import FRESHNESS, TOOLS
from switchroom.sidecar.freshness import changes_of

MAX_BODY_BYTES = 262_144


def routes() -> list[web.RouteDef]:
    return [
        web.get("/crawl/fresh", schedule),
        web.post("/crawl/fresh/runs", run_now),
        web.get("/crawl/fresh/runs", list_runs),
        web.get("/crawl/fresh/runs/{id}", report),
        web.get("/crawl/jobs/{id}/changes", changes),
    ]


async def schedule(request: web.Request) -> web.Response:
    """When it runs: `at` (null: only by hand), `zone` (null: the server's own), the next run, and the last one."""
    freshness = request.app[FRESHNESS]
    due = freshness.next_run()
    last = await freshness.runs(1)
    return web.json_response(
        {
            "at": None if freshness.at is None else f"{freshness.at:%H:%M}",
            "zone": None if freshness.zone is None else freshness.zone.key,
            "nextRunAt": None if due is None else rfc3339_ms(int(due * 1000)),
            "serverTime": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "graceDays": request.app[TOOLS].grace_ms / 86_400_000,
            "lastRun": await freshness.report(last[0]) if last else None,
        }
    )


async def run_now(request: web.Request) -> web.Response:
    """Look at all sites now, or at `{"hosts": [...]}`. 202 with the run; its report fills while it goes."""
    body: Any = {}
    if request.body_exists:
        body = await read_json(request, MAX_BODY_BYTES)
    hosts = body.get("hosts", []) if isinstance(body, dict) else None
    if not isinstance(hosts, list) or not all(isinstance(host, str) for host in hosts):
        raise BadInput("hosts is not a list of sites.", faults=[Fault("is not a list of texts", "/hosts")])
    freshness = request.app[FRESHNESS]
    run = await freshness.run("person", [urls.bare_host(host) for host in hosts])
    headers = {"Location": f"/crawl/fresh/runs/{run.id}"}
    return web.json_response(await freshness.report(run), status=202, headers=headers)


async def list_runs(request: web.Request) -> web.Response:
    """The reports of the newest runs first, at most `?limit=` (20)."""
    limit = request.query.get("limit", "20")
    if not limit.isdigit() or not 1 <= int(limit) <= 120:
        raise BadInput("limit is not a number from 1 to 120.")
    freshness = request.app[FRESHNESS]
    return web.json_response({"runs": [await freshness.report(run) for run in await freshness.runs(int(limit))]})


async def report(request: web.Request) -> web.Response:
    """What one run found; the changes themselves are at `/crawl/jobs/{job}/changes` of each site's job."""
    freshness = request.app[FRESHNESS]
    return web.json_response(await freshness.report(await freshness.load(request.match_info["id"])))


async def changes(request: web.Request) -> web.Response:
    """What a job found different: `kind` is `new`, `changed` (with lines `added` and `removed`, and `diff`, the name of
    the difference at `/crawl/sites/{host}/…`), `gone`, `moved`, `back` or `removed`."""
    numbers = {}
    for name, default, most in (("offset", 0, 1_000_000), ("limit", 200, 1_000)):
        text = request.query.get(name, str(default))
        if not text.isdigit() or int(text) > most:
            raise BadInput(f"{name} is not a number up to {most}.", faults=[Fault("is out of range", f"/{name}")])
        numbers[name] = int(text)
    found, total = await changes_of(request.app[TOOLS], request.match_info["id"], numbers["offset"], numbers["limit"])
    shown = []
    for change in found:
        row = msgspec.to_builtins(change)
        row["at"] = rfc3339_ms(row.pop("at_ms"))
        for name in ("listed", "behind"):
            row.pop(name, None)
        shown.append(row)
    return web.json_response({"changes": shown, "total": total})
