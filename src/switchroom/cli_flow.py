"""Commands over flows and records: `flow`, `executions`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
import typer
from rich.table import Column, Table

from switchroom.cli_http import (
    DEFAULT_SERVER,
    EXIT_REFUSED,
    Client,
    JsonOption,
    KeyOption,
    ServerOption,
    plain_errors,
    print_json,
    show_table,
)
from switchroom.compact import from_json, to_mermaid
from switchroom.errors import BadInput

flow_app = typer.Typer(help="Import, list, show and export flows.", no_args_is_help=True)
executions_app = typer.Typer(help="Read the records of turns and calls.", no_args_is_help=True)

_COLUMNS = ("settings", "deployed", "isPublic", "chatbotConfig", "apiConfig")
"""Of a flow's row, beside its canvas."""

IdArgument = Annotated[str, typer.Argument(help="The flow's ID.")]


@flow_app.command("import", epilog="Example: switchroom flow import examples/support-line.json --id support")
def import_flow(
    file: Annotated[Path, typer.Argument(help="A canvas as its editor saves it (JSON).", exists=True, dir_okay=False)],
    flow_id: Annotated[
        str | None, typer.Option("--id", help="Save it under this ID (replaces one that stands).")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Its name; else the canvas's own.")] = None,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import a flow; prints its ID alone.

    A Flowise export of a whole workspace is taken as well: its Agentflow V2 flows are imported under their own IDs,
    one ID a line; what else is in it is counted on standard error.
    """
    with plain_errors():
        content = read_canvas(str(file), file.read_bytes())
    bodies = _workspace(content)
    if bodies and (flow_id or name):
        raise typer.BadParameter("the file holds many flows, each with its own", param_hint="--id")
    if not bodies:
        bodies = [_import_body(content, flow_id, name or None)]
        if bodies[0].get("name") is None and flow_id is None:
            bodies[0]["name"] = file.stem
    replies, refused = [], 0
    client = Client(server, api_key)
    for body in bodies:
        try:
            with plain_errors(f"{body.get('name') or file}: " if len(bodies) > 1 else ""):
                reply = client.call("POST", "/api/v1/chatflows", body=body).json()
        except typer.Exit as ended:
            if len(bodies) == 1 or ended.exit_code != EXIT_REFUSED:
                raise
            refused += 1
            continue
        replies.append({name: value for name, value in reply.items() if name != "flowData"})
        for warning in reply.get("warnings", ()):
            print(f"warning: {reply['name']}: {warning['pointer']}: {warning['detail']}", file=sys.stderr)
        if not as_json:
            print(reply["id"])
    if as_json:
        print_json(replies if len(bodies) > 1 else replies[0])
    if refused:
        raise typer.Exit(EXIT_REFUSED)


@flow_app.command("list", epilog="Example: switchroom flow list --json")
def list_flows(server: ServerOption = DEFAULT_SERVER, api_key: KeyOption = None, as_json: JsonOption = False) -> None:
    """List the flows."""
    with plain_errors():
        flows = Client(server, api_key).call("GET", "/api/v1/chatflows").json()
    if as_json:
        print_json([{name: value for name, value in flow.items() if name != "flowData"} for flow in flows])
        return
    table = Table(Column("ID", no_wrap=True), "Name", "Type", "Updated", "Hash")
    for flow in flows:
        table.add_row(flow["id"], flow["name"], flow["type"], flow["updatedDate"], flow["hash"][:19])
    show_table(table)


@flow_app.command("show", epilog="Example: switchroom flow show support")
def show_flow(
    flow_id: IdArgument, server: ServerOption = DEFAULT_SERVER, api_key: KeyOption = None, as_json: JsonOption = False
) -> None:
    """Show a flow's settings and its graph."""
    with plain_errors():
        client = Client(server, api_key)
        flow = client.call("GET", f"/api/v1/chatflows/{quote(flow_id, safe='')}").json()
        compact = client.call("GET", f"/api/v1/openai-realtime/{quote(flow_id, safe='')}/compact").body
    del flow["flowData"]
    if as_json:
        print_json({**flow, "graph": msgspec.Raw(compact)})
        return
    for key, value in flow.items():
        print(f"{key}: {value if isinstance(value, str) else msgspec.json.encode(value).decode()}")
    with plain_errors():
        print("\n" + to_mermaid(from_json(compact)))


@flow_app.command("export", epilog="Example: switchroom flow export support > support.json")
def export_flow(flow_id: IdArgument, server: ServerOption = DEFAULT_SERVER, api_key: KeyOption = None) -> None:
    """Print the canvas as it was imported."""
    with plain_errors():
        flow = Client(server, api_key).call("GET", f"/api/v1/chatflows/{quote(flow_id, safe='')}").json()
    sys.stdout.write(msgspec.json.format(flow["flowData"], indent=2) + "\n")


@executions_app.command("list", epilog="Example: switchroom executions list --state FINISHED --limit 20")
def list_executions(
    flow_id: Annotated[str | None, typer.Option("--flow", help="Of one flow.")] = None,
    task_id: Annotated[str | None, typer.Option("--task", help="Of one call.")] = None,
    session_id: Annotated[str | None, typer.Option("--session", help="Of one session.")] = None,
    state: Annotated[str | None, typer.Option("--state", help="In this state.")] = None,
    since: Annotated[str | None, typer.Option("--since", help="From this RFC 3339 time or date.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="To this RFC 3339 time or date.")] = None,
    page: Annotated[int, typer.Option("--page", min=1)] = 1,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000)] = 10,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List records, newest first."""
    query = {
        "agentflowId": flow_id,
        "taskId": task_id,
        "sessionId": session_id,
        "state": state,
        "startDate": since,
        "endDate": until,
        "page": page,
        "limit": limit,
    }
    with plain_errors():
        reply = Client(server, api_key).call("GET", "/api/v1/executions", query=query).json()
    if as_json:
        print_json(reply)
        return
    columns = (Column("ID", no_wrap=True), "Kind", "Flow", "Task", "State", "Created", "Seconds")
    table = Table(*columns, title=f"{reply['total']} in all")
    for row in reply["data"]:
        duration_ms = row.get("durationMs")
        seconds = "" if duration_ms is None else f"{duration_ms / 1000:.1f}"
        task = row.get("taskId") or ""
        table.add_row(row["id"], row["kind"], row["agentflowId"], task, row["state"], row["createdDate"], seconds)
    show_table(table)


@executions_app.command("show", epilog="Example: switchroom executions show 7f3c… --json")
def show_execution(
    execution_id: Annotated[str, typer.Argument(help="The record's ID.")],
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one record with its transcript."""
    with plain_errors():
        path = f"/api/v1/executions/{quote(execution_id, safe='')}"
        row = Client(server, api_key).call("GET", path).json()
    if as_json:
        print_json(row)
        return
    for key, value in row.items():
        if key not in ("executionData", "transcript") and value not in (None, "", {}, []):
            print(f"{key}: {value if isinstance(value, str) else msgspec.json.encode(value).decode()}")
    for line in row.get("transcript") or []:
        cut = " (interrupted)" if line["interrupted"] else ""
        print(f"  {line['startMs'] / 1000:8.1f} s  {line['role']:6}  {line['text']}{cut}")


def read_canvas(name: str, data: bytes) -> dict[str, Any]:
    """The JSON object in a file's bytes; `name` is what to call it. Raises BadInput."""
    try:
        canvas = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"{name} is not JSON: {error}.") from error
    if not isinstance(canvas, dict):
        raise BadInput(f"{name} is not a canvas: it must hold a JSON object.")
    return canvas


def _workspace(content: dict[str, Any]) -> list[dict[str, Any]]:
    """The bodies of the imports that a workspace's export stands for; none if the file is something else."""
    rows = content.get("AgentFlowV2")
    if "nodes" in content or "flowData" in content or not isinstance(rows, list):
        return []
    left = [f"{len(value)} {key}" for key, value in content.items() if key != "AgentFlowV2" and isinstance(value, list)]
    if any(not words.startswith("0 ") for words in left):
        print(f"not imported: {', '.join(words for words in left if not words.startswith('0 '))}", file=sys.stderr)
    return [_import_body(row, row.get("id"), None) for row in rows if isinstance(row, dict)]


def _import_body(canvas: dict[str, Any], flow_id: str | None, name: str | None) -> dict[str, Any]:
    """The body of an import: a file that wraps its canvas gives its name, type and settings, a bare canvas its
    `type`."""
    body: dict[str, Any] = {"flowData": canvas, "id": flow_id, "name": name}
    if "nodes" not in canvas and "flowData" in canvas:
        kept = {key: canvas[key] for key in _COLUMNS if canvas.get(key) is not None}
        body = {**kept, "flowData": canvas["flowData"], "id": flow_id, "name": name or canvas.get("name")}
    elif isinstance(canvas.get("name"), str):
        body["name"] = name or canvas["name"]
    if canvas.get("type") in ("REALTIME", "AGENTFLOW"):
        body["type"] = canvas["type"]
    return {key: value for key, value in body.items() if value is not None}
