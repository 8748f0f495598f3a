"""What is committed: size of files, nothing of the machine it was written on, dependencies with a reason and a pin."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_LINES = 500

# Spelled in pieces, so that this file passes its own test.
_REGISTRY_HOSTS = (
    "pypi" + ".org",
    "pythonhosted" + ".org",
    "npmjs" + ".org",
    "deb.debian" + ".org",
    "registry" + ".npm",
)
_MACHINE_PATHS = ("/work" + "/", "/root" + "/", "/home" + "/")


@cache
def tracked() -> list[Path]:
    """The files of this version: tracked, or new and not ignored. Outside a git clone, those of a source archive."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    return [ROOT / name for name in listing.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


@cache
def text_of(path: Path) -> str | None:
    content = path.read_bytes()
    return None if b"\0" in content[:8192] else content.decode(errors="replace")


def offenders(needles: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    for path in tracked():
        for number, line in enumerate((text_of(path) or "").splitlines(), 1):
            found += [f"{path.relative_to(ROOT)}:{number}: {needle}" for needle in needles if needle in line]
    return found


def test_no_source_file_is_too_long() -> None:
    code = [path for path in tracked() if path.suffix in {".py", ".lua", ".sh", ".js", ".css", ".html"}]
    assert len(code) > 20
    sizes = {path: len((text_of(path) or "").splitlines()) for path in code}
    assert {str(p.relative_to(ROOT)): n for p, n in sizes.items() if n > MOST_LINES} == {}


def test_no_registry_is_named() -> None:
    assert offenders(_REGISTRY_HOSTS) == []


def test_no_path_of_a_machine_is_named() -> None:
    assert offenders(_MACHINE_PATHS) == []


def test_constraints_are_plain_pins() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)] == []


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {normal(name): version for name, version in (line.split("==") for line in lines if "==" in line)}


def needed_of(distribution: str, extras: frozenset[str], seen: set[tuple[str, str]]) -> None:
    """Adds every distribution that `distribution` needs here, with the extra through which it is needed."""
    from packaging.requirements import Requirement

    for text in importlib.metadata.requires(distribution) or []:
        requirement = Requirement(text)
        for extra in extras or {""}:
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
                continue
            wanted = frozenset(requirement.extras)
            fresh = [(requirement.name, e) for e in wanted | {""} if (normal(requirement.name), e) not in seen]
            seen.update((normal(name), e) for name, e in fresh)
            if fresh and is_installed(requirement.name):
                needed_of(requirement.name, wanted | {""}, seen)


def is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def test_constraints_pin_everything_that_we_install() -> None:
    seen: set[tuple[str, str]] = set()
    needed_of("switchroom", frozenset({"", "all", "local-voice", "crawl", "dev"}), seen)
    names = {name for name, _ in seen} - {"switchroom"}
    assert len(names) > 50
    assert sorted(names - pins().keys()) == []


def test_what_is_installed_is_what_is_pinned() -> None:
    different = {
        name: (importlib.metadata.version(name), version)
        for name, version in pins().items()
        if is_installed(name) and importlib.metadata.version(name) != version
    }
    assert different == {}


def test_each_dependency_says_why() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    for requirement in (item for group in groups for item in group):
        if requirement.startswith("switchroom["):
            continue
        line = next(line for line in text.splitlines() if f'"{requirement}"' in line)
        assert re.search(r"# .{4,}", line), f"no reason beside {requirement}"


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"])
def test_the_house_has_its_papers(name: str) -> None:
    assert len((ROOT / name).read_text()) > 200
