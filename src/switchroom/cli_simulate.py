"""`switchroom simulate`: callers from YAML scenarios call a flow by real audio, and a report says what came of it."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from switchroom.realtime.simulation import Outcome

EXIT_DIFFERENT = 1
"""A call did not go as its scenario says."""


def simulate_command(
    scenario: Annotated[list[Path], typer.Argument(help="YAML files, each one scenario or a list of them.")],
    flow: Annotated[str | None, typer.Option("--flow", help="The flow's ID, for scenarios that name none.")] = None,
    only: Annotated[
        str | None, typer.Option("--only", help="Play only scenarios whose name holds these words.")
    ] = None,
    parallel: Annotated[int, typer.Option("--parallel", "-p", min=1, max=64, help="Calls at a time.")] = 4,
    record: Annotated[
        Path | None, typer.Option("--record", help="A folder for a stereo WAV of each call: left said, right heard.")
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write the report as JUnit XML, for a CI.")] = None,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Call a flow as scenarios say, by real audio, and compare: answers, latencies, route, fields, end.

    Exit codes: 0 all went as expected, 1 one did not (or a file is wrong: its member is named), 2 a report cannot be
    written where you want it, 4 the server cannot be reached or no voice is installed to speak with.
    """
    import uvloop

    from switchroom.realtime.scenario import load_scenarios
    from switchroom.realtime.simulation import simulate

    with plain_errors():
        scenarios = [one for path in scenario for one in load_scenarios(path)]
        scenarios = [one if one.flow else one.model_copy(update={"flow": flow or ""}) for one in scenarios]
        if nameless := [one.name for one in scenarios if not one.flow]:
            raise typer.BadParameter(f"{nameless[0]!r} names no flow", param_hint="--flow")
        if only:
            scenarios = [one for one in scenarios if only.lower() in one.name.lower()]
        if not scenarios:
            raise typer.BadParameter("no scenario has such a name", param_hint="--only")
        _writable(record, junit)
        server_url = Client(server, api_key).server
        try:
            outcomes = uvloop.run(simulate(server_url, scenarios, api_key=api_key, parallel=parallel, record=record))
        except Unavailable as error:
            print(f"error: {error.detail}", file=sys.stderr)
            raise typer.Exit(EXIT_UNREACHABLE) from error
    if junit is not None:
        junit.write_bytes(junit_xml(outcomes))
    if as_json:
        print_json([msgspec.to_builtins(one) for one in outcomes])
    else:
        _show(outcomes)
    if not all(one.passed for one in outcomes):
        raise typer.Exit(EXIT_DIFFERENT)


def _writable(record: Path | None, junit: Path | None) -> None:
    """Known before the first call, and not after the last."""
    try:
        option = "--record"
        if record is not None:
            record.mkdir(parents=True, exist_ok=True)
        option = "--junit"
        if junit is not None:
            junit.parent.mkdir(parents=True, exist_ok=True)
            junit.write_bytes(b"")
    except OSError as error:
        raise typer.BadParameter(f"{error.filename}: {error.strerror}", param_hint=option) from error


def _show(outcomes: Sequence[Outcome]) -> None:
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    for one in outcomes:
        mark = "[green]passed[/green]" if one.passed else "[red]FAILED[/red]"
        answers = [step.answer_after_ms for step in one.steps if step.answer_after_ms is not None]
        pace = f", answers after {', '.join(f'{ms:.0f}' for ms in answers)} ms" if answers else ""
        console.print(f"{mark} {one.name}  [dim]{one.seconds:.1f} s{pace}[/dim]")
        if one.error:
            console.print(f"  error: {one.error}", markup=False, style="red")
        for check in one.checks:
            if not check.passed:
                where = f"step {check.step}" if check.step else "call"
                console.print(f"  {where}, {check.what}: expected {check.expected!r}, got {check.got!r}", markup=False)
        if not one.passed:
            for line in one.transcript:
                console.print(f"    {line['role']:>8}: {line['text']}", markup=False, style="dim")
    failed = sum(not one.passed for one in outcomes)
    console.print(f"{len(outcomes)} scenarios, {failed} failed")


def junit_xml(outcomes: Sequence[Outcome]) -> bytes:
    """The report in the form that CI servers read."""
    failed = sum(not one.passed and not one.error for one in outcomes)
    broken = sum(bool(one.error) for one in outcomes)
    counts = {"tests": str(len(outcomes)), "failures": str(failed), "errors": str(broken)}
    suite = ET.Element("testsuite", {"name": "switchroom simulate", **counts})
    for one in outcomes:
        case = ET.SubElement(suite, "testcase", {"name": one.name, "time": f"{one.seconds:.3f}"})
        if one.error:
            ET.SubElement(case, "error", {"message": one.error})
        for check in one.checks:
            if not check.passed:
                where = f"step {check.step}" if check.step else "call"
                said = f"{where}, {check.what}: expected {check.expected}, got {check.got}"
                ET.SubElement(case, "failure", {"message": said})
    report: bytes = ET.tostring(suite, encoding="utf-8", xml_declaration=True)
    return report
