"""`switchroom simulate` as a customer's CI runs it: against a server of its own, by real audio, with a report."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from switchroom.cli import app

sys.path.insert(0, str(Path(__file__).parent))
from running import COMMAND, ROOT, environment, serving

SCENARIOS = """
scenarios:
  - name: the caller interrupts
    noise: {level_dbfs: -60}
    steps:
      - audio: caller.wav
        barge_in_after_ms: 500ms
        expect: {silent_within_ms: 10s, within_ms: 20s, says: [order, "/number|digit/"]}
      - hang_up: true
    expect: {end_reason: completed, route: [Listen again], fields: {topic: INVOICE}}
  - name: not what it does
    steps:
      - listen: true
        expect: {says: "good morning"}
      - hang_up: true
        expect: {silence: true}
    expect: {end_reason: transferred, route: [Nowhere], fields: {topic: WEATHER}, within_ms: 1}
"""


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "simulate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment())


def wrong(outcome: dict[str, Any]) -> set[tuple[int, str]]:
    return {(check["step"], check["what"]) for check in outcome["checks"] if not check["passed"]}


def test_calls_are_played_in_parallel_and_compared(tmp_path: Path) -> None:
    file = tmp_path / "calls.yaml"
    file.write_text(SCENARIOS)
    shutil.copy(ROOT / "examples" / "caller-1-invoice.wav", tmp_path / "caller.wav")
    report, recorded = tmp_path / "report.xml", tmp_path / "calls"
    with serving(tmp_path / "data", SWITCHROOM_MEDIA__MEDIA_LOOPBACK="true", SWITCHROOM_MEDIA_PROCESSES="1") as server:
        canvas = json.loads((ROOT / "examples" / "support-line.json").read_text())
        assert server.call("POST", "/api/v1/chatflows?id=line", canvas)[0] < 300
        done = simulate(
            *(str(file), "--flow", "line", "--server", server.url),
            *("--json", "--junit", str(report), "--record", str(recorded)),
        )
    assert done.returncode == 1 and done.stdout, done.stderr
    interrupts, different = json.loads(done.stdout)
    assert interrupts["passed"] and not wrong(interrupts), (interrupts["error"], interrupts["checks"])
    assert interrupts["steps"][0]["silent_after_ms"] >= 0 and interrupts["steps"][0]["answer_after_ms"] > 0
    assert not different["error"]
    assert wrong(different) == {
        (1, "says"), (0, "end_reason"), (0, "route"), (0, "fields.topic"), (0, "within_ms"),
    }  # fmt: skip
    suite = ET.parse(report).getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")
    assert {path.name for path in recorded.iterdir()} == {"the-caller-interrupts.wav", "not-what-it-does.wav"}


def test_the_example_is_a_scenario() -> None:
    from switchroom.realtime.scenario import load_scenarios

    invoice, interrupts = load_scenarios(ROOT / "examples" / "scenarios" / "support-line.yaml")
    assert invoice.steps[1].audio is not None and invoice.steps[1].audio.is_file()
    assert interrupts.steps[0].barge_in_after_ms == 1000


def test_what_is_wrong_with_a_file_is_named(tmp_path: Path) -> None:
    from switchroom.errors import BadInput
    from switchroom.realtime.scenario import load_scenarios

    file = tmp_path / "call.yaml"
    for text, words in (
        ("steps: [{say: a, press: '1'}]", "call.yaml: steps.0: name exactly one of say"),
        ("steps: [{say: a, expect: {within_ms: soon}}]", "steps.0.expect.within_ms: must be a duration"),
        ("steps: [{sy: a}]", "steps.0.sy: is not known here"),
        ("steps: [{say: a, expect: {says: [b, '/[/']}}]", "steps.0.expect.says.1: /[/ is no regular expression"),
        ("{steps: [{say: a}], expect: {fields: {order: '/(/'}}}", "expect.fields.order: /(/ is no regular"),
        ("", "call.yaml: must be a mapping"),
        ("steps: [{say: a, expect: {silent_within_ms: 1}}]", "needs barge_in_after_ms"),
        ("scenarios: [{steps: []}]", "scenarios.0.steps"),
        ("scenarios: 3", "must be a list"),
        ("steps: [", "call.yaml: while parsing"),
    ):
        file.write_text(text)
        try:
            load_scenarios(file)
        except BadInput as error:
            assert words in error.detail, (text, error.detail)
        else:
            raise AssertionError(text)
    file.write_text("steps: [{listen: true}]")
    done = CliRunner().invoke(app, ["simulate", str(file)])
    assert done.exit_code == 2 and "'call' names no flow" in " ".join(done.stderr.replace("│", " ").split())


def test_nobody_there_and_nowhere_to_write(tmp_path: Path) -> None:
    file = tmp_path / "call.yaml"
    file.write_text("{flow: a, steps: [{say: a}]}")
    called = CliRunner().invoke(app, ["simulate", str(file), "--server", "http://127.0.0.1:9"])
    assert called.exit_code == 4 and "cannot be reached" in called.stderr
    called = CliRunner().invoke(app, ["simulate", str(file), "--junit", str(file / "report.xml")])
    assert called.exit_code == 2 and "--junit" in called.stderr
