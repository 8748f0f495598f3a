"""Commands over knowledge: `knowledge list|show|search|get|add|remove|drop`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.table import Column, Table

from switchroom.cli_http import (
    DEFAULT_SERVER,
    Client,
    JsonOption,
    KeyOption,
    ServerOption,
    plain_errors,
    print_json,
    show_table,
)

knowledge_app = typer.Typer(
    help="What flows can look up: collections of crawled pages and documents.", no_args_is_help=True
)

NameArgument = Annotated[str, typer.Argument(help="The collection: a crawled site's host, or a name of yours.")]
KeyArgument = Annotated[str, typer.Argument(help="The document's key, as `knowledge show` lists it: a page's URL.")]
_BATCH = 100
_TEXTS = (".md", ".markdown", ".txt")


@knowledge_app.command("list", epilog="Example: switchroom knowledge list")
def list_collections(
    server: ServerOption = DEFAULT_SERVER, api_key: KeyOption = None, as_json: JsonOption = False
) -> None:
    """List the collections."""
    with plain_errors():
        found = Client(server, api_key).call("GET", _path()).json()
    if as_json:
        print_json(found)
        return
    table = Table(Column("Collection", no_wrap=True), Column("Documents", justify="right"), "Changed")
    for one in found:
        table.add_row(one["name"], str(one["documents"]), one["changedAt"])
    show_table(table)


@knowledge_app.command("show", epilog="Example: switchroom knowledge show docs.example.com --limit 20")
def show(
    collection: NameArgument,
    page: Annotated[int, typer.Option("--page", min=1, help="Which page of the list.")] = 1,
    limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="Documents a page.")] = 50,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List a collection's documents, those that changed last first."""
    with plain_errors():
        query = {"page": page, "limit": limit}
        found = Client(server, api_key).call("GET", _path(collection), query=query).json()
    if as_json:
        print_json(found)
        return
    table = Table(Column("Key", overflow="fold"), "Title", Column("Letters", justify="right"), "Changed")
    for one in found["data"]:
        table.add_row(one["key"], one["title"], str(one["chars"]), one["changedAt"])
    show_table(table)
    print(f"{len(found['data'])} of {found['total']}")


@knowledge_app.command("search", epilog='Example: switchroom knowledge search docs.example.com "When are you open?"')
def search(
    collection: NameArgument,
    question: Annotated[str, typer.Argument(help="A question, or some words.")],
    limit: Annotated[int, typer.Option("--limit", min=1, max=50, help="Hits at most.")] = 5,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a flow would find: the sentences that answer best, and where they stand."""
    with plain_errors():
        query: dict[str, str | int | None] = {"q": question, "limit": limit}
        found = Client(server, api_key).call("GET", _path(collection, "search"), query=query).json()
    if as_json:
        print_json(found)
        return
    for hit in found["hits"]:
        where = " > ".join(part for part in (hit["title"], *hit["headings"]) if part)
        print(f"{hit['coverage']:.0%}  {where}\n     {hit['url'] or hit['key']}\n     {hit['snippet']}\n")
    if not found["hits"]:
        print("Nothing was found.")


@knowledge_app.command(
    "get", epilog="Example: switchroom knowledge get docs.example.com https://docs.example.com/hours"
)
def get(
    collection: NameArgument,
    key: KeyArgument,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print one document's text."""
    with plain_errors():
        found = Client(server, api_key).call("GET", _path(collection, "document"), query={"key": key}).json()
    if as_json:
        print_json(found)
    else:
        print(found["text"])


@knowledge_app.command("add", epilog="Example: switchroom knowledge add handbook docs/*.md")
def add(
    collection: NameArgument,
    files: Annotated[list[Path], typer.Argument(help="Markdown or text files, or folders of them; - reads one.")],
    url: Annotated[str, typer.Option("--url", help="Where readers find it (for one file).")] = "",
    title: Annotated[str, typer.Option("--title", help="Its title (for one file); else its first heading.")] = "",
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add or replace documents; each file's name is its key."""
    if (url or title) and len(files) != 1:
        raise typer.BadParameter("goes with one file only", param_hint="--url/--title")
    documents = [_read(path, root, url, title) for root in files for path in _texts(root)]
    if not documents:
        raise typer.BadParameter("no Markdown or text file is there", param_hint="FILES")
    received = changed = 0
    with plain_errors():
        client = Client(server, api_key)
        for start in range(0, len(documents), _BATCH):
            body = documents[start : start + _BATCH]
            kept = client.call("PUT", _path(collection, "documents"), body=body).json()
            received, changed = received + kept["received"], changed + kept["changed"]
    if as_json:
        print_json({"received": received, "changed": changed})
    else:
        print(f"{received} documents, {changed} of them new or changed")


@knowledge_app.command("remove", epilog="Example: switchroom knowledge remove handbook docs/old.md")
def remove(
    collection: NameArgument, key: KeyArgument, server: ServerOption = DEFAULT_SERVER, api_key: KeyOption = None
) -> None:
    """Remove one document. A crawled page comes back with the next crawl: mark it instead (`switchroom sites mark`)."""
    with plain_errors():
        Client(server, api_key).call("DELETE", _path(collection, "documents"), query={"key": key})
    print(f"removed {key}")


@knowledge_app.command("drop", epilog="Example: switchroom knowledge drop handbook")
def drop(
    collection: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
) -> None:
    """Remove a collection with all its documents."""
    if not yes:
        typer.confirm(f"Remove {collection} with all its documents?", abort=True)
    with plain_errors():
        gone = Client(server, api_key).call("DELETE", _path(collection)).json()
    print(f"removed {collection} with {gone['removed']} documents")


def _path(*parts: str) -> str:
    return "/".join(("/api/v1/knowledge", *(quote(part, safe="") for part in parts)))


def _texts(root: Path) -> list[Path]:
    if root.is_dir():
        return sorted(path for path in root.rglob("*") if path.suffix.lower() in _TEXTS and path.is_file())
    return [root]


def _read(path: Path, root: Path, url: str, title: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path} cannot be read as UTF-8 text: {error}", param_hint="FILES") from error
    first = next((line for line in text.splitlines() if line.strip()), "")
    heading = first.lstrip("# ").strip() if first.startswith("#") else path.stem
    key = path.relative_to(root).as_posix() if root.is_dir() else (url or path.name)
    return {"key": key, "url": url, "title": title or heading[:200], "text": text}
