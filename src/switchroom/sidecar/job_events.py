"""`/crawl/jobs/{id}/events`: what happens in a job, as it happens, as server-sent events."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator

import msgspec
from aiohttp import web

from switchroom.crawler import job_store
from switchroom.crawler.job import FINAL, JobState
from switchroom.sidecar.context import STREAMS, TOOLS
from switchroom.sidecar.jobs import describe
from switchroom.store import keys

log = logging.getLogger(__name__)

PROGRESS_S = 1.0
_QUIET_S = 10.0
_WRITE_TIMEOUT_S = 30.0


async def events(request: web.Request) -> web.StreamResponse:
    """The job's events as server-sent events, from the first or from `Last-Event-ID`; ends with the job.

    `event:` is `state`, `page`, `login_wall`, `webhook` or `progress`; `data:` a JSON object. While the job runs, its
    `progress` (as in its status) comes every second; it has no ID, as it is not told again.
    """
    job = await job_store.load_job(request.app[TOOLS].store, request.match_info["id"])
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    task = asyncio.current_task()
    assert task is not None
    request.app[STREAMS].add(task)
    try:
        await response.prepare(request)
        async for chunk in _chunks(request, job.id):
            async with asyncio.timeout(_WRITE_TIMEOUT_S):
                await response.write(chunk)
    except TimeoutError:
        log.info("event stream's reader is too slow, it is cut", extra={"job_id": job.id})
    finally:
        request.app[STREAMS].discard(task)
    return response


async def _chunks(request: web.Request, job_id: str) -> AsyncIterator[bytes]:
    tools = request.app[TOOLS]
    name = keys.crawl(job_id, "events")
    last = request.headers.get("Last-Event-ID", "0")
    if not last.replace("-", "").isdigit():
        last = "0"
    said = told = time.monotonic()
    while True:
        job = await job_store.load_job(tools.store, job_id)
        final = job.state in FINAL
        if final:
            got = await tools.store.call("XREAD", "COUNT", 500, "STREAMS", name, last)
        else:
            wait_ms = int(PROGRESS_S * 1000)
            got = await tools.store.blocking(
                "XREAD", "COUNT", "500", "BLOCK", str(wait_ms), "STREAMS", name, last, timeout_s=PROGRESS_S + 5
            )
        for event_id, fields in got[0][1] if got else ():
            last = event_id.decode()
            kind = msgspec.json.decode(fields[1]).get("event", "message")
            if kind != "progress":  # what was stored under this name says only that the job's record changed
                yield b"id: %b\nevent: %b\ndata: %b\n\n" % (event_id, kind.encode(), fields[1])
                said = time.monotonic()
        if final and not got:
            return
        now = time.monotonic()
        if job.state == JobState.RUNNING and now - told >= PROGRESS_S:
            progress = (await describe(tools, job))["progress"]
            yield b"event: progress\ndata: %b\n\n" % msgspec.json.encode({"event": "progress", **progress})
            said = told = now
        elif now - said >= _QUIET_S:
            yield b": still here\n\n"
            said = now
