"""`switchroom call`: join a queued call over WebRTC as a caller that speaks from audio files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from switchroom.cli_http import (
    DEFAULT_SERVER,
    EXIT_UNREACHABLE,
    Client,
    JsonOption,
    KeyOption,
    ServerOption,
    plain_errors,
    print_json,
)
from switchroom.errors import Unavailable

EXIT_SILENT = 5
"""The call worked, but nothing was heard of the other side."""
EXIT_LOST = 6
"""The server or the media path died in the middle; calling again joins the same call."""


def call_command(
    flow: Annotated[str, typer.Option("--flow", help="The flow's ID.")],
    task: Annotated[str, typer.Option("--task", help="The call to join, as enqueue named it.")],
    wav: Annotated[
        list[Path] | None,
        typer.Option("--wav", help="What the caller says (any audio file); repeat it for one more utterance each."),
    ] = None,
    record: Annotated[
        Path | None, typer.Option("--record", help="Write a stereo WAV: left what was said, right what was heard.")
    ] = None,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds for the whole call.")] = 180.0,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Join a queued call: speak each file once the agent has spoken, listen, hang up, report.

    The transcript is shown on standard error as it grows. Exit codes: 0 the agent was heard, 1 refused, 4 nobody
    answers, 5 nothing was heard, 6 the line was lost.
    """
    import uvloop
    from rich.console import Console

    from switchroom.realtime.client import place_call

    paths = wav or []
    for path in paths:
        if not path.is_file():
            raise typer.BadParameter(f"there is no file {path}", param_hint="--wav")
    server_url = Client(server, api_key).server
    shown = Console(stderr=True)

    def on_event(event: dict[str, Any]) -> None:
        line = transcript_line(event)
        if line:
            shown.print(line, highlight=False, markup=False, soft_wrap=True)

    with plain_errors():
        try:
            report = uvloop.run(
                place_call(
                    server_url, flow, task, paths, record, api_key=api_key, on_event=on_event, timeout_s=timeout_s
                )
            )
        except Unavailable as error:
            print(f"error: {error.detail}", file=sys.stderr)
            raise typer.Exit(EXIT_UNREACHABLE) from error
    if as_json:
        print_json(msgspec.to_builtins(report))
    else:
        answers = [turn.answer_after_ms for turn in report.turns]
        print(f"{report.seconds:.1f} s, ended by the {report.ended_by or 'caller'}: {report.end_reason or 'hung up'}")
        for turn, after_ms in zip(report.turns, answers, strict=True):
            print(f"  {turn.wav}: " + (f"answered after {after_ms:.0f} ms" if after_ms is not None else "no answer"))
        if record:
            print(f"recorded to {record}")
    if report.ended_by == "lost":
        raise typer.Exit(EXIT_LOST)
    if not report.heard_s:
        raise typer.Exit(EXIT_SILENT)


def transcript_line(event: dict[str, Any]) -> str | None:
    """An event of the channel as a line for a person, where it is one."""
    match event.get("type"):
        case "transcript" if event.get("final"):
            return f"{event.get('role', ''):>8}: {event.get('text', '')}"
        case "turn" if event.get("first_audio_ms") is not None:
            since = "the caller stopped" if event.get("endpoint_ms") is not None else "the call was answered"
            return f"{'':>8}  turn {event.get('turn')}: first audio {event['first_audio_ms']:.0f} ms after {since}"
        case "state":
            return f"{'':>8}  call is {event.get('state')}"
        case "ended":
            return f"{'':>8}  call ended: {event.get('reason')}"
    return None
