"""The import arrows of the design: which room may import which. Held over every import, also those inside functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "switchroom"

ARROWS: dict[str, set[str]] = {
    "store": set(),
    "net": set(),
    "compact": set(),
    "access": {"store"},
    "records": {"store"},
    "queue": {"store"},
    "webhooks": {"store", "net"},
    "knowledge": {"store"},
    "engine": {"compact", "records", "knowledge", "net", "store"},
    "realtime": {"engine", "compact", "queue", "records", "store"},
    "crawler": {"knowledge", "net", "store"},
    "sidecar": {"crawler", "access", "webhooks", "net", "store"},
    "gateway": {
        "queue",
        "engine",
        "compact",
        "realtime",
        "records",
        "knowledge",
        "access",
        "webhooks",
        "net",  # the guard judges a URL of a request at the edge, before anything is stored
        "store",
    },
}
FREE_FOR_ALL = {
    "hours",
    "errors",
    "http_problems",
    "http_tracing",
    "ids",
    "metrics",
    "scopes",
    "settings_types",
    "tracing",
}
"""Root modules that rooms may import. All others at the root compose, and are imported by nobody but each other."""


def imported(source: str, package: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name below `switchroom`) of each import of ours; `package` is the one that holds the file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join(parts[: len(parts) - node.level + 1])
                module = f"{base}.{module}" if module else base
            # `from switchroom import queue` names the room only in its list.
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "switchroom" else [module]
        else:
            continue
        for name in names:
            if name.startswith("switchroom."):
                yield node.lineno, name.removeprefix("switchroom.")


def wrong_imports(room: str, source: str, package: str) -> list[str]:
    allowed = ARROWS[room] | FREE_FOR_ALL | {room, "__version__"}
    return [
        f"line {line}: {room} imports {name}"
        for line, name in imported(source, package)
        if name.split(".")[0] not in allowed
    ]


def rooms() -> list[str]:
    return sorted(path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.rglob("*.py")))


@pytest.mark.parametrize("room", rooms())
def test_a_room_imports_only_what_its_arrow_allows(room: str) -> None:
    assert room in ARROWS, f"{room} is not in the design's table"
    found: list[str] = []
    for path in sorted((PACKAGE / room).rglob("*.py")):
        package = ".".join(path.relative_to(PACKAGE.parent).parent.parts)
        found += [f"{path.relative_to(PACKAGE)} {wrong}" for wrong in wrong_imports(room, path.read_text(), package)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("module", sorted(FREE_FOR_ALL))
def test_what_all_may_import_imports_no_room(module: str) -> None:
    source = (PACKAGE / f"{module}.py").read_text()
    assert {name.split(".")[0] for _, name in imported(source, "switchroom")} <= FREE_FOR_ALL


def test_the_arrows_have_no_circle() -> None:
    left = dict(ARROWS)
    while left:
        leaves = [room for room, targets in left.items() if not targets & left.keys()]
        assert leaves, f"a circle among {sorted(left)}"
        for room in leaves:
            del left[room]


@pytest.mark.parametrize(
    "source",
    [
        "import switchroom.gateway",
        "from switchroom import gateway",
        "from switchroom.gateway.problems import x",
        "from ..gateway import x",
        "from .. import gateway",
        "def late():\n    from switchroom.gateway import x",
        "if TYPE_CHECKING:\n    from switchroom.gateway import x",
        "import switchroom.app",
        "from switchroom.settings import Settings",
    ],
)
def test_each_way_to_write_a_wrong_import_is_seen(source: str) -> None:
    assert wrong_imports("store", source, "switchroom.store")


@pytest.mark.parametrize(
    "source",
    [
        "import asyncio",
        "from . import keys",
        "from .keys import x",
        "from switchroom.errors import NotFound",
        "import switchroomish",
    ],
)
def test_a_right_import_passes(source: str) -> None:
    assert not wrong_imports("store", source, "switchroom.store")
