"""A crawl job: what is asked for, and the states it goes through. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

from switchroom.errors import Conflict

RenderMode = Literal["auto", "always", "never"]
ExtractMode = Literal["page", "article"]
JobMode = Literal["crawl", "discover", "root", "fresh"]


class JobState(StrEnum):
    """Where a job is; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING_LOGIN = "waiting_login"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobEvent(StrEnum):
    """What happens to a job: by its runners (`start` to `error`), by cookies, by a person. A runner that dies is no
    event of the job: others go on, or the next process joins."""

    START = "start"
    DRAINED = "drained"
    WALLED = "walled"
    ERROR = "error"
    COOKIES = "cookies"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"


FINAL = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})

_S, _E = JobState, JobEvent
TABLE: dict[tuple[JobState, JobEvent], JobState] = {
    (_S.QUEUED, _E.START): _S.RUNNING,
    (_S.QUEUED, _E.COOKIES): _S.QUEUED,
    (_S.QUEUED, _E.RESUME): _S.QUEUED,
    (_S.QUEUED, _E.PAUSE): _S.PAUSED,
    (_S.QUEUED, _E.CANCEL): _S.CANCELLED,
    (_S.RUNNING, _E.DRAINED): _S.COMPLETED,
    (_S.RUNNING, _E.WALLED): _S.WAITING_LOGIN,
    (_S.RUNNING, _E.ERROR): _S.FAILED,
    (_S.RUNNING, _E.COOKIES): _S.RUNNING,
    (_S.RUNNING, _E.RESUME): _S.RUNNING,
    (_S.RUNNING, _E.PAUSE): _S.PAUSED,
    (_S.RUNNING, _E.CANCEL): _S.CANCELLED,
    (_S.WAITING_LOGIN, _E.COOKIES): _S.QUEUED,
    (_S.WAITING_LOGIN, _E.RESUME): _S.QUEUED,
    (_S.WAITING_LOGIN, _E.PAUSE): _S.PAUSED,
    (_S.WAITING_LOGIN, _E.CANCEL): _S.CANCELLED,
    (_S.PAUSED, _E.COOKIES): _S.PAUSED,
    (_S.PAUSED, _E.PAUSE): _S.PAUSED,
    (_S.PAUSED, _E.RESUME): _S.QUEUED,
    (_S.PAUSED, _E.CANCEL): _S.CANCELLED,
    (_S.CANCELLED, _E.CANCEL): _S.CANCELLED,
    **{(final, _E.COOKIES): final for final in FINAL},
}


def next_state(state: JobState, event: JobEvent) -> JobState:
    """The state after `event`; `Conflict` where it cannot happen in `state`."""
    after = TABLE.get((state, event))
    if after is None:
        raise Conflict(f"A job that is {state} cannot take '{event}'.", code="job_state", extra={"state": str(state)})
    return after


class JobSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a job crawls.

    `starts` are canonical URLs, `hosts` the hosts (without `www.`) it stays on, `depth` how many links away from a
    start or a sitemap it goes, `max_pages` the pages it reads at most. With `on_login_wall="skip"` walled pages count
    as failed and the job completes; with `wait` it pauses for cookies, and tells `webhook` where one is given.

    `mode`: `crawl` finds pages and reads them; `discover` only finds them; `root` reads the pages that the site is
    known to have, and follows no links; `fresh` reads of them what changed, and what is new. `collection` names the
    knowledge that the pages go to; each host's own where it is empty.

    `extract` says how a page becomes Markdown: `page` takes what the page marks as its content, `article` asks an
    article extractor, which costs ten times the CPU. `images` leaves a note for each picture, `conditional` asks the
    site only for pages that changed, `warc` archives the answers, `screenshots` pictures the rendered pages.
    """

    starts: tuple[str, ...]
    hosts: tuple[str, ...]
    mode: JobMode = "crawl"
    collection: str = ""
    depth: int = 3
    max_pages: int = 1000
    render: RenderMode = "auto"
    sitemaps: bool = True
    on_login_wall: Literal["wait", "skip"] = "wait"
    extract: ExtractMode = "page"
    images: bool = False
    conditional: bool = False
    warc: bool = False
    screenshots: bool = False
    webhook: str = ""


class Waiting(msgspec.Struct, frozen=True):
    """Why a job waits: the domain that needs a login, a page that showed it, and the sign (see `login_wall`).

    `session_lost` says that cookies for the domain had worked, or were sent and not honoured.
    """

    domain: str
    url: str
    sign: str
    session_lost: bool = False


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A stored job. Times are Unix milliseconds, 0 where it has not happened. `note` says why it ended or stands.
    `cookies_version` is that of the cookies its last run used."""

    id: str
    spec: JobSpec
    state: JobState = JobState.QUEUED
    created_ms: int = 0
    started_ms: int = 0
    ended_ms: int = 0
    note: str = ""
    waiting: Waiting | None = None
    discovered: bool = False
    cookies_version: int = 0
    revision: int = 0


class PageRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one URL in a job. `outcome` is `kept`, `unchanged`, `skipped` or `failed`, the last two with a
    `cause`, or `found` in a job that only discovers. `file` and `screenshot` are relative to the domain's folder;
    `etag` and `last_modified` are as the site sent them, `lastmod` is what its sitemap said then. `changed_ms` is when
    its text was first seen as it is, `gone_ms` when the site began to say that the page is no more (`gone_status`)."""

    url: str
    outcome: Literal["kept", "unchanged", "skipped", "failed", "found"]
    cause: str = ""
    status: int = 0
    depth: int = 0
    title: str = ""
    file: str = ""
    content_hash: str = ""
    chars: int = 0
    rendered: bool = False
    final_url: str = ""
    fetched_ms: int = 0
    etag: str = ""
    last_modified: str = ""
    screenshot: str = ""
    lastmod: str = ""
    changed_ms: int = 0
    gone_ms: int = 0
    gone_status: int = 0
