"""Commands over crawled sites: `sites list|pages|mark|fresh|forget`, and `fresh run|runs|show|changes|schedule`."""

from __future__ import annotations

import time
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

import typer
from rich.table import Column, Table

from switchroom.cli_crawl import DEFAULT_SIDECAR, SecretOption, SidecarOption
from switchroom.cli_http import EXIT_REFUSED, Client, JsonOption, plain_errors, print_json, show_table

sites_app = typer.Typer(help="The sites that crawls made, and what is wanted of their pages.", no_args_is_help=True)
fresh_app = typer.Typer(help="Always Fresh: look at all sites for what changed.", no_args_is_help=True)

HostArgument = Annotated[str, typer.Argument(help="The site's host, as `sites list` shows it.")]
_LOOK_S = 0.5


class Sidecar:
    """One sidecar, called synchronously."""

    def __init__(self, url: str, secret: str | None) -> None:
        self._client = Client(url)
        self._headers = {"X-Ingest-Secret": secret} if secret else {}

    def call(
        self, method: str, path: str, *, body: Any = None, query: dict[str, str | int | None] | None = None
    ) -> Any:
        return self._client.call(method, path, body=body, query=query, headers=self._headers).json()

    def text(self, path: str) -> str:
        return self._client.call("GET", path, headers=self._headers).body.decode("utf-8", "replace")


@sites_app.command("list", epilog="Example: switchroom sites list")
def list_sites(
    sidecar: SidecarOption = DEFAULT_SIDECAR, secret: SecretOption = None, as_json: JsonOption = False
) -> None:
    """List the sites, with the knowledge collection that each fills."""
    with plain_errors():
        found = Sidecar(sidecar, secret).call("GET", "/crawl/sites")["sites"]
    if as_json:
        print_json(found)
        return
    table = Table(
        Column("Site", no_wrap=True), Column("Pages", justify="right"), Column("Others", justify="right"), "Collection",
        "Daily run",
    )  # fmt: skip
    for one in found:
        daily = "yes" if one["alwaysFresh"] else "no"
        table.add_row(one["host"], str(one["pages"]), str(one["placeholders"]), one["collection"], daily)
    show_table(table)


@sites_app.command("pages", epilog="Example: switchroom sites pages docs.example.com --mark ignore")
def pages(
    host: HostArgument,
    mark: Annotated[str | None, typer.Option(help="Only those marked use, ignore or delete.")] = None,
    state: Annotated[str | None, typer.Option(help="Only those kept, found (not read yet), gone or passed.")] = None,
    contains: Annotated[str | None, typer.Option(help="Only those with this in their URL.")] = None,
    offset: Annotated[int, typer.Option(min=0, help="Pages to leave out first.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Pages at most.")] = 200,
    sidecar: SidecarOption = DEFAULT_SIDECAR,
    secret: SecretOption = None,
    as_json: JsonOption = False,
) -> None:
    """List a site's pages: those that were read, and placeholders of those that were only found."""
    query: dict[str, str | int | None] = {
        "mark": mark, "state": state, "contains": contains, "offset": offset, "limit": limit
    }  # fmt: skip
    with plain_errors():
        found = Sidecar(sidecar, secret).call("GET", f"/crawl/sites/{quote(host)}/pages", query=query)
    if as_json:
        print_json(found)
        return
    table = Table(Column("URL", overflow="fold"), "Mark", "State", "Title", "Changed")
    for one in found["pages"]:
        why = f"{one['state']} ({one['cause']})" if one.get("cause") else one["state"]
        table.add_row(one["url"], one["mark"], why, one["title"] or "", one.get("changedAt") or "")
    show_table(table)
    print(f"{len(found['pages'])} of {found['total']}")


@sites_app.command("mark", epilog="Example: switchroom sites mark ignore 'https://docs.example.com/archive/*'")
def mark(
    wanted: Annotated[str, typer.Argument(metavar="use|ignore|delete|none", help="What is wanted; none: as before.")],
    urls: Annotated[list[str], typer.Argument(metavar="URL...", help="Pages, or patterns with * in them.")],
    render: Annotated[str | None, typer.Option(help="auto, always or never, for these pages.")] = None,
    extract: Annotated[str | None, typer.Option(help="page or article, for these pages.")] = None,
    images: Annotated[bool | None, typer.Option("--images/--no-images", help="Notes for pictures.")] = None,
    sidecar: SidecarOption = DEFAULT_SIDECAR,
    secret: SecretOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what is wanted of pages. It holds at once, and for pages that are found later.

    use: read, and found by searches. ignore: known, but neither. delete: its text is removed and never comes back.
    """
    options = {"render": render, "extract": extract, "images": images}
    row = {"mark": None if wanted == "none" else wanted, **options}
    by_host: dict[str, list[dict[str, Any]]] = {}
    for url in urls:
        host = urlsplit(url).netloc.lower().removeprefix("www.")
        if not host or "*" in host:
            raise typer.BadParameter(f"{url!r} does not begin with a site's address", param_hint="URL")
        by_host.setdefault(host, []).append({"url": url, **row})
    marked: dict[str, int] = {}
    with plain_errors():
        for host, rows in by_host.items():
            path = f"/crawl/sites/{quote(host)}/pages"
            marked |= Sidecar(sidecar, secret).call("PATCH", path, body=rows)["marked"]
    if as_json:
        print_json(marked)
        return
    for url, count in marked.items():
        print(f"{wanted:<7} {count:>6} known pages  {url}")


@sites_app.command("daily", epilog="Example: switchroom sites daily docs.example.com --off")
def daily(
    host: HostArgument,
    on: Annotated[bool, typer.Option("--on/--off", help="Whether the daily run looks at it.")] = True,
    sidecar: SidecarOption = DEFAULT_SIDECAR,
    secret: SecretOption = None,
) -> None:
    """Take a site into the daily run, or leave it out."""
    with plain_errors():
        Sidecar(sidecar, secret).call("PATCH", f"/crawl/sites/{quote(host)}", body={"alwaysFresh": on})
    print(f"{host} is {'in' if on else 'left out of'} the daily run")


@sites_app.command("adopt", epilog="Example: switchroom sites adopt")
def adopt(sidecar: SidecarOption = DEFAULT_SIDECAR, secret: SecretOption = None, as_json: JsonOption = False) -> None:
    """Make sites of the folders in DATA/crawl/sites that hold a sitemap.xml, and read their pages."""
    with plain_errors():
        made = Sidecar(sidecar, secret).call("POST", "/crawl/sites/adopt")["sites"]
    if as_json:
        print_json(made)
        return
    for host, job in made.items():
        print(f"{host}  job {job}")
    if not made:
        print("No folder is new.")


@sites_app.command("pdf", epilog="Example: switchroom sites pdf")
def pdf(sidecar: SidecarOption = DEFAULT_SIDECAR, secret: SecretOption = None, as_json: JsonOption = False) -> None:
    """Read the PDF files in DATA/crawl/sites/Local_PDF into the knowledge collection Local_PDF."""
    with plain_errors():
        looked = Sidecar(sidecar, secret).call("POST", "/crawl/sites/local_pdf/look")
    if as_json:
        print_json(looked)
        return
    print(f"{looked['read']} read, {looked['unchanged']} unchanged, {looked['removed']} removed")
    for name, cause in looked["failed"].items():
        print(f"  {name}: {cause}")


@sites_app.command("forget", epilog="Example: switchroom sites forget docs.example.com")
def forget(
    host: HostArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    sidecar: SidecarOption = DEFAULT_SIDECAR,
    secret: SecretOption = None,
) -> None:
    """Remove a site: its pages, files, marks and knowledge."""
    if not yes:
        typer.confirm(f"Remove {host} with all its pages?", abort=True)
    with plain_errors():
        gone = Sidecar(sidecar, secret).call("DELETE", f"/crawl/sites/{quote(host)}")
    print(f"removed {host} with {gone['removedPages']} pages")


@fresh_app.command("run", epilog="Example: switchroom fresh run docs.example.com")
def run(
    hosts: Annotated[list[str] | None, typer.Argument(metavar="[HOST...]", help="Only these sites.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the report.")] = True,
    sidecar: SidecarOption = DEFAULT_SIDECAR,
    secret: SecretOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look now for what changed, at all sites or some.

    Exit code: 0 done, 1 where a site's job failed, 3 where one needs a login.
    """
    with plain_errors():
        client = Sidecar(sidecar, secret)
        report = client.call("POST", "/crawl/fresh/runs", body={"hosts": hosts or []})
        while wait and report["state"] == "running":
            time.sleep(_LOOK_S)
            report = client.call("GET", f"/crawl/fresh/runs/{report['id']}")
    _show(report, as_json)
    states = {one["state"] for one in report["sites"].values()}
    if "failed" in states:
        raise typer.Exit(EXIT_REFUSED)
    if report["state"] == "waiting":
        raise typer.Exit(3)


@fresh_app.command("runs", epilog="Example: switchroom fresh runs --limit 7")
def runs(
    limit: Annotated[int, typer.Option(min=1, max=120, help="Runs at most.")] = 10,
    sidecar: SidecarOption = DEFAULT_SIDECAR,
    secret: SecretOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the runs, newest first."""
    with plain_errors():
        found = Sidecar(sidecar, secret).call("GET", "/crawl/fresh/runs", query={"limit": limit})["runs"]
    if as_json:
        print_json(found)
        return
    figures = ("requests", "changed", "new", "gone", "removed", "failed")
    table = Table(Column("Run", no_wrap=True), "Began", "By", "State", *(Column(f, justify="right") for f in figures))
    for one in found:
        counts = (str(one[name]) for name in figures)
        table.add_row(one["id"], one["startedAt"], one["trigger"], one["state"], *counts)
    show_table(table)


@fresh_app.command("show", epilog="Example: switchroom fresh show 0c4a…")
def show(
    run_id: Annotated[str, typer.Argument(help="The run's ID.")],
    sidecar: SidecarOption = DEFAULT_SIDECAR,
    secret: SecretOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a run's report."""
    with plain_errors():
        report = Sidecar(sidecar, secret).call("GET", f"/crawl/fresh/runs/{quote(run_id)}")
    _show(report, as_json)


@fresh_app.command("changes", epilog="Example: switchroom fresh changes 0c4a… --diff")
def changes(
    run_id: Annotated[str, typer.Argument(help="The run's ID.")],
    diff: Annotated[bool, typer.Option("--diff", help="With the lines that came and went.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Changes a site at most.")] = 200,
    sidecar: SidecarOption = DEFAULT_SIDECAR,
    secret: SecretOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what a run found different."""
    with plain_errors():
        client = Sidecar(sidecar, secret)
        report = client.call("GET", f"/crawl/fresh/runs/{quote(run_id)}")
        found = {
            host: client.call("GET", f"/crawl/jobs/{one['job']}/changes", query={"limit": limit})["changes"]
            for host, one in report["sites"].items()
        }
        if as_json:
            print_json(found)
            return
        for host, rows in found.items():
            for row in rows:
                lines = f"  +{row.get('added', 0)} -{row.get('removed', 0)}" if row["kind"] == "changed" else ""
                print(f"{row['kind']:<8} {row['url']}{lines}")
                if diff and row.get("diff"):
                    print(client.text(f"/crawl/sites/{quote(host)}/{row['diff']}"))


@fresh_app.command("schedule", epilog="Example: switchroom fresh schedule")
def schedule(
    sidecar: SidecarOption = DEFAULT_SIDECAR, secret: SecretOption = None, as_json: JsonOption = False
) -> None:
    """Say when the daily run is due, and how the last one went."""
    with plain_errors():
        found = Sidecar(sidecar, secret).call("GET", "/crawl/fresh")
    if as_json:
        print_json(found)
        return
    if found["at"] is None:
        print("No daily run: set SWITCHROOM_CRAWL__FRESH_AT, such as 03:30.")
    else:
        print(f"daily at {found['at']} {found['zone'] or 'of the server'}, next at {found['nextRunAt']}")
    if found["lastRun"] is not None:
        _show(found["lastRun"], as_json=False)


def _show(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(report)
        return
    print(f"{report['state']}  run {report['id']}, began {report['startedAt']}")
    figures = ("vouched", "requests", "notModified", "unchanged", "changed", "new", "back", "gone", "moved", "removed")
    table = Table(Column("Site", no_wrap=True), "State", *(Column(name, justify="right") for name in figures), "failed")
    for host, one in report["sites"].items():
        failed = ", ".join(f"{count} × {cause}" for cause, count in one["failedBy"].items())
        table.add_row(host, one["state"].replace("_", " "), *(str(one[name]) for name in figures), failed)
    show_table(table)
    for host, state in report["skipped"].items():
        print(f"{host} is left out: its job of an earlier run is {state.replace('_', ' ')}")
