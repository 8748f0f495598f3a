"""Commands over a flow's webhooks: `webhooks list|create|set|delete|rotate|deliveries|redeliver`."""

from __future__ import annotations

import sys
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

webhooks_app = typer.Typer(help="Where a flow's status webhooks go, and what became of them.", no_args_is_help=True)

FlowOption = Annotated[str, typer.Option("--flow", help="The flow's ID.")]
EndpointArgument = Annotated[
    str, typer.Argument(help="The ID that `webhooks list` shows; `callback` stands for the calls' own callbackUrl.")
]
TypesOption = Annotated[
    list[str] | None, typer.Option("--type", help="Only these messages, such as call.ended; all unless told.")
]


@webhooks_app.command("list", epilog="Example: switchroom webhooks list --flow support")
def list_endpoints(
    flow: FlowOption, server: ServerOption = DEFAULT_SERVER, api_key: KeyOption = None, as_json: JsonOption = False
) -> None:
    """List the endpoints of a flow."""
    with plain_errors():
        found = Client(server, api_key).call("GET", _path(flow)).json()
    if as_json:
        print_json(found)
        return
    table = Table(Column("ID", no_wrap=True), "URL", "Types", "State", Column("Open", justify="right"), "Description")
    for one in found:
        state = "on" if one["enabled"] else f"off ({one.get('disabledReason', '')})"
        kinds = ", ".join(one["types"]) or "all"
        table.add_row(
            one["id"], one["url"] or "each call's", kinds, state, str(one["openMessages"]), one["description"]
        )
    show_table(table)


@webhooks_app.command(
    "create", epilog="Example: switchroom webhooks create https://crm.example/hook --flow support --type call.ended"
)
def create(
    url: Annotated[str, typer.Argument(help="Where the messages go: http or https.")],
    flow: FlowOption,
    types: TypesOption = None,
    description: Annotated[str, typer.Option("--description", help="A word of yours.")] = "",
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add an endpoint and print its secret: it cannot be shown again."""
    body = {"url": url, "types": types or [], "description": description}
    with plain_errors():
        made = Client(server, api_key).call("POST", _path(flow), body=body).json()
    _show_secret(made, as_json)


@webhooks_app.command("set", epilog="Example: switchroom webhooks set 3f6c… --flow support --on")
def change(
    endpoint: EndpointArgument,
    flow: FlowOption,
    url: Annotated[str | None, typer.Option("--url", help="Another URL.")] = None,
    types: TypesOption = None,
    enabled: Annotated[bool | None, typer.Option("--on/--off", help="Switch it on or off.")] = None,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change an endpoint, or switch it on (as after a 410) and off."""
    given = {"url": url, "types": types or None, "enabled": enabled}
    body = {name: value for name, value in given.items() if value is not None}
    with plain_errors():
        changed = Client(server, api_key).call("PATCH", _path(flow, endpoint), body=body).json()
    if as_json:
        print_json(changed)
    else:
        print(f"{changed['id']} is {'on' if changed['enabled'] else 'off'}: {changed['url'] or 'callback URLs'}")


@webhooks_app.command("delete", epilog="Example: switchroom webhooks delete 3f6c… --flow support")
def delete(
    endpoint: EndpointArgument, flow: FlowOption, server: ServerOption = DEFAULT_SERVER, api_key: KeyOption = None
) -> None:
    """Remove an endpoint; its messages on the way are given up."""
    with plain_errors():
        Client(server, api_key).call("DELETE", _path(flow, endpoint))
    print(f"removed {endpoint}")


@webhooks_app.command("rotate", epilog="Example: switchroom webhooks rotate callback --flow support")
def rotate(
    endpoint: EndpointArgument,
    flow: FlowOption,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a new secret and print it; the old one signs along for 24 hours."""
    with plain_errors():
        made = Client(server, api_key).call("POST", _path(flow, endpoint, "rotate")).json()
    _show_secret(made, as_json)


@webhooks_app.command("deliveries", epilog="Example: switchroom webhooks deliveries callback --flow support --limit 20")
def deliveries(
    endpoint: EndpointArgument,
    flow: FlowOption,
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, help="Most messages to show.")] = 50,
    failed: Annotated[bool, typer.Option("--failed", help="Only those that were given up.")] = False,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show an endpoint's messages, newest first, with the last try of each."""
    with plain_errors():
        query = {"limit": limit, "only": "failed" if failed else None}
        page = Client(server, api_key).call("GET", _path(flow, endpoint, "deliveries"), query=query).json()
    if as_json:
        print_json(page)
        return
    table = Table(Column("ID", no_wrap=True), "Type", "Call", "State", "Tries", "Last answer", "ms", "Next try")
    for one in page["deliveries"]:
        tries = one["attempts"]
        last = tries[-1] if tries else {}
        answer = str(last.get("status") or "") or last.get("error", "")
        took = str(last.get("tookMs", ""))
        row = (one["id"], one["type"], one["taskId"], one["state"], str(len(tries)), answer, took)
        table.add_row(*row, one.get("nextAttemptAt", ""))
    show_table(table)


@webhooks_app.command("redeliver", epilog="Example: switchroom webhooks redeliver callback msg_4be1… --flow support")
def redeliver(
    endpoint: EndpointArgument,
    flow: FlowOption,
    delivery: Annotated[str | None, typer.Argument(help="The message's ID.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="All that were given up.")] = False,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
) -> None:
    """Send a message again now, under its old ID; or all that were given up, as after a long outage."""
    if (delivery is None) != failed:
        raise typer.BadParameter("name one message, or give --failed", param_hint="DELIVERY")
    with plain_errors():
        client = Client(server, api_key)
        if delivery is None:
            count = client.call("POST", _path(flow, endpoint, "redeliver-failed")).json()["count"]
            print(f"sending {count} messages")
        else:
            client.call("POST", _path(flow, endpoint, "deliveries", delivery, "redeliver"))
            print(f"sending {delivery}")


def _path(flow: str, *parts: str) -> str:
    return "/".join([f"/api/v1/openai-realtime/{quote(flow, safe='')}/webhooks", *(quote(p, safe="") for p in parts)])


def _show_secret(made: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(made)
        return
    print(made["secret"])
    until = made.get("previousSecretUntil")
    more = f"; the old one signs along until {until}" if until else ""
    print(f"secret of endpoint {made['id']}; keep it now, it is not shown again{more}", file=sys.stderr)
