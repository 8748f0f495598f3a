"""Fixtures for every room: a real embedded server of the test process's own, and a guard on the event loop; and how a
run is spread over processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from blockbuster import BlockBuster

from switchroom.store import EmbeddedServer, Store


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[None]:
    """Fails a test in which our code blocks the event loop (sleeps, file or socket calls on the loop's thread)."""
    guard = BlockBuster(scanned_modules=["switchroom"])
    guard.activate()
    try:
        yield
    finally:
        guard.deactivate()


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """The URL of an embedded Valkey that this test process owns alone."""
    folder = Path(tempfile.mkdtemp(prefix="switchroom-test-"))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        server = EmbeddedServer(folder, fsync="everysec")
        runner.run(server.start())
        try:
            yield server.url
        finally:
            with contextlib.suppress(Exception):
                runner.run(server.stop())
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def store(server_url: str) -> AsyncIterator[Store]:
    """A connected store, emptied for each test."""
    store = await Store.connect(server_url)
    await store.call("FLUSHALL")
    yield store
    await store.close()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture(scope="session")
def no_prompts() -> dict[str, Any]:
    """Changes of `MediaSettings` with which speech is loaded without a sentence rendered ahead: that is seconds of work
    for what few tests hear."""
    texts = ("silence_prompt_text", "silence_goodbye_text", "resume_text", "hold_next_text", "hold_text")
    return {"filler_texts": (), **dict.fromkeys(texts, "")}


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, object]:
    """Tests run on the loop that the product runs on."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_xdist_auto_num_workers() -> int:
    """Processes of `-n auto`. Half of the suite's time is waiting (for speech to be played, for a lease to run out), in
    which another test can use the core."""
    return len(os.sched_getaffinity(0)) + 2


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a run of many processes, files of few tests come first: those are the long ones (whole calls, whole servers),
    and one that began last would hold up the end."""
    if not hasattr(config, "workerinput"):
        return
    sizes = Counter(item.path for item in items)
    items.sort(key=lambda item: sizes[item.path])
