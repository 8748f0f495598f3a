"""The command line of the sidecar: `cookies push`, `cookies show`, `crawl`. Talks HTTP to it, like anyone."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:  # loaded by the commands that talk to a sidecar: every other command starts without it
    import aiohttp

DEFAULT_SIDECAR = "http://127.0.0.1:8091"
EXIT_FAILED = 1
EXIT_LOGIN_NEEDED = 3
_TIMEOUT_S = 60
_LOOK_S = 0.4
_SAFE_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")

out = Console()
err = Console(stderr=True)
T = TypeVar("T")

SidecarOption = Annotated[str, typer.Option("--sidecar", envvar="SWITCHROOM_SIDECAR_URL", help="Where the sidecar is.")]
SecretOption = Annotated[
    str | None, typer.Option("--secret", envvar="SWITCHROOM_INGEST_SECRET", help="The sidecar's ingest secret.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value for scripts.")]

cookies_app = typer.Typer(no_args_is_help=True, help="Give the crawler the cookies of a signed-in browser.")


@dataclass(frozen=True, slots=True)
class Sidecar:
    """The sidecar's address and the secret it asks for."""

    url: str
    secret: str | None

    def session(self) -> aiohttp.ClientSession:
        """An HTTP session; call inside a running loop."""
        import aiohttp

        headers = {"X-Ingest-Secret": self.secret} if self.secret else {}
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        return aiohttp.ClientSession(self.url.rstrip("/") + "/", headers=headers, timeout=timeout)


class Problem(Exception):
    """The sidecar answered with a problem."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(str(body.get("detail", "")))
        self.status = status
        self.body = body


@cookies_app.command(
    "push", epilog='Example: switchroom cookies push cookies.json --secret "$SWITCHROOM_INGEST_SECRET"'
)
def cookies_push(
    file: Annotated[Path, typer.Argument(help="The exported cookies; - reads standard input.")],
    sidecar: SidecarOption = DEFAULT_SIDECAR,
    secret: SecretOption = None,
    url: Annotated[str | None, typer.Option(help="The page they belong to, for cookies without a domain.")] = None,
    replace_empty: Annotated[
        bool, typer.Option("--replace-empty", help="Let an empty file clear the cookies.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Replace the crawler's cookies by those in FILE: JSON of any browser or exporter, or Netscape cookies.txt."""
    try:
        body = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        err.print(f"[red]{file} cannot be read:[/red] {error.strerror}")
        raise typer.Exit(EXIT_FAILED) from error
    query = {key: value for key, value in (("url", url), ("replace", "empty" if replace_empty else None)) if value}
    kind = "application/json" if body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"[", b"{", b'"') else "text/plain"

    async def push() -> dict[str, Any]:
        async with Sidecar(sidecar, secret).session() as session:
            request = session.post("sitemap/web-cookies", data=body, params=query, headers={"Content-Type": kind})
            return await reply(request)

    try:
        answer = _run(push, sidecar)
    except Problem as problem:
        if as_json:
            print(json.dumps(problem.body))
        else:
            err.print(f"[red]Not taken:[/red] {problem.body.get('detail')}", highlight=False)
            _show_rejected(err, problem.body.get("rejected") or [])
        raise typer.Exit(EXIT_FAILED) from problem
    if as_json:
        print(json.dumps(answer))
        return
    domains = ", ".join(answer["domains"])
    out.print(f"[green]{answer['accepted']} cookies taken[/green] for {domains or 'no domain'}", highlight=False)
    if answer["expiresAt"]:
        out.print(f"The first of them expires at {answer['expiresAt']}.", highlight=False)
    _show_rejected(out, answer["rejected"])


@cookies_app.command("show", epilog="Example: switchroom cookies show")
def cookies_show(
    sidecar: SidecarOption = DEFAULT_SIDECAR, secret: SecretOption = None, as_json: JsonOption = False
) -> None:
    """Show which domains the crawler has cookies for, until when, and which jobs wait. Never a value."""

    async def show() -> dict[str, Any]:
        async with Sidecar(sidecar, secret).session() as session:
            return await reply(session.get("sitemap/web-cookies"))

    answer = ask(show, sidecar, as_json)
    if as_json:
        print(json.dumps(answer))
        return
    table = Table("domain", "cookies", "session", "expired", "first expires")
    for row in answer["domains"]:
        table.add_row(
            row["domain"],
            str(row["count"]),
            str(row["session"]),
            str(row["expired"]),
            row["expiresAt"] or "with the session",
        )
    out.print(table)
    for job in answer["waitingJobs"]:
        out.print(f"[yellow]Job {job['job']} waits for a login at {job['domain']}.[/yellow]", highlight=False)


def crawl_command(
    urls: Annotated[list[str], typer.Argument(metavar="URL...", help="Where to start; one job for all of them.")],
    sidecar: SidecarOption = DEFAULT_SIDECAR,
    secret: SecretOption = None,
    mode: Annotated[
        str, typer.Option(help="crawl; discover (only find pages); root (read what is known); fresh (what changed).")
    ] = "crawl",
    collection: Annotated[
        str, typer.Option(help="The knowledge that the pages go to; each site's own unless told.")
    ] = "",
    depth: Annotated[int, typer.Option(min=0, max=100, help="Links away from a start.")] = 3,
    max_pages: Annotated[int, typer.Option(min=1, help="Pages to read at most.")] = 1000,
    render: Annotated[str, typer.Option(help="auto (where the HTML is a shell), always or never.")] = "auto",
    skip_walls: Annotated[
        bool, typer.Option("--skip-walls", help="Count pages behind a login as failed, end.")
    ] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Where a login is needed, end with exit code 3.")] = False,
    extract: Annotated[
        str, typer.Option(help="page (what the page marks as content) or article (an extractor judges; slower).")
    ] = "page",
    images: Annotated[bool, typer.Option("--images", help="Leave a note for each picture in the Markdown.")] = False,
    screenshots: Annotated[bool, typer.Option("--screenshots", help="Picture the rendered pages.")] = False,
    warc: Annotated[bool, typer.Option("--warc", help="Archive the answers as they came.")] = False,
    webhook: Annotated[str, typer.Option(help="Told, signed, when a login is needed.")] = "",
    save_to: Annotated[Path | None, typer.Option("--out", help="Also save the Markdown files in this folder.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Crawl sites into clean Markdown.

    Exit code: 0 done, 1 failed or no page could be read, 3 a login is needed (with --no-wait).
    """
    body: dict[str, Any] = {"urls": urls, "depth": depth, "max_pages": max_pages, "render": render, "extract": extract}
    body |= {"images": images, "screenshots": screenshots, "warc": warc, "webhook": webhook}
    body |= {"mode": mode, "collection": collection}
    body["on_login_wall"] = "skip" if skip_walls else "wait"
    job = ask(lambda: _crawl(Sidecar(sidecar, secret), body, no_wait, as_json), sidecar, as_json)
    saved = 0
    if save_to is not None:
        saved = ask(lambda: _save(Sidecar(sidecar, secret), job["id"], save_to), sidecar, as_json)
    if as_json:
        print(json.dumps({**job, "savedFiles": saved}))
    else:
        show_job(job, saved, save_to)
    if job["state"] == "waiting_login":
        raise typer.Exit(EXIT_LOGIN_NEEDED)
    progress = job["progress"]
    if job["state"] != "completed" or (progress["failed"] and not progress["kept"] + progress["unchanged"]):
        raise typer.Exit(EXIT_FAILED)


async def _crawl(sidecar: Sidecar, body: dict[str, Any], no_wait: bool, quiet: bool) -> dict[str, Any]:
    async with sidecar.session() as session:
        job = await reply(session.post("crawl/jobs", json=body))
        if (made := job.get("webhookSecret")) and not quiet:
            err.print(f"The webhook's messages are signed with {made}, shown this once.", highlight=False)
        return await follow(session, job["id"], no_wait=no_wait, quiet=quiet)


async def follow(session: aiohttp.ClientSession, job_id: str, *, no_wait: bool, quiet: bool) -> dict[str, Any]:
    """Watch a job with a progress bar until it ends, or with `no_wait` until a login is needed."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    said = ""
    with Progress(*columns, console=err, disable=quiet or not err.is_terminal, transient=True) as bar:
        line = bar.add_task("crawling", total=None)
        while True:
            job = await reply(session.get(f"crawl/jobs/{job_id}"))
            progress = job["progress"]
            total = max(min(progress["found"], job["maxPages"]), 1)
            bar.update(line, completed=progress["done"], total=total, description=_words(job))
            if job["state"] == "waiting_login" and said != job["note"]:
                said = job["note"]
                err.print(f"[yellow]{said}[/yellow]  switchroom cookies push FILE", highlight=False)
            if job["state"] in ("completed", "failed", "cancelled") or (no_wait and job["state"] == "waiting_login"):
                return job
            await asyncio.sleep(_LOOK_S)


def _words(job: dict[str, Any]) -> str:
    """What stands beside the bar: state, rendered and failed pages, speed, time left."""
    progress = job["progress"]
    parts = [job["state"].replace("_", " ")]
    if progress["rendered"]:
        parts.append(f"{progress['rendered']} rendered")
    if failed := sum(progress["failed"].values()):
        parts.append(f"{failed} failed")
    if progress["pagesPerSecond"]:
        parts.append(f"{progress['pagesPerSecond']:.1f} pages/s")
    if progress["timeLeftS"]:
        parts.append(f"{progress['timeLeftS']:.0f} s left")
    return ", ".join(parts)


async def _save(sidecar: Sidecar, job_id: str, folder: Path) -> int:
    saved = 0
    async with sidecar.session() as session:
        cursor: str | None = "0"
        while cursor is not None:
            listed = await reply(session.get(f"crawl/jobs/{job_id}/pages", params={"cursor": cursor}))
            cursor = listed["cursor"]
            for page in listed["pages"]:
                if page["outcome"] not in ("kept", "unchanged"):
                    continue
                async with session.get(f"crawl/jobs/{job_id}/content", params={"url": page["url"]}) as answer:
                    if answer.status != 200:
                        continue
                    parts = answer.headers.get("X-File-Name", "").split("/")
                    text = await answer.text()
                if not all(_SAFE_PART.fullmatch(part) for part in parts):
                    err.print("[red]The sidecar names a file in a way that cannot be saved; it is left out.[/red]")
                    continue
                await asyncio.to_thread(_write, folder.joinpath(*parts), text)
                saved += 1
    return saved


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


async def reply(request: Any) -> dict[str, Any]:
    """The JSON object that a request is answered with; `Problem` where the sidecar refuses."""
    async with request as answer:
        try:
            body = await answer.json(content_type=None)
        except (json.JSONDecodeError, UnicodeDecodeError):
            body = None
        if not isinstance(body, dict):
            raise Problem(answer.status, {"detail": f"That is no sidecar: it answered {answer.status} without JSON."})
        if answer.status >= 400:
            raise Problem(answer.status, body)
        return body


def _run(work: Callable[[], Awaitable[T]], url: str) -> T:
    import aiohttp

    async def main() -> T:
        return await work()

    try:
        return asyncio.run(main())
    except (aiohttp.ClientError, TimeoutError) as error:
        err.print(f"[red]No sidecar answers at {url}.[/red] `switchroom serve` or `switchroom sidecar` starts one.")
        raise typer.Exit(EXIT_FAILED) from error


def ask(work: Callable[[], Awaitable[T]], url: str, as_json: bool) -> T:
    """Run `work`, which talks to the sidecar at `url`; a problem that comes back is printed and ends the program."""
    try:
        return _run(work, url)
    except Problem as problem:
        if as_json:
            print(json.dumps(problem.body))
        else:
            err.print(f"[red]{problem.body.get('detail')}[/red]", highlight=False)
            for fault in problem.body.get("errors") or []:
                err.print(f"  {fault['pointer'] or '/'}: {fault['detail']}", highlight=False)
        raise typer.Exit(EXIT_FAILED) from problem


def _show_rejected(console: Console, rejected: list[dict[str, Any]]) -> None:
    if rejected:
        table = Table("#", "cookie", "why it is not kept")
        for item in rejected[:50]:
            table.add_row(str(item["index"]), item["name"] or "", item["reason"])
        console.print(table)
        if len(rejected) > 50:
            console.print(f"and {len(rejected) - 50} more")


def show_job(job: dict[str, Any], saved: int, folder: Path | None) -> None:
    """Print a job's state and counts, and where its files were saved."""
    progress = job["progress"]
    colour = {"completed": "green", "waiting_login": "yellow"}.get(job["state"], "red")
    words = job["state"].replace("_", " ")
    out.print(f"[{colour}]{words}[/{colour}]  {job['note']}", highlight=False)
    table = Table("found", "fetched", "rendered", "kept", "unchanged", "behind login", "pages/s")
    names = ("found", "fetched", "rendered", "kept", "unchanged", "waitingLogin", "pagesPerSecond")
    table.add_row(*(str(progress[name] if progress[name] is not None else "") for name in names))
    out.print(table)
    for title, group in (("failed", progress["failed"]), ("skipped", progress["skipped"])):
        for cause, count in group.items():
            out.print(f"  {title}: {count} × {cause}", highlight=False)
    if folder is not None:
        out.print(f"{saved} files in {folder}", highlight=False)
