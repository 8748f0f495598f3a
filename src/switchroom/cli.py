"""The `switchroom` command: composition of the sub-commands, and the ones that run the server or speak of calls."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn
from urllib.parse import quote

import msgspec
import typer

from switchroom import __version__
from switchroom.cli_bulk import enqueue_bulk_command
from switchroom.cli_call import call_command
from switchroom.cli_compact import compact_command
from switchroom.cli_crawl import cookies_app, crawl_command
from switchroom.cli_flow import executions_app, flow_app
from switchroom.cli_http import (
    DEFAULT_SERVER,
    EXIT_REFUSED,
    Client,
    JsonOption,
    KeyOption,
    ServerOption,
    plain_errors,
    print_json,
)
from switchroom.cli_jobs import jobs_app
from switchroom.cli_keys import keys_app
from switchroom.cli_knowledge import knowledge_app
from switchroom.cli_simulate import simulate_command
from switchroom.cli_sites import fresh_app, sites_app
from switchroom.cli_webhooks import webhooks_app
from switchroom.errors import SwitchroomError

if TYPE_CHECKING:  # the heavy rooms are loaded by the commands that need them: `--help` stays quick
    from rich.console import Console

    from switchroom.app import Role
    from switchroom.settings import Settings

EXIT_USAGE = 2
_MISSING = frozenset({"model_missing", "not_installed"})

app = typer.Typer(
    name="switchroom",
    help="A self-hosted realtime voice call centre: a durable call queue, voice agents drawn as graphs, and a crawler.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(flow_app, name="flow")
app.add_typer(executions_app, name="executions")
app.add_typer(cookies_app, name="cookies")
app.add_typer(jobs_app, name="jobs")
app.add_typer(keys_app, name="keys")
app.add_typer(knowledge_app, name="knowledge")
app.add_typer(sites_app, name="sites")
app.add_typer(fresh_app, name="fresh")
app.add_typer(webhooks_app, name="webhooks")
app.command("compact", epilog="Example: switchroom compact examples/support-line.json --format mermaid")(
    compact_command
)
app.command("enqueue-bulk", epilog="Example: switchroom enqueue-bulk campaign.csv --flow support")(enqueue_bulk_command)
app.command("crawl", epilog="Example: switchroom crawl https://example.com --depth 2 --out pages/")(crawl_command)
app.command(
    "call", epilog="Example: switchroom call --flow support --task flowise-… --wav question.wav --record heard.wav"
)(call_command)
app.command("simulate", epilog="Example: switchroom simulate scenarios/*.yaml --flow support --junit report.xml")(
    simulate_command
)

DataOption = Annotated[Path | None, typer.Option("--data", help="Folder of everything durable.")]
FlowOption = Annotated[str, typer.Option("--flow", help="The flow's ID.")]


def _version(asked: bool) -> None:
    if asked:
        print(f"switchroom {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Options of every command."""


@app.command(epilog="Example: switchroom serve --data ./data --port 8090 --sidecar-port 8091")
def serve(
    data: DataOption = None,
    host: Annotated[str | None, typer.Option("--host", help="Address of the API; not loopback needs keys.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port of the API; 0 takes a free one.")] = None,
    sidecar_port: Annotated[int | None, typer.Option("--sidecar-port", help="Port of the sidecar.")] = None,
    media_processes: Annotated[
        int | None, typer.Option("--media-processes", help="Default: one a core, at most 4.")
    ] = None,
    allow_open: Annotated[
        bool, typer.Option("--allow-open", help="Serve without any key on an address that is not loopback.")
    ] = False,
    role: Annotated[
        str | None, typer.Option("--role", help="Only this part, here: api, media or crawl (all share one store).")
    ] = None,
) -> None:
    """Run everything in the foreground: store, API, media, sidecar. Stops clean on SIGTERM or Ctrl-C.

    Prints one line `ready http://… sidecar http://…` when it can serve. Settings: SWITCHROOM_* or a TOML file named by
    SWITCHROOM_CONFIG; options win.
    """
    from switchroom import logs
    from switchroom.supervisor import Supervisor, run_role

    roles: dict[str, Role] = {"api": "api", "media": "media", "crawl": "crawl"}
    if role is not None and role not in roles:
        _fail(f"--role {role}: one of {', '.join(roles)}", EXIT_USAGE)
    settings = _settings(
        data=data,
        host=host,
        port=port,
        sidecar_port=sidecar_port,
        media_processes=media_processes,
        allow_open=allow_open or None,
    )
    logs.set_up(settings.log_level, settings.log_format, pii=settings.log_pii, role=role or "serve")
    _run(Supervisor(settings).run() if role is None else run_role(roles[role], settings))


@app.command(epilog="Example: switchroom sidecar --data ./data --port 8091")
def sidecar(
    data: DataOption = None,
    host: Annotated[str | None, typer.Option("--host", help="Not loopback needs an ingest secret.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="0 takes a free one.")] = None,
) -> None:
    """Run the crawl host alone. Beside a `serve` on the same data folder it shares its store."""
    from switchroom import logs
    from switchroom.supervisor import run_role

    settings = _settings(data=data, sidecar_host=host, sidecar_port=port)
    logs.set_up(settings.log_level, settings.log_format, pii=settings.log_pii, role="crawl")
    _run(run_role("crawl", settings))


@app.command(
    epilog="Example: switchroom enqueue --flow support --id +38641656457 --form ticket=T-17 --state crm.tier=gold"
)
def enqueue(
    flow: FlowOption,
    caller: Annotated[str, typer.Option("--id", help="The caller's ID, such as a phone number.")],
    form: Annotated[list[str] | None, typer.Option("--form", help="A further field NAME=VALUE of the form.")] = None,
    state: Annotated[
        list[str] | None, typer.Option("--state", help="A value PATH=VALUE of the session memory.")
    ] = None,
    priority: Annotated[int, typer.Option("--priority", help="Higher goes first.")] = 0,
    idempotency_key: Annotated[str | None, typer.Option("--idempotency-key", help="Safe to repeat with it.")] = None,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a call in a flow's queue; prints its task ID."""
    fields = dict(_pair("--form", text) for text in form or [])
    body: dict[str, Any] = {"form": {"ID": caller, **fields}}
    for text in state or []:
        path, value = _pair("--state", text)
        place = body.setdefault("state", {})
        *parents, last = path.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    if priority:
        body["priority"] = priority
    headers = {"Idempotency-Key": idempotency_key} if idempotency_key else None
    with plain_errors():
        path = f"/api/v1/openai-realtime/{quote(flow, safe='')}/queue/enqueue"
        reply = Client(server, api_key).call("POST", path, body=body, headers=headers).json()
    if as_json:
        print_json(reply)
    else:
        print(reply["taskId"])


@app.command(epilog="Example: switchroom status --flow support --task flowise-… --follow")
def status(
    flow: FlowOption,
    task: Annotated[str | None, typer.Option("--task", help="Only this call, with its history.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the call has ended (or Ctrl-C).")] = False,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a flow's queue, or one call."""
    from rich.console import Console

    console = Console()
    path = f"/api/v1/openai-realtime/{quote(flow, safe='')}/queue/status"
    etag = None
    with plain_errors():
        client = Client(server, api_key, timeout_s=90)
        while True:
            headers = {"If-None-Match": etag} if etag else None
            reply = client.call("GET", path, query={"taskId": task, "wait": 30 if etag else None}, headers=headers)
            if reply.status == 200:
                etag = reply.headers.get("ETag")
                body = reply.json()
                if as_json:
                    print_json(body)
                else:
                    _show_status(console, body, task)
                if not follow or body.get("state") == "ended":
                    return
            elif not etag:
                time.sleep(1)


@app.command(epilog="Example: switchroom doctor --json")
def doctor(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Say what is installed, what is missing, and the command that installs it."""
    from switchroom import doctor as checks

    settings = _settings(data=data)
    found = checks.run_checks(settings.data, (settings.port, settings.sidecar_port), settings.crawl.chromium)
    if as_json:
        print_json([msgspec.to_builtins(check) for check in found])
    else:
        print(checks.report(found))
    if not checks.healthy(found):
        raise typer.Exit(1)


def main() -> None:
    """The entry point of the console script."""
    app()


def _settings(**given: Any) -> Settings:
    from switchroom.settings import WrongSettings, load

    try:
        return load(**given)
    except WrongSettings as error:
        _fail(f"wrong setting: {error}", EXIT_USAGE)


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Runs a server; what stops it is one line and an exit code."""
    import uvloop

    from switchroom.supervisor import EXIT_NOT_INSTALLED

    try:
        uvloop.run(work)
    except SwitchroomError as error:
        _fail(error.detail, EXIT_NOT_INSTALLED if error.code in _MISSING else EXIT_REFUSED)
    except OSError as error:
        _fail(f"cannot start: {error}", EXIT_USAGE)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except asyncio.CancelledError:
        raise typer.Exit(1) from None


def _fail(sentence: str, code: int) -> NoReturn:
    print(f"switchroom: {sentence}", file=sys.stderr)
    raise typer.Exit(code)


def _pair(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint=option)
    return name, value


def _show_status(console: Console, body: dict[str, Any], task: str | None) -> None:
    if task:
        console.print(f"[bold]{body['taskId']}[/bold]  {body['status']}  attempt {body['attempt']}", highlight=False)
        for change in body["history"]:
            why = f"  {change['endReason'] or ''} {change['detail'] or ''}".rstrip()
            console.print(f"  {change['at']}  {change['state']:<9} {change['cause']}{why}", highlight=False)
        return
    paused = "" if body["enabled"] else "  [yellow]paused[/yellow]"
    console.print(
        f"pending {body['pendingCount']}  active {body['activeCount']}/{body['concurrency']}  "
        f"scheduled {body['scheduledCount']}{paused}",
        highlight=False,
    )
    for row in body["active"]:
        console.print(f"  {row['state']:<8} {row['taskId']}  {row['ID']}  since {row['startedAt']}", highlight=False)
    for row in body["pending"]:
        console.print(
            f"  {row['position']:>3}.     {row['taskId']}  {row['ID']}  about {row['estimatedWaitSeconds']} s",
            highlight=False,
        )
