"""The queue's own tests, each of them, on a cluster of three primaries."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from switchroom.store import Store

_PATH = Path(__file__).parents[1] / "queue" / "test_queue.py"
_SPEC = importlib.util.spec_from_file_location("queue_tests_for_a_cluster", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
_TESTS = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_TESTS)
globals().update({name: value for name, value in vars(_TESTS).items() if not name.startswith("__")})


@pytest.fixture
async def store(cluster_url: str) -> AsyncIterator[Store]:
    store = await Store.connect(cluster_url)
    yield store
    await store.close()
