"""What every command that talks to a server shares: its options, one HTTP call, and how a refusal is shown."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from switchroom.errors import SwitchroomError

EXIT_REFUSED = 1
"""The server, or a file, said no."""
EXIT_UNREACHABLE = 4
"""No server answers there."""

DEFAULT_SERVER = "http://127.0.0.1:8090"

ServerOption = Annotated[str, typer.Option("--server", envvar="SWITCHROOM_URL", help="Where the server listens.")]
KeyOption = Annotated[
    str | None, typer.Option("--api-key", envvar="SWITCHROOM_API_KEY", help="API key, where the server asks for one.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


class Refused(Exception):
    """The server's answer was a problem (RFC 9457). `faults` are `(pointer, detail)`."""

    def __init__(self, status: int, detail: str, faults: list[tuple[str, str]], correlation_id: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.faults = faults
        self.correlation_id = correlation_id


class Unreachable(Exception):
    """No server answered."""


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Client:
    """One server, called synchronously."""

    def __init__(self, server: str, api_key: str | None = None, *, timeout_s: float = 60.0) -> None:
        parts = urlsplit(server if "//" in server else f"http://{server}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise typer.BadParameter(f"{server!r} is not a URL like {DEFAULT_SERVER}", param_hint="--server")
        self.server = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._parts = parts
        self._api_key = api_key
        self._timeout_s = timeout_s

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, str | int | None] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request; `body` goes as JSON. Raises `Refused` for an answer of 400 or more, `Unreachable` for none."""
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        assert self._parts.hostname is not None
        connection = kind(self._parts.hostname, self._parts.port, timeout=self._timeout_s)
        sent = {"Accept": "application/json", **(headers or {})}
        if self._api_key:
            sent["Authorization"] = f"Bearer {self._api_key}"
        data = None
        if body is not None:
            data = msgspec.json.encode(body)
            sent["Content-Type"] = "application/json"
        given = {name: value for name, value in (query or {}).items() if value is not None}
        target = self._parts.path.rstrip("/") + path + (f"?{urlencode(given)}" if given else "")
        try:
            connection.request(method, target, body=data, headers=sent)
            answer = connection.getresponse()
            reply = Reply(answer.status, dict(answer.getheaders()), answer.read())
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"No server answers at {self.server}: {error}") from error
        finally:
            connection.close()
        if reply.status >= 400:
            raise refusal_of(reply)
        return reply


@contextmanager
def plain_errors(about: str = "") -> Iterator[None]:
    """Shows a refusal as sentences on standard error (the first begins with `about`) and ends with its exit code,
    instead of a traceback."""
    try:
        yield
    except Refused as error:
        _say(about + error.detail, error.faults)
        if error.status >= 500 and error.correlation_id:
            print(f"  correlation ID: {error.correlation_id}", file=sys.stderr)
        raise typer.Exit(EXIT_REFUSED) from error
    except SwitchroomError as error:
        _say(about + error.detail, [(fault.pointer, fault.detail) for fault in error.faults])
        raise typer.Exit(EXIT_REFUSED) from error
    except Unreachable as error:
        _say(f"{error}\n  Is it running? `switchroom serve` starts one; `--server` names another.", [])
        raise typer.Exit(EXIT_UNREACHABLE) from error


def print_json(value: Any) -> None:
    """Indented JSON on standard output."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def show_table(table: Table) -> None:
    """A table on standard output: as wide as the terminal, and uncut where a program reads it."""
    Console(width=None if sys.stdout.isatty() else 240).print(table)


def _say(detail: str, faults: list[tuple[str, str]]) -> None:
    print(f"error: {detail}", file=sys.stderr)
    for pointer, what in faults:
        if what and what != detail:
            print(f"  {pointer or '/'}: {what}", file=sys.stderr)


def refusal_of(reply: Reply) -> Refused:
    """The problem that an answer of 400 or more carries."""
    try:
        problem = reply.json()
        detail = str(problem["detail"])
    except (msgspec.DecodeError, KeyError, TypeError):
        text = reply.body[:300].decode(errors="replace").strip()
        return Refused(reply.status, f"The server answered {reply.status}: {text or 'nothing more'}", [], "")
    faults = [
        (str(one.get("pointer", "")), str(one.get("detail", "")))
        for one in problem.get("errors", [])
        if isinstance(one, dict)
    ]
    return Refused(reply.status, detail, faults, str(problem.get("correlationId", "")))
