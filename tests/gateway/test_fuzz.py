"""No body makes the server answer 500: random JSON, and canvases with something exchanged anywhere."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.json"))

JUNK: list[Any] = [None, True, 0, -1, 1e300, 2**70, "", "x", "\x00", "😀" * 50, [], {}, [[]], [None], ["a"] * 50]
JUNK += ["{{ $form.x", "${$question", "<p>", "__proto__", "../../etc/passwd", "sr:{x}:", {"nodes": 1}, {"": {}}]


def exchanged(value: Any, dice: random.Random) -> Any:
    """A deep copy with one to three places exchanged for junk, or removed."""
    value = copy.deepcopy(value)
    for _ in range(dice.randrange(1, 4)):
        parent, key = None, None
        here = value
        while isinstance(here, dict | list) and here and (parent is None or dice.random() < 0.85):
            parent = here
            key = dice.choice(list(here)) if isinstance(here, dict) else dice.randrange(len(here))
            here = here[key]
        if parent is None:
            return dice.choice(JUNK)
        if dice.random() < 0.2:
            del parent[key]
        else:
            parent[key] = copy.deepcopy(dice.choice(JUNK))
    return value


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
async def test_broken_canvases(client: TestClient, example: Path) -> None:
    canvas = json.loads(example.read_text())
    dice = random.Random(3)
    refused = 0
    for number in range(80):
        broken = exchanged(canvas, dice)
        for path in ("/api/v1/openai-realtime/compact", "/api/v1/chatflows"):
            reply = await client.post(path, json={"flowData": broken, "id": "fuzz"})
            assert reply.status in (200, 400, 422), f"{number}: {await reply.text()}"
            if reply.status != 200:
                refused += 1
                problem = await reply.json()
                assert problem["detail"]
        if reply.status == 200:
            answer = await client.post("/api/v1/prediction/fuzz", json={"question": "hello"})
            assert (await answer.json()).get("code") not in ("internal",), f"{number}: {await answer.text()}"
    assert 0 < refused < 160, "some are refused, not all"


BODIES: dict[str, Any] = {
    "/api/v1/prediction/x": {"question": "a", "form": {"a": 1}, "overrideConfig": {"sessionId": "s", "x": 1}},
    "/api/v1/openai-realtime/x/queue/enqueue": {
        "form": {"ID": "7", "question": "q"}, "state": {"a": {"b": 1}}, "priority": 1, "skills": ["a"],
        "notBefore": "2030-01-01T00:00:00Z", "callbackUrl": "https://example.com/x",
    },
    "/api/v1/openai-realtime/x/queue/cancel": {"taskId": "flowise-1", "reason": "x"},
    "/api/v1/openai-realtime/x/queue/complete": {"taskId": "flowise-1", "outcome": "x", "result": {"a": 1}},
    "/api/v1/openai-realtime/x/queue/toggle": {"enabled": True},
    "/api/v1/openai-realtime/compact": {"flowId": "x", "format": "json"},
    "/api/v1/apikey": {"keyName": "x", "scopes": ["run"]},
}  # fmt: skip


@pytest.mark.parametrize("path", BODIES)
async def test_broken_bodies(client: TestClient, path: str, parts: Any, echo_canvas: dict[str, Any]) -> None:
    await parts.flows.save(echo_canvas, flow_id="x", kind="realtime")
    dice = random.Random(5)
    for _ in range(120):
        body = exchanged(BODIES[path], dice)
        reply = await client.post(path, json=body)
        assert reply.status < 500, f"{body}: {await reply.text()}"
        if reply.status == 201:  # a key was made, and the server is closed
            await parts.store.call("DEL", "sr:access:keys")


async def test_deep_nesting(client: TestClient) -> None:
    for depth in (500, 5000, 200_000):
        deep = "[" * depth + "]" * depth
        canvas = f'{{"nodes": [{{"id": "a", "data": {{"inputs": {deep}}}}}], "edges": []}}'
        for path, body in (
            ("/api/v1/openai-realtime/compact", f'{{"flowData": {canvas}}}'),
            ("/api/v1/openai-realtime/compact", json.dumps({"flowData": canvas})),
            ("/api/v1/chatflows", json.dumps({"flowData": canvas})),
            ("/api/v1/prediction/x", f'{{"question": "x", "form": {{"a": {deep}}}}}'),
        ):
            reply = await client.post(path, data=body)
            assert 400 <= reply.status < 500, await reply.text()
