"""The webhooks' own tests of deliveries and endpoints, each of them, on a cluster of three primaries."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from switchroom.store import Store

_FOLDER = Path(__file__).parents[1] / "webhooks"
sys.path.insert(0, str(_FOLDER))


def _loaded(name: str) -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location(f"webhooks_{name}_for_a_cluster", _FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: value for name, value in vars(module).items() if not name.startswith("__")}


for _name in ("conftest", "test_deliveries", "test_endpoints", "test_sender"):
    globals().update(_loaded(_name))


@pytest.fixture
async def store(cluster_url: str) -> AsyncIterator[Store]:
    store = await Store.connect(cluster_url)
    yield store
    await store.close()
