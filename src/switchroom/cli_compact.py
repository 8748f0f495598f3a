"""`switchroom compact`: compact graphs of canvases, their faults and sizes, and what differs between two."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import quote

import msgspec
import typer

from switchroom.cli_flow import read_canvas
from switchroom.cli_http import (
    DEFAULT_SERVER,
    EXIT_REFUSED,
    Client,
    KeyOption,
    ServerOption,
    plain_errors,
    print_json,
)
from switchroom.compact import (
    CompactGraph,
    Finding,
    compact_canvas,
    compare,
    content_hash,
    from_json,
    from_msgpack,
    sound,
    to_json,
    to_mermaid,
    to_msgpack,
    to_svg,
    validate,
)
from switchroom.compact.diff import to_text
from switchroom.errors import SwitchroomError

EXIT_DIFFERENT = 1
EXIT_TROUBLE = 2
"""Of `--diff`, as `diff` has them; 0 says that the two run the same."""

Format = Literal["json", "msgpack", "mermaid", "svg"]


class _Source(NamedTuple):
    name: str
    data: bytes


def compact_command(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Canvases (JSON) or compact graphs (JSON, MessagePack); read offline.", exists=True, dir_okay=False
        ),
    ] = None,
    format: Annotated[Format, typer.Option("--format", help="Of the graph.")] = "json",
    diff: Annotated[
        bool, typer.Option("--diff", help="Show what differs between two instead; exit code as diff's.")
    ] = False,
    flow_id: Annotated[
        str | None, typer.Option("--flow", help="A stored flow of the server instead; with --diff, the first.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the graph to this file.", dir_okay=False)] = None,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print only sizes and warnings (with --diff, the changes) as JSON.")
    ] = False,
) -> None:
    """Print the compact graph of canvases, and its size beside theirs; or, with --diff A B, what differs.

    The graph goes to standard output; sizes, errors and warnings go to standard error. With --diff the exit code is 0
    if both run the same, 1 if they differ, 2 if one cannot be read.
    """
    paths = files or []
    if diff:
        if len(paths) + bool(flow_id) != 2:
            raise typer.BadParameter("--diff compares two: A B, or --flow ID and B", param_hint="--diff")
        if out is not None:
            raise typer.BadParameter("--out takes a graph, not a difference", param_hint="--out")
    elif bool(paths) == bool(flow_id):
        raise typer.BadParameter("give either FILE… or --flow ID")
    if out is not None and len(paths) > 1:
        raise typer.BadParameter("--out takes the graph of one canvas", param_hint="--out")
    if format == "msgpack" and out is None and not as_json and not diff and sys.stdout.isatty():
        raise typer.BadParameter("MessagePack is binary: name a file with --out", param_hint="--format")
    with _trouble() if diff else plain_errors():
        sources = [_stored(flow_id, Client(server, api_key))] if flow_id else []
        sources += [_Source(str(path), path.read_bytes()) for path in paths]
        if diff:
            old, new = (_graph(source)[0] for source in sources)
    if diff:
        changes = compare(old, new)
        if as_json:
            print_json(changes)
        else:
            sys.stdout.write(to_text(changes))
        raise typer.Exit(EXIT_DIFFERENT if changes else 0)
    if not _print_graphs(sources, format, out, as_json=as_json):
        raise typer.Exit(EXIT_REFUSED)


def _print_graphs(sources: list[_Source], format: Format, out: Path | None, *, as_json: bool) -> bool:
    """Whether every one of them is a sound canvas."""
    sizes: list[dict[str, Any]] = []
    sound = True
    for source in sources:
        try:
            graph, warnings = _graph(source)
        except SwitchroomError as error:
            sound = False
            print(f"error: {source.name}: {error.detail}", file=sys.stderr)
            for fault in error.faults:
                print(f"  {fault.pointer or '/'}: {fault.detail}", file=sys.stderr)
            continue
        sizes.append(_size(source, graph, warnings))
        drawn = _drawn(graph, format)
        if out is not None:
            out.write_bytes(drawn)
        elif not as_json:
            sys.stdout.buffer.write(drawn + (b"\n" if format == "json" else b""))
            sys.stdout.flush()
        if not as_json:
            for warning in warnings:
                print(f"warning: {source.name}: {warning.pointer}: {warning.detail}", file=sys.stderr)
    if as_json:
        print_json(sizes)
    else:
        _show_sizes(sizes)
    return sound


@contextmanager
def _trouble() -> Iterator[None]:
    """For `--diff`, exit code 1 says "different": what cannot be read is 2."""
    try:
        with plain_errors():
            yield
    except typer.Exit as ended:
        raise typer.Exit(EXIT_TROUBLE) from ended


def _stored(flow_id: str, client: Client) -> _Source:
    path = f"/api/v1/chatflows/{quote(flow_id, safe='')}"
    return _Source(flow_id, client.call("GET", path).body)


def _graph(source: _Source) -> tuple[CompactGraph, list[Finding]]:
    """The graph in a file, and its warnings. Raises BadInput, or Unprocessable with every error."""
    if _is_msgpack(source.data):
        graph = sound(from_msgpack(source.data))
        return graph, [finding for finding in validate(graph) if finding.severity == "warning"]
    content = read_canvas(source.name, source.data)
    if "nodes" not in content and isinstance(content.get("n"), list):
        graph = sound(from_json(source.data))
        return graph, [finding for finding in validate(graph) if finding.severity == "warning"]
    graph = compact_canvas(content)
    return graph, [finding for finding in validate(content) if finding.severity == "warning"]


def _is_msgpack(data: bytes) -> bool:
    """A MessagePack map of a few members begins with such a byte, which is in no JSON text."""
    return data[:1] != b"" and 0x80 <= data[0] <= 0x8F


def _drawn(graph: CompactGraph, format: Format) -> bytes:
    match format:
        case "json":
            return to_json(graph)
        case "msgpack":
            return to_msgpack(graph)
        case "mermaid":
            return to_mermaid(graph).encode()
        case "svg":
            return to_svg(graph).encode()


def _size(source: _Source, graph: CompactGraph, warnings: list[Finding]) -> dict[str, Any]:
    data = source.data
    content: Any = graph if _is_msgpack(data) else read_canvas(source.name, data)
    if isinstance(content, dict) and "nodes" not in content and isinstance(content.get("flowData"), str):
        data = content["flowData"].encode()
        content = read_canvas(source.name, data)
    minified = len(msgspec.json.encode(content))
    compact = len(to_json(graph))
    return {
        "name": source.name,
        "nodes": len(graph.nodes),
        "canvasBytes": len(data),
        "minifiedBytes": minified,
        "compactBytes": compact,
        "msgpackBytes": len(to_msgpack(graph)),
        "ratio": round(compact / max(1, len(data)), 4),
        "ratioMinified": round(compact / max(1, minified), 4),
        "hash": content_hash(graph),
        "warnings": [{"pointer": one.pointer, "detail": one.detail, "nodeId": one.node_id} for one in warnings],
    }


def _show_sizes(sizes: list[dict[str, Any]]) -> None:
    for size in sizes:
        print(
            f"{size['name']}: {size['canvasBytes']:,} bytes on the canvas ({size['minifiedBytes']:,} minified), "
            f"{size['compactBytes']:,} compact = {size['ratio']:.1%} ({size['ratioMinified']:.1%} of minified), "
            f"{size['msgpackBytes']:,} as MessagePack, {size['nodes']} nodes, {size['hash']}",
            file=sys.stderr,
        )
