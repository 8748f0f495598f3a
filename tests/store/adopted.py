"""The queue's tests, to be run again on a cluster."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from switchroom.store import Store


@pytest.fixture
async def store(cluster_url: str) -> AsyncIterator[Store]:
    """In place of the embedded server's."""
    store = await Store.connect(cluster_url)
    yield store
    await store.close()


def adopted(name: str, *but: str) -> dict[str, Any]:
    """The tests and fixtures of `tests/queue/NAME.py`, with a `store` that is a cluster of three primaries; without
    those named in `but`."""
    there = _names("conftest") | _names(name)
    for one in but:
        del there[one]
    return there | {"store": store}


def _names(name: str) -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location(f"cluster_{name}", Path(__file__).parents[1] / "queue" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {key: value for key, value in vars(module).items() if not key.startswith("__")}
