"""The gateway over real parts: the embedded server, the real queue, engine, records and access."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from pydantic import SecretStr

from switchroom.access import Access
from switchroom.engine import Engine, FlowStore
from switchroom.gateway.app import build_gateway
from switchroom.gateway.services import Services
from switchroom.knowledge import Knowledge
from switchroom.net import Guard, GuardedClient
from switchroom.queue import Feed, Queue
from switchroom.realtime.signalling import SignalClient
from switchroom.records import Executions
from switchroom.records.audio_files import AudioFiles
from switchroom.store import Blobs, Store
from switchroom.webhooks import Webhooks

KEY = "a-key-from-the-settings"
RECORDINGS_KEY = "the key of the recordings"

MakeServices = Callable[..., Services]


@pytest.fixture
def make_services(store: Store, data_dir: Path) -> MakeServices:
    """Services over one store; without a key they are open, as on loopback."""

    blobs = Blobs(data_dir / "blobs")

    def make(*, configured: tuple[SecretStr, ...] = (), **settings: Any) -> Services:
        flows = FlowStore(store)
        return Services(
            store=store,
            queue=Queue(store),
            feed=Feed(store),
            flows=flows,
            engine=Engine(flows),
            executions=Executions(store, blobs),
            access=Access(store, configured, allow_open=True),
            audio=AudioFiles(blobs, key=RECORDINGS_KEY),
            signals=SignalClient(store),
            knowledge=Knowledge(store, data_dir / "knowledge"),
            guard=Guard(),
            webhooks=Webhooks(store, GuardedClient()),
            **settings,
        )

    return make


@pytest.fixture
def parts(make_services: MakeServices) -> Services:
    return make_services()


@pytest.fixture
async def client(parts: Services, aiohttp_client: Callable[..., Awaitable[TestClient]]) -> TestClient:
    """An HTTP client of an open gateway (aiohttp's test server cancels handlers, as the composition does)."""
    return await aiohttp_client(build_gateway(parts))


def node(node_id: str, name: str, label: str = "", **inputs: Any) -> dict[str, Any]:
    """A node as a canvas editor saves it."""
    return {
        "id": node_id,
        "type": "agentFlow",
        "position": {"x": 10, "y": 20},
        "data": {"id": node_id, "name": name, "label": label or node_id, "version": 1, "inputs": inputs},
    }


def edge(source: str, target: str, port: int | str = "", /) -> dict[str, Any]:
    handle = f"{source}-output-{port}" if port != "" else f"{source}-output-{source.rsplit('_', 1)[0]}"
    return {
        "id": f"{source}-{handle}-{target}-{target}",
        "source": source,
        "sourceHandle": handle,
        "target": target,
        "targetHandle": target,
        "type": "agentFlow",
    }


@pytest.fixture
def echo_canvas() -> dict[str, Any]:
    """Says back what was asked."""
    return {
        "nodes": [
            node("startAgentflow_0", "startAgentflow", "Start", startInputType="chatInput"),
            node(
                "directReplyAgentflow_0",
                "directReplyAgentflow",
                "Reply",
                directReplyMessage="<p>You said {{ question }}.</p>",
            ),
        ],
        "edges": [edge("startAgentflow_0", "directReplyAgentflow_0")],
        "viewport": {"x": 0, "y": 0, "zoom": 1},
    }
