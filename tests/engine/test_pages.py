"""The page of node kinds, and the engine's own reading of them, follow the one declaration."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from switchroom.compact.kinds import KINDS
from switchroom.engine.nodes import RUNNABLE
from switchroom.engine.pages import node_page

PAGE = Path(__file__).parents[2] / "docs" / "nodes.md"


def test_the_page_is_as_the_declarations_are() -> None:
    assert PAGE.read_text() == node_page(), "python -m switchroom.engine.pages > docs/nodes.md"


def test_every_declared_kind_runs_and_every_kind_that_runs_is_declared() -> None:
    assert set(RUNNABLE) == {kind.name for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_a_node_reads_is_declared(kind: object) -> None:
    declared = next(one for one in KINDS if one is kind)
    names = {field.name for field in declared.fields} | {
        f"{field.name}Config" for field in declared.fields if field.config
    }
    read = {field.encode_name for field in msgspec.structs.fields(RUNNABLE[declared.name].params)}
    assert read <= names
