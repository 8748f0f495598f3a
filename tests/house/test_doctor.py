"""The doctor says the truth about this machine, and about one that lacks things."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from switchroom import doctor
from switchroom.doctor import Check


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_a_set_up_machine_is_healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also without flite: Piper speaks, and that only narrows."""
    monkeypatch.setenv("PATH", str(tmp_path))
    checks = doctor.run_checks(data_dir=tmp_path / "not" / "there" / "yet")
    assert doctor.healthy(checks), doctor.report(checks)
    assert not by_name(checks)["flite"].ok
    found = by_name(checks)
    assert {"Valkey server", "Chromium", "voice models", "extra crawl", "extra local-voice"} <= found.keys()
    assert found["Valkey server"].detail.startswith("9.")
    assert all(bool(check.fix) is not check.ok for check in checks)
    assert msgspec.json.decode(msgspec.json.encode(checks), type=list[Check]) == checks


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        check = doctor._port(port)
    assert not check.ok
    assert str(port) in check.fix
    assert doctor._port(port).ok


def test_a_data_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    check = doctor._data_folder(tmp_path / "data")
    assert not check.ok
    assert check.required


def test_an_extra_left_out_is_no_failure_and_a_broken_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_wheel.py").write_text("raise ImportError('libgone.so.1: cannot open shared object file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    left_out = doctor._packages("extra crawl", "no_such_package_1 no_such_package_2", "pip install it")
    assert not left_out.ok
    assert not left_out.required
    broken = doctor._packages("extra crawl", "broken_wheel msgspec", "pip install it")
    assert broken.required
    assert "libgone.so.1" in broken.detail
    base = doctor._packages("base packages", "no_such_package_1", "pip install it", extra=False)
    assert base.required


def test_a_missing_browser_is_told_with_its_command(tmp_path: Path) -> None:
    check = doctor._chromium(tmp_path / "no-browser")
    assert not check.ok
    assert check.required
    assert check.fix.startswith("apt-get install -y chromium-headless-shell")


@pytest.mark.parametrize(
    ("printed", "fix"),
    [
        ("error while loading shared libraries: libnss3.so", "apt-get install -y chromium-headless-shell"),
        ("FATAL: No usable sandbox! If this is a Debian system", "apt-get install -y chromium-sandbox"),
    ],
)
def test_a_browser_that_does_not_start_is_told(tmp_path: Path, printed: str, fix: str) -> None:
    dying = tmp_path / "chromium-headless-shell"
    dying.write_text(f"#!/bin/sh\necho '{printed}' >&2\nexit 127\n")
    dying.chmod(0o755)
    check = doctor._chromium(dying)
    assert not check.ok
    assert check.fix.startswith(fix)


def test_the_command_exits_1_for_what_is_required(tmp_path: Path) -> None:
    """In a program of its own, which finds no flite (Piper speaks: that only narrows) and a broken package."""
    command = [sys.executable, "-m", "switchroom.doctor"]
    (tmp_path / "soxr.py").write_text("raise ImportError('libsoxr.so.0: cannot open shared object file')")
    environment = {**os.environ, "PATH": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    broken = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "without flite" in broken.stdout
    assert "MISSING extra local-voice" in broken.stdout
    assert "libsoxr.so.0" in broken.stdout
    assert broken.returncode == 1
