"""Commands over stored API keys: `keys create|list|revoke`."""

from __future__ import annotations

import sys
from typing import Annotated
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
from switchroom.scopes import Scope

keys_app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)

_PATH = "/api/v1/apikey"


@keys_app.command("create", epilog="Example: switchroom keys create ticketing --scope queue:write --scope queue:read")
def create_key(
    name: Annotated[str, typer.Argument(help="Who the key is for.")],
    scopes: Annotated[
        list[Scope] | None, typer.Option("--scope", help="What it may do; everything unless told.")
    ] = None,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it: it cannot be shown again.

    The first key closes a server that was open: from then on every request needs one.
    """
    with plain_errors():
        body = {"keyName": name, "scopes": [str(scope) for scope in scopes or [Scope.ALL]]}
        made = Client(server, api_key).call("POST", _PATH, body=body).json()
    if as_json:
        print_json(made)
    else:
        print(made["apiKey"])
        print(f"key {made['id']} for {name}; keep it now, it is not shown again", file=sys.stderr)


@keys_app.command("list", epilog="Example: switchroom keys list --json")
def list_keys(server: ServerOption = DEFAULT_SERVER, api_key: KeyOption = None, as_json: JsonOption = False) -> None:
    """List the stored keys, without the keys themselves."""
    with plain_errors():
        stored = Client(server, api_key).call("GET", _PATH).json()
    if as_json:
        print_json(stored)
        return
    table = Table(Column("ID", no_wrap=True), "Name", "Scopes", "Created")
    for one in stored:
        table.add_row(one["id"], one["keyName"], ", ".join(one["scopes"]), one["createdAt"])
    show_table(table)


@keys_app.command("revoke", epilog="Example: switchroom keys revoke 1f0c5ad2b7e9")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="The ID that `keys list` shows.")],
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
) -> None:
    """Revoke a key: within two seconds no process accepts it any more."""
    with plain_errors():
        Client(server, api_key).call("DELETE", f"{_PATH}/{quote(key_id, safe='')}")
    print(f"revoked {key_id}")
