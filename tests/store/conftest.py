from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

sys.path.insert(0, str(Path(__file__).parent))
from cluster import Cluster


@pytest.fixture(scope="session")
def cluster_runner() -> Iterator[tuple[asyncio.Runner, Cluster]]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        cluster = Cluster(node_timeout_ms=30_000)
        try:
            runner.run(cluster.start())
            yield runner, cluster
        finally:
            runner.run(cluster.stop())


@pytest.fixture
def cluster_url(cluster_runner: tuple[asyncio.Runner, Cluster]) -> str:
    """A whole and empty cluster that no test harms."""
    runner, cluster = cluster_runner
    runner.run(cluster.clear())
    return cluster.url
