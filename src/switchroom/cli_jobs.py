"""Commands over crawl jobs: `jobs list|show|pages|watch|pause|resume|cancel`. Talks HTTP to the sidecar."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.table import Table

from switchroom.cli_crawl import (
    DEFAULT_SIDECAR,
    JsonOption,
    SecretOption,
    Sidecar,
    SidecarOption,
    ask,
    follow,
    out,
    reply,
    show_job,
)

jobs_app = typer.Typer(no_args_is_help=True, help="Crawl jobs: what they do, pause, go on, end.")

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The job's ID, as `jobs list` shows it.")]


@jobs_app.command("list", epilog="Example: switchroom jobs list")
def list_jobs(
    sidecar: SidecarOption = DEFAULT_SIDECAR,
    secret: SecretOption = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The newest so many.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List crawl jobs, the newest first."""
    answer = _get(sidecar, secret, "crawl/jobs", as_json, {"limit": str(limit)})
    if as_json:
        print(json.dumps(answer["jobs"]))
        return
    table = Table("job", "state", "hosts", "done", "kept", "failed", "created")
    for job in answer["jobs"]:
        progress = job["progress"]
        failed = sum(progress["failed"].values())
        kept = progress["kept"] + progress["unchanged"]
        table.add_row(
            job["id"],
            job["state"].replace("_", " "),
            ", ".join(job["hosts"][:3]),
            str(progress["done"]),
            str(kept),
            str(failed),
            job["createdAt"],
        )
    out.print(table)


@jobs_app.command("show", epilog="Example: switchroom jobs show 0b3f…")
def show(
    job: JobArgument, sidecar: SidecarOption = DEFAULT_SIDECAR, secret: SecretOption = None, as_json: JsonOption = False
) -> None:
    """Show a job with its progress."""
    _print(_get(sidecar, secret, f"crawl/jobs/{job}", as_json), as_json)


@jobs_app.command("pages", epilog="Example: switchroom jobs pages 0b3f… --outcome failed")
def pages(
    job: JobArgument,
    sidecar: SidecarOption = DEFAULT_SIDECAR,
    secret: SecretOption = None,
    outcome: Annotated[str | None, typer.Option(help="Only kept, unchanged, skipped or failed.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what became of each page of a job."""
    wanted = {"outcome": outcome} if outcome else {}
    found: list[dict[str, Any]] = []
    cursor: str | None = "0"
    while cursor is not None:
        answer = _get(sidecar, secret, f"crawl/jobs/{job}/pages", as_json, {"cursor": cursor, **wanted})
        found += answer["pages"]
        cursor = answer["cursor"]
    found.sort(key=lambda page: str(page["url"]))
    if as_json:
        print(json.dumps(found))
        return
    table = Table("outcome", "cause", "status", "URL")
    for page in found:
        table.add_row(page["outcome"], page["cause"] or "", str(page["status"] or ""), page["url"])
    out.print(table)


@jobs_app.command("watch", epilog="Example: switchroom jobs watch 0b3f…")
def watch(
    job: JobArgument,
    sidecar: SidecarOption = DEFAULT_SIDECAR,
    secret: SecretOption = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="End where a login is needed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Follow a job with a progress bar until it ends."""

    async def watching() -> dict[str, Any]:
        async with Sidecar(sidecar, secret).session() as session:
            return await follow(session, job, no_wait=no_wait, quiet=as_json)

    _print(ask(watching, sidecar, as_json), as_json)


@jobs_app.command("pause", epilog="Example: switchroom jobs pause 0b3f…")
def pause(
    job: JobArgument, sidecar: SidecarOption = DEFAULT_SIDECAR, secret: SecretOption = None, as_json: JsonOption = False
) -> None:
    """Stop a job until it is resumed; nothing of it is lost."""
    _act(job, "pause", sidecar, secret, as_json)


@jobs_app.command("resume", epilog="Example: switchroom jobs resume 0b3f…")
def resume(
    job: JobArgument, sidecar: SidecarOption = DEFAULT_SIDECAR, secret: SecretOption = None, as_json: JsonOption = False
) -> None:
    """Go on with a job that is paused or waits for a login."""
    _act(job, "resume", sidecar, secret, as_json)


@jobs_app.command("cancel", epilog="Example: switchroom jobs cancel 0b3f…")
def cancel(
    job: JobArgument, sidecar: SidecarOption = DEFAULT_SIDECAR, secret: SecretOption = None, as_json: JsonOption = False
) -> None:
    """End a job for good; what it kept stays."""
    _act(job, "cancel", sidecar, secret, as_json)


def _act(job: str, verb: str, url: str, secret: str | None, as_json: bool) -> None:
    async def act() -> dict[str, Any]:
        async with Sidecar(url, secret).session() as session:
            return await reply(session.post(f"crawl/jobs/{job}/{verb}"))

    _print(ask(act, url, as_json), as_json)


def _get(url: str, secret: str | None, path: str, as_json: bool, query: dict[str, str] | None = None) -> dict[str, Any]:
    async def get() -> dict[str, Any]:
        async with Sidecar(url, secret).session() as session:
            return await reply(session.get(path, params=query or {}))

    return ask(get, url, as_json)


def _print(job: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(job))
    else:
        show_job(job, 0, None)
