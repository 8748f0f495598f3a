"""npm `flowise-sdk` as it is published, against the product as it is started: answers, streams, keys, sessions."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import aiohttp
import pytest

PROGRAM = Path(__file__).parent / "flowise_sdk.mjs"
EXAMPLE = Path(__file__).parents[2] / "examples" / "support-line.json"
KEY = "a-key-of-sixteen-characters"
HEADERS = {"Authorization": f"Bearer {KEY}"}


async def ask(packages: Path, base: str, question: str, *, streaming: bool, key: str = KEY) -> list[Any]:
    """What the SDK gave, one value a line."""
    environment = {
        **os.environ,
        "PACKAGES": str(packages),
        "BASE_URL": base,
        "FLOW": "support",
        "QUESTION": question,
        "STREAMING": str(streaming).lower(),
        "KEY": key,
        "SESSION": "the-session",
    }
    program = await asyncio.create_subprocess_exec(
        "node", str(PROGRAM), env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(30):
        out, errors = await program.communicate()
    assert program.returncode == 0, errors.decode()
    return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
async def support(served: str) -> str:
    """A served flow of the voice palette: a person may try it by text."""
    canvas = json.loads(EXAMPLE.read_bytes())
    body = {"id": "support", "flowData": canvas.get("flowData", canvas)}
    async with (
        aiohttp.ClientSession(headers=HEADERS) as session,
        session.post(f"{served}/api/v1/chatflows", json=body) as reply,
    ):
        assert reply.status == 200, await reply.text()
    return served


async def test_the_published_sdk_asks_and_streams(npm_packages: Path, support: str) -> None:
    (first,) = await ask(npm_packages, support, "I have a question about my invoice.", streaming=False)
    assert "order number" in first["text"], first
    assert first["chatId"] == first["sessionId"] == "the-session" and first["executionId"]

    events = await ask(npm_packages, support, "My order number is 4172.", streaming=True)
    names = [event["event"] for event in events]
    said = "".join(event["data"] for event in events if event["event"] == "token")
    assert "4 1 7 2" in said, "the second turn knows the first: one session"
    assert names.index("start") < names.index("token") < names.index("metadata") < names.index("end")
    assert names[-1] == "end" and "error" not in names
    metadata = next(event["data"] for event in events if event["event"] == "metadata")

    async with aiohttp.ClientSession(headers=HEADERS) as session:
        for execution_id in (first["executionId"], metadata["executionId"]):
            async with session.get(f"{support}/api/v1/executions/{execution_id}") as reply:
                assert (await reply.json())["state"] == "FINISHED"


async def test_the_sdk_sees_a_wrong_key(npm_packages: Path, support: str) -> None:
    (answer,) = await ask(npm_packages, support, "Hello", streaming=False, key="another-key-of-nobody")
    assert (answer["status"], answer["code"]) == (401, "unauthorized")
