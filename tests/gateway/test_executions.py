"""Records over HTTP: rows, filters, what is refused, deletes, export, audio in ranges, transcripts."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from switchroom.gateway.app import build_gateway
from switchroom.gateway.services import Services
from switchroom.records import Execution, ExecutionState, Recording, TurnTiming, Utterance
from switchroom.records.audio_files import AudioFiles

BASE = "/api/v1/executions"
RECORDINGS_KEY = "the key of the recordings"


def call_row(**members: Any) -> Execution:
    values = {
        "id": str(uuid.uuid4()),
        "flow_id": "line",
        "session_id": "s1",
        "kind": "realtime",
        "task_id": "flowise-1",
        "attempt": 1,
        "caller_id": "+38641656457",
        "form": {"ID": "+38641656457"},
        "memory": {"crm": {"tier": "gold"}},
        "transcript": [Utterance(role="caller", text="Hello", start_ms=0, end_ms=800)],
        "timings": [TurnTiming(turn=1, first_audio_ms=480.0)],
        "nodes": [
            {"type": "node_finished", "node_id": "a_0", "label": "Agent", "node_kind": "agent", "at_ms": 1001,
             "duration_ms": 2.5, "input": "Hello", "output": {"text": "Hi"}, "branch": None, "state": {"n": 1}},
        ],
    }  # fmt: skip
    return Execution(**{**values, **members})


async def test_a_call_is_shown_as_flowise_and_we_say_it(parts: Services, client: TestClient) -> None:
    row = call_row()
    await parts.executions.begin(row)
    row.end_reason = "completed"
    await parts.executions.finish(row, ExecutionState.FINISHED)
    reply = await client.get(f"{BASE}/{row.id}")
    assert reply.status == 200
    shown = await reply.json()
    assert (shown["agentflowId"], shown["sessionId"], shown["state"]) == ("line", "s1", "FINISHED")
    (executed,) = json.loads(shown["executionData"])
    assert executed["nodeId"] == "a_0" and executed["status"] == "FINISHED"
    assert executed["data"] == {
        "id": "a_0", "name": "agentAgentflow", "input": "Hello", "state": {"n": 1},
        "output": {"text": "Hi", "timeMetadata": {"start": 999, "end": 1001, "delta": 2}},
    }  # fmt: skip
    assert shown["taskId"] == "flowise-1" and shown["callerId"] == "+38641656457"
    assert shown["form"] == {"ID": "+38641656457"} and shown["memory"] == {"crm": {"tier": "gold"}}
    assert shown["endReason"] == "completed" and shown["durationMs"] >= 0
    assert shown["transcript"] == [
        {"role": "caller", "text": "Hello", "startMs": 0, "endMs": 800, "interrupted": False, "words": []}
    ]
    assert shown["timings"][0]["firstAudioMs"] == 480.0
    assert shown["recording"] is None
    assert shown["createdDate"].endswith("Z") and shown["createdDate"] <= shown["updatedDate"] <= shown["stoppedDate"]


async def test_lists_filter_and_page(parts: Services, client: TestClient) -> None:
    days = [call_row(created_ms=1_763_683_200_000 + day * 86_400_000, session_id=f"s{day}") for day in range(5)]
    for row in days:  # 2025-11-21 to 2025-11-25, each at midnight UTC
        await parts.executions.begin(row)
    await parts.executions.finish(days[1], ExecutionState.ERROR)

    async def ids(query: str) -> tuple[list[int], int]:
        reply = await client.get(f"{BASE}?{query}")
        assert reply.status == 200, await reply.text()
        body = await reply.json()
        order = [row.id for row in days]
        return [order.index(row["id"]) for row in body["data"]], body["total"]

    assert await ids("") == ([4, 3, 2, 1, 0], 5)
    assert await ids("page=2&limit=2") == ([2, 1], 5)
    assert await ids("page=9") == ([], 5)
    assert await ids("state=ERROR") == ([1], 1)
    assert await ids("sessionId=s3&agentflowId=line") == ([3], 1)
    assert await ids("agentflowId=other") == ([], 0)
    assert await ids("taskId=flowise-1&limit=1") == ([4], 5)
    assert await ids("startDate=2025-11-22&endDate=2025-11-23") == ([2, 1], 2)
    assert await ids("endDate=2025-11-22T00:00:00Z") == ([1, 0], 2)
    assert await ids("startDate=2025-11-25T01:00:00%2B01:00") == ([4], 1)
    assert await ids("startDate=2025-11-25T01:00:00+01:00") == ([4], 1)
    assert await ids(f"id={days[2].id}") == ([2], 1)
    assert await ids(f"id={uuid.uuid4()}") == ([], 0)


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("state=DONE", "state"),
        ("state=finished", "state"),
        ("page=0", "page"),
        ("page=x", "page"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=", "limit"),
        ("startDate=yesterday", "startDate"),
        ("endDate=2025-13-01", "endDate"),
        ("startDate=2025-11-23&endDate=2025-11-22", "startDate"),
        ("id=7", "id"),
        ("agentflowId=a}b", "agentflowId"),
        ("format=xml", "format"),
    ],
)
async def test_a_wrong_filter_is_named(client: TestClient, query: str, parameter: str) -> None:
    reply = await client.get(f"{BASE}?{query}")
    assert reply.status == 400
    assert reply.content_type == "application/problem+json"
    assert (await reply.json())["errors"][0]["pointer"] == f"/query/{parameter}"


async def test_what_is_not_there_is_404(client: TestClient) -> None:
    for one in (str(uuid.uuid4()), "nothing", "sr:xf"):
        for path in (one, f"{one}/recording", f"{one}/transcript"):
            reply = await client.get(f"{BASE}/{path}")
            assert reply.status == 404
            assert (await reply.json())["code"] == "execution_not_found"
        assert (await client.delete(f"{BASE}/{one}")).status == 404


async def test_deletes(parts: Services, client: TestClient) -> None:
    rows = [call_row() for _ in range(4)]
    for row in rows:
        await parts.executions.begin(row)
    reply = await client.delete(f"{BASE}/{rows[0].id}")
    assert await reply.json() == {"success": True, "deletedCount": 1}
    wanted = [rows[1].id, rows[2].id, rows[2].id, str(uuid.uuid4()), "no-id"]
    reply = await client.delete(f"{BASE}/", json={"executionIds": wanted})
    assert await reply.json() == {"success": True, "deletedCount": 2}
    assert (await (await client.get(BASE)).json())["total"] == 1


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ("{}", "/executionIds"),
        ("[]", "/executionIds"),
        ('{"executionIds": []}', "/executionIds"),
        ('{"executionIds": "x"}', "/executionIds"),
        ('{"executionIds": ["x", 7]}', "/executionIds/1"),
        ("", None),
        ("{", ""),
    ],
)
async def test_a_delete_that_names_nothing_is_400(client: TestClient, body: str, pointer: str | None) -> None:
    reply = await client.delete(BASE, data=body)
    assert reply.status == 400
    errors = (await reply.json()).get("errors")
    assert (errors[0]["pointer"] if errors else None) == pointer


async def test_ndjson_holds_every_match(parts: Services, client: TestClient) -> None:
    rows = [call_row(created_ms=1000 + i, flow_id="a" if i % 2 else "b") for i in range(450)]
    await asyncio.gather(*(parts.executions.begin(row) for row in rows))
    reply = await client.get(f"{BASE}?format=ndjson&limit=3")
    assert reply.content_type == "application/x-ndjson"
    lines = [json.loads(line) for line in (await reply.text()).splitlines()]
    assert [line["id"] for line in lines] == [row.id for row in reversed(rows)]
    reply = await client.get(f"{BASE}?format=ndjson&agentflowId=a&startDate=1970-01-01T00:00:01.449Z")
    assert [json.loads(line)["id"] for line in (await reply.text()).splitlines()] == [rows[449].id]


async def recorded(parts: Services, *, sealed: bool, audio: bytes) -> tuple[Execution, Path]:
    files = AudioFiles(parts.audio.blobs, key=RECORDINGS_KEY, seal=sealed)
    row = call_row()
    name, writer = await asyncio.to_thread(files.create, "ogg")
    for at in range(0, len(audio), 3000):
        await asyncio.to_thread(writer.append, audio[at : at + 3000])
    await asyncio.to_thread(writer.close)
    row.recording = Recording(blob=name, format="ogg", sample_rate=48000, channels=2, duration_ms=160, bytes=len(audio))
    await parts.executions.begin(row)
    return row, files.blobs.path(name)


@pytest.mark.parametrize("sealed", [False, True])
async def test_a_recording_is_served_in_ranges(parts: Services, client: TestClient, sealed: bool) -> None:
    audio = bytes(range(256)) * 40
    row, path = await recorded(parts, sealed=sealed, audio=audio)
    assert (audio[:64] in await asyncio.to_thread(path.read_bytes)) is not sealed
    shown = await (await client.get(f"{BASE}/{row.id}")).json()
    assert "blob" not in shown["recording"] and shown["recording"]["bytes"] == len(audio)
    url = shown["recording"]["url"]
    whole = await client.get(url)
    assert (whole.status, whole.content_type, await whole.read()) == (200, "audio/ogg", audio)
    assert whole.headers["Accept-Ranges"] == "bytes" and whole.content_length == len(audio)
    head = await client.head(url)
    assert (head.status, head.headers["Content-Length"]) == (200, str(len(audio)))
    for asked, start, end in (("100-299", 100, 300), ("2990-", 2990, len(audio)), ("-10", len(audio) - 10, len(audio))):
        reply = await client.get(url, headers={"Range": f"bytes={asked}"})
        assert (reply.status, await reply.read()) == (206, audio[start:end]), asked
        assert reply.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(audio)}"
    beyond = await client.get(url, headers={"Range": f"bytes={len(audio)}-"})
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{len(audio)}")
    if sealed:
        other = await client.get(url, headers={"Range": "bytes=0-9", "If-Range": '"another"'})
        assert (other.status, await other.read()) == (200, audio)

    await asyncio.to_thread(path.unlink)
    reply = await client.get(url)
    assert (reply.status, (await reply.json())["code"]) == (404, "no_recording")


async def test_a_sealed_recording_without_its_key(parts: Services, aiohttp_client: Any) -> None:
    row, _ = await recorded(parts, sealed=True, audio=b"OggS" * 100)
    keyless = dataclasses.replace(parts, audio=AudioFiles(parts.audio.blobs))
    reply = await (await aiohttp_client(build_gateway(keyless))).get(f"{BASE}/{row.id}/recording")
    problem = await reply.json()
    assert (reply.status, problem["code"]) == (503, "recording_sealed") and "no key is set" in problem["detail"]


async def test_transcripts(parts: Services, client: TestClient) -> None:
    row = call_row(task_id="")
    await parts.executions.begin(row)
    url = f"{BASE}/{row.id}/transcript"
    reply = await client.get(f"{url}?format=vtt")
    assert reply.content_type == "text/vtt" and (await reply.text()).startswith("WEBVTT\n\n1\n00:00:00.000 -->")
    reply = await client.get(f"{url}?format=md")
    assert reply.content_type == "text/markdown" and "**Caller**" in await reply.text()
    assert (await (await client.get(url)).json())[0]["text"] == "Hello"
    assert (await client.get(f"{url}?format=pdf")).status == 400
    assert (await (await client.get(f"{BASE}/{row.id}/recording")).json())["code"] == "no_recording"
