"""Commands over flows, compact graphs and records: `flow`, `compact`, `executions`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal
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
from switchroom.compact import compact_canvas, content_hash, from_json, to_json, to_mermaid, to_msgpack
from switchroom.errors import BadInput, SwitchroomError

flow_app = typer.Typer(help="Import, list, show and export flows.", no_args_is_help=True)
executions_app = typer.Typer(help="Read the records of turns and calls.", no_args_is_help=True)

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
    """Import a flow; prints its ID alone."""
    with plain_errors():
        body = _import_body(_read(file), flow_id, name or None)
        if body.get("name") is None and flow_id is None:
            body["name"] = file.stem
        reply = Client(server, api_key).call("POST", "/api/v1/chatflows", body=body).json()
    if as_json:
        print_json({name: value for name, value in reply.items() if name != "flowData"})
    else:
        print(reply["id"])


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


def compact_command(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Canvases (JSON); read offline.", exists=True, dir_okay=False)
    ] = None,
    format: Annotated[Literal["json", "msgpack", "mermaid"], typer.Option("--format", help="Of the graph.")] = "json",
    flow_id: Annotated[str | None, typer.Option("--flow", help="A stored flow of the server instead.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the graph to this file.", dir_okay=False)] = None,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the sizes, as JSON.")] = False,
) -> None:
    """Print the compact graph of canvases, and its size beside theirs.

    The graph goes to standard output, the sizes to standard error.
    """
    paths = files or []
    if bool(paths) == bool(flow_id):
        raise typer.BadParameter("give either FILE… or --flow ID")
    if out is not None and len(paths) > 1:
        raise typer.BadParameter("--out takes the graph of one canvas", param_hint="--out")
    if format == "msgpack" and out is None and not as_json and sys.stdout.isatty():
        raise typer.BadParameter("MessagePack is binary: name a file with --out", param_hint="--format")
    canvases: list[tuple[str, bytes]] = []
    with plain_errors():
        if flow_id:
            path = f"/api/v1/chatflows/{quote(flow_id, safe='')}"
            canvases.append((flow_id, Client(server, api_key).call("GET", path).json()["flowData"].encode()))
        else:
            canvases += [(str(path), path.read_bytes()) for path in paths]
    sizes: list[dict[str, Any]] = []
    failed = False
    for name, data in canvases:
        try:
            size, graph = _compact(name, data, format)
        except SwitchroomError as error:
            failed = True
            print(f"error: {name}: {error.detail}", file=sys.stderr)
            for fault in error.faults:
                print(f"  {fault.pointer or '/'}: {fault.detail}", file=sys.stderr)
            continue
        sizes.append(size)
        if out is not None:
            out.write_bytes(graph)
        elif not as_json:
            sys.stdout.buffer.write(graph + (b"" if format == "msgpack" else b"\n"))
            sys.stdout.flush()
    if as_json:
        print_json(sizes)
    else:
        _show_sizes(sizes)
    if failed:
        raise typer.Exit(EXIT_REFUSED)


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


def _read(file: Path) -> dict[str, Any]:
    return _canvas(str(file), file.read_bytes())


def _canvas(name: str, data: bytes) -> dict[str, Any]:
    try:
        canvas = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"{name} is not JSON: {error}.") from error
    if not isinstance(canvas, dict):
        raise BadInput(f"{name} is not a canvas: it must hold a JSON object.")
    return canvas


def _import_body(canvas: dict[str, Any], flow_id: str | None, name: str | None) -> dict[str, Any]:
    """The body of an import: a file that wraps its canvas gives its name and type, a bare canvas its `type`."""
    body: dict[str, Any] = {"flowData": canvas, "id": flow_id, "name": name}
    if "nodes" not in canvas and "flowData" in canvas:
        body = {"flowData": canvas["flowData"], "id": flow_id, "name": name or canvas.get("name")}
        if isinstance(canvas.get("settings"), dict):
            body["settings"] = canvas["settings"]
    elif isinstance(canvas.get("name"), str):
        body["name"] = name or canvas["name"]
    if canvas.get("type") in ("REALTIME", "AGENTFLOW"):
        body["type"] = canvas["type"]
    return {key: value for key, value in body.items() if value is not None}


def _compact(name: str, data: bytes, format: str) -> tuple[dict[str, Any], bytes]:
    canvas = _canvas(name, data)
    graph = compact_canvas(canvas)
    as_json, minified = to_json(graph), len(msgspec.json.encode(canvas))
    size = {
        "name": name,
        "nodes": len(graph.nodes),
        "canvasBytes": len(data),
        "minifiedBytes": minified,
        "compactBytes": len(as_json),
        "msgpackBytes": len(to_msgpack(graph)),
        "ratio": round(len(as_json) / max(1, len(data)), 4),
        "ratioMinified": round(len(as_json) / max(1, minified), 4),
        "hash": content_hash(graph),
    }
    if format == "json":
        return size, as_json
    return size, to_msgpack(graph) if format == "msgpack" else to_mermaid(graph).encode()


def _show_sizes(sizes: list[dict[str, Any]]) -> None:
    for size in sizes:
        print(
            f"{size['name']}: {size['canvasBytes']:,} bytes on the canvas ({size['minifiedBytes']:,} minified), "
            f"{size['compactBytes']:,} compact = {size['ratio']:.1%} ({size['ratioMinified']:.1%} of minified), "
            f"{size['msgpackBytes']:,} as MessagePack, {size['nodes']} nodes, {size['hash']}",
            file=sys.stderr,
        )
