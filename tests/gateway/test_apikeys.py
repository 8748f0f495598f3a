"""Keys over HTTP: the first one closes an open server, a revoked one stops."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp.test_utils import TestClient

from switchroom.access import access

URL = "/api/v1/apikey"


async def test_the_life_of_a_key(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "CACHE_S", 0.05)
    made = await (await client.post(URL, json={"keyName": " crm ", "scopes": ["queue:write", "keys"]})).json()
    assert made["keyName"] == "crm" and made["apiKey"].startswith("swr_")
    assert (await client.get(URL)).status == 401, "the first key closes the server"

    headers = {"X-API-Key": made["apiKey"]}
    (listed,) = await (await client.get(URL, headers=headers)).json()
    assert "apiKey" not in listed and listed["scopes"] == ["queue:write", "keys"] and listed["id"] == made["id"]
    assert (await client.get("/api/v1/executions", headers=headers)).status == 403

    assert (await client.delete(f"{URL}/0123", headers=headers)).status == 404
    other = await (await client.post(URL, json={"keyName": "second"}, headers=headers)).json()
    assert (await client.delete(f"{URL}/{made['id']}", headers=headers)).status == 200
    await asyncio.sleep(0.06)
    assert (await client.get(URL, headers=headers)).status == 401
    assert (await client.get(URL, headers={"Authorization": f"Bearer {other['apiKey']}"})).status == 200


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/keyName"),
        ({"keyName": " "}, "/keyName"),
        ({"keyName": 7}, "/keyName"),
        ({"keyName": "x", "scopes": []}, "/scopes"),
        ({"keyName": "x", "scopes": ["all"]}, "/scopes/0"),
    ],
)
async def test_a_wrong_body_makes_no_key(client: TestClient, body: object, pointer: str) -> None:
    reply = await client.post(URL, json=body)
    assert (reply.status, (await reply.json())["errors"][0]["pointer"]) == (400, pointer)
    assert await (await client.get(URL)).json() == []
