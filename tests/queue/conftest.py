"""The queue over a real store."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from switchroom.queue import Queue
from switchroom.store import Store

sys.path.insert(0, str(Path(__file__).parent))  # for `stored`


@pytest.fixture
async def queue(store: Store) -> AsyncIterator[Queue]:
    """Flows have the rules that they come with, until a test configures one."""
    queue = Queue(store)
    yield queue
    await queue.close()
