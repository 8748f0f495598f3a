"""`switchroom enqueue-bulk`: a campaign's file into a queue, with a journal beside it to go on from."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

import msgspec
import typer

from switchroom.cli_http import (
    DEFAULT_SERVER,
    EXIT_REFUSED,
    JsonOption,
    KeyOption,
    Reply,
    ServerOption,
    Unreachable,
    plain_errors,
    refusal_of,
)

EXIT_USAGE = 2
_CHUNK = 1 << 16
_LONGEST = 16 << 20
_SHOWN = 20
_SILENCE_S = 90.0


class Journal(msgspec.Struct, kw_only=True):
    """How far a file came, beside it as `FILE.bulk.json` until it is through. `answered` is the last line's number."""

    key: str
    flow: str
    answered: int = 0
    accepted: int = 0
    rejected: int = 0


class Cut(Exception):
    """The answers ended before the file did."""


def enqueue_bulk_command(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="NDJSON, or CSV (*.csv, *.tsv).")
    ],
    flow: Annotated[str, typer.Option("--flow", help="The flow's ID.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an earlier run stopped.")] = False,
    idempotency_key: Annotated[
        str | None, typer.Option("--idempotency-key", help="Of the whole file; a new one each run otherwise.")
    ] = None,
    charset: Annotated[
        str, typer.Option("--charset", help="Of a CSV, such as windows-1250 where a spreadsheet wrote it.")
    ] = "utf-8",
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put every line of a file in a flow's queue: a JSON body a line, or CSV with a header row.

    A line that is wrong is shown and the rest goes on; then the exit code is 1. What was cut off (no connection,
    Ctrl-C) is taken up again by --resume, without doubles.
    """
    path = file.with_name(file.name + ".bulk.json")
    journal = _journal(path, flow, resume, idempotency_key)
    with plain_errors():
        try:
            asyncio.run(_send(file, path, journal, charset, server, api_key, as_json))
        except (Cut, KeyboardInterrupt) as error:
            print(
                f"stopped after line {journal.answered} ({journal.accepted} accepted): {error or 'interrupted'}\n"
                f"  go on with: switchroom enqueue-bulk {file} --flow {flow} --resume",
                file=sys.stderr,
            )
            raise typer.Exit(130 if isinstance(error, KeyboardInterrupt) else EXIT_REFUSED) from None
    print(f"{journal.accepted} accepted, {journal.rejected} refused", file=sys.stderr if as_json else sys.stdout)
    if journal.rejected:
        raise typer.Exit(EXIT_REFUSED)


def _journal(path: Path, flow: str, resume: bool, key: str | None) -> Journal:
    if not path.exists():
        if resume:
            print(f"there is nothing to go on with: no {path.name}", file=sys.stderr)
            raise typer.Exit(EXIT_USAGE)
        return Journal(key=key or str(uuid.uuid4()), flow=flow)
    try:
        journal = msgspec.json.decode(path.read_bytes(), type=Journal)
    except (msgspec.DecodeError, OSError) as error:
        print(f"{path}: {error}", file=sys.stderr)
        raise typer.Exit(EXIT_USAGE) from error
    if not resume or journal.flow != flow or key not in (None, journal.key):
        print(
            f"an earlier run for the flow {journal.flow} stopped after line {journal.answered}: "
            f"go on with --resume, or remove {path} to begin again",
            file=sys.stderr,
        )
        raise typer.Exit(EXIT_USAGE)
    return journal


async def _send(
    file: Path, path: Path, journal: Journal, charset: str, server: str, api_key: str | None, as_json: bool
) -> None:
    import aiohttp
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    as_csv = file.suffix.lower() in (".csv", ".tsv")
    headers = {
        "Content-Type": f"text/csv; charset={charset}" if as_csv else "application/x-ndjson",
        "Idempotency-Key": journal.key,
        **({"Authorization": f"Bearer {api_key}"} if api_key else {}),
    }
    params = {"firstLine": str(journal.answered + 1)} if journal.answered else {}
    base = server if "//" in server else f"http://{server}"
    url = f"{base.rstrip('/')}/api/v1/openai-realtime/{quote(journal.flow, safe='')}/queue/enqueue/bulk"
    await asyncio.to_thread(_save, path, journal)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    bar = progress.add_task("enqueue", total=file.stat().st_size)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=_SILENCE_S)
    done = False
    shown = 0
    saving = asyncio.create_task(_keep_saving(path, journal))
    try:
        with progress:
            body = _lines(file, journal.answered, as_csv, lambda sent: progress.update(bar, completed=sent))
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(url, data=body, headers=headers, params=params) as reply,
            ):
                if reply.status >= 400:
                    raise refusal_of(Reply(reply.status, dict(reply.headers), await reply.read()))
                async for raw in reply.content:
                    answer = msgspec.json.decode(raw)
                    if answer.get("done"):
                        done = True
                        continue
                    shown += _note(journal, answer, raw, as_json, shown < _SHOWN)
                    progress.update(bar, description=f"{journal.accepted} accepted, {journal.rejected} refused")
    except aiohttp.ClientConnectorError as error:
        raise Unreachable(f"No server answers at {urlsplit(base).netloc}: {error}") from error
    except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError) as error:
        raise Cut(f"{type(error).__name__}: {error}") from error
    finally:
        saving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await saving
        if not done:
            _save(path, journal)
    if not done:
        raise Cut("the server ended its answer")
    path.unlink(missing_ok=True)


def _note(journal: Journal, answer: dict[str, Any], raw: bytes, as_json: bool, show: bool) -> int:
    """Counts an answer and shows it. Returns 1 where a refusal was shown."""
    journal.answered = answer["line"]
    if as_json:
        sys.stdout.write(raw.decode())
    if answer.get("accepted"):
        journal.accepted += 1
        return 0
    journal.rejected += 1
    if show and not as_json:
        print(f"line {answer['line']}: {answer['error']['detail']}", file=sys.stderr)
    return int(show)


async def _lines(file: Path, answered: int, as_csv: bool, sent: Callable[[int], object]) -> AsyncIterator[bytes]:
    """The file after its line `answered` (CSV: its header before that), with blank lines where the file has them, so
    that server and file number lines alike."""
    from switchroom.gateway.bulk_lines import Splitter

    splitter = Splitter(_LONGEST, quoted=as_csv)
    headed = not as_csv
    number = answered + 1
    size = 0
    with await asyncio.to_thread(file.open, "rb") as source:
        while True:
            chunk = await asyncio.to_thread(source.read, _CHUNK)
            out: list[bytes] = []
            for line in splitter.feed(chunk) if chunk else splitter.end():
                raw = b"-" if line.raw is None else line.raw  # longer than any server takes: the answer will say no
                after = line.number + raw.count(b"\n") + 1
                if not headed:
                    headed = True
                    out.append(raw + b"\n")
                    number = max(number, after)
                elif line.number > answered:
                    out.append(b"\n" * (line.number - number) + raw + b"\n")
                    number = after
            size += len(chunk)
            sent(size)
            if out:
                yield b"".join(out)
            if not chunk:
                return


async def _keep_saving(path: Path, journal: Journal) -> None:
    while True:
        await asyncio.sleep(1)
        await asyncio.to_thread(_save, path, journal)


def _save(path: Path, journal: Journal) -> None:
    fresh = path.with_name(path.name + ".new")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as out:
        out.write(msgspec.json.encode(journal))
    fresh.replace(path)
