"""One served house a file: its clients share the speech models and one event loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from switchroom.realtime.audio import read_wav, resample
from switchroom.realtime.ears import SpeechParts
from switchroom.realtime.settings import MediaSettings
from switchroom.store import Store

from .house import ServedHouse, open_served

EXAMPLES = Path(__file__).parents[3] / "examples"


def _line(*nodes: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """A flow of nodes one after another: the kind of each, and its inputs."""
    drawn, edges = [], []
    for at, (name, inputs) in enumerate([("startRealtime", {}), *nodes]):
        data = {"id": f"{name}_{at}", "name": name, "label": name, "version": 1, "inputs": inputs}
        drawn.append({"id": data["id"], "type": "agentFlow", "position": {"x": at, "y": 0}, "data": data})
    for one, other in pairwise(node["id"] for node in drawn):
        handle = f"{one}-output-{one.rsplit('_', 1)[0]}"
        ends = {"source": one, "sourceHandle": handle, "target": other, "targetHandle": other}
        edges.append({"id": f"{one}-{other}", **ends, "type": "agentFlow"})
    return {"type": "REALTIME", "nodes": drawn, "edges": edges}


DESK = _line(("agentRealtime", {}))
"""A flow that decides nothing: one Agent, for clients that bring functions and instructions of their own."""
_BYE = {"agentMessages": [{"role": "system", "content": 'Part with "Goodbye for now."'}]}
TWO_DESKS = _line(("agentRealtime", {}), ("agentRealtime", _BYE))


@pytest.fixture(scope="module")
def canvas() -> dict[str, Any]:
    """The example's support line with a short greeting and a short end."""
    drawn: dict[str, Any] = json.loads((EXAMPLES / "support-line.json").read_text())
    for node in drawn["nodes"]:
        inputs = node["data"].get("inputs") or {}
        if "agentGreeting" in inputs:
            inputs["agentGreeting"] = "Hello."
        if "connecting you" in str(inputs.get("directReplyMessage")):
            inputs["directReplyMessage"] = "One moment, please."
    return drawn


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(
    server_url: str, tmp_path_factory: pytest.TempPathFactory, canvas: dict[str, Any], no_prompts: dict[str, Any]
) -> AsyncIterator[ServedHouse]:
    store = await Store.connect(server_url)
    await store.call("FLUSHALL")
    settings = MediaSettings(media_loopback=True, drain_s=1.0, max_loop_lag_ms=60_000, clause_timeout_s=60)
    parts = await SpeechParts.load(settings.model_copy(update=no_prompts))
    try:
        folder = tmp_path_factory.mktemp("served")
        canvases = {"support": canvas, "desk": DESK, "two-desks": TWO_DESKS}
        async with open_served(store, folder, canvases, parts, settings) as house:
            yield house
    finally:
        await parts.close()
        await store.close()


Speech = Callable[..., bytes]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def speech() -> Speech:
    """`speech(name, rate=24000, silence_s=1.0)`: a caller's recording as PCM16, with silence after it."""
    files = {path.stem.split("-", 2)[2]: path for path in EXAMPLES.glob("caller-*.wav")}
    read = {name: await asyncio.to_thread(read_wav, path) for name, path in files.items()}
    ready = {name: await asyncio.to_thread(resample, samples, rate, 24_000) for name, (samples, rate) in read.items()}

    def pcm(name: str, *, silence_s: float = 1.0) -> bytes:
        quiet = np.zeros(int(24_000 * silence_s), dtype=np.int16)
        return np.concatenate((ready[name], quiet)).astype("<i2").tobytes()

    return pcm
