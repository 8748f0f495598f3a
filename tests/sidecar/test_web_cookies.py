"""`/sitemap/web-cookies` as its contract has it, over real HTTP on a real store."""

from __future__ import annotations

import json
import logging
import stat
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import FormData
from aiohttp.test_utils import TestClient

PATH = "/sitemap/web-cookies"
LATER = int(time.time()) + 86_400
GOOD = {"name": "sid", "value": "tOpSeCrEt", "domain": "app.example.com", "path": "/", "expires": LATER}
VUPLEX = {
    "Name": "u",
    "Value": "tOpSeCrEt",
    "Domain": ".example.com",
    "Path": "/",
    "ExpirationDate": 0,
    "IsValid": True,
}


def file_of(data_dir: Path) -> Path:
    return data_dir / "web-cookies.json"


async def test_reply_is_the_contracts(sidecar: TestClient, data_dir: Path) -> None:
    broken = {"name": "bad", "value": None, "domain": "x.example"}
    reply = await sidecar.post(PATH, json=[GOOD, broken, VUPLEX])
    assert reply.status == 200
    body = await reply.json()
    assert body == {
        "accepted": 2,
        "rejected": [{"index": 1, "name": "bad", "reason": "value is missing"}],
        "domains": ["app.example.com", "example.com"],
        "expiresAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(LATER)),
    }
    mode = stat.S_IMODE(file_of(data_dir).stat().st_mode)
    assert mode == 0o600
    names = sorted(path.name for path in data_dir.iterdir() if path.is_file())
    assert names == [".web-cookies.json.lock", "web-cookies.json"]


async def test_show_has_counts_domains_expiries_only(sidecar: TestClient) -> None:
    assert await (await sidecar.get(PATH)).json() == {
        "count": 0, "version": 0, "savedAt": None, "expiresAt": None, "domains": [], "waitingJobs": [],
    }  # fmt: skip
    await sidecar.post(PATH, json=[GOOD, VUPLEX])
    text = await (await sidecar.get(PATH)).text()
    body = json.loads(text)
    assert (body["count"], body["version"]) == (2, 1)
    assert [row["domain"] for row in body["domains"]] == ["app.example.com", "example.com"]
    assert [row["session"] for row in body["domains"]] == [0, 1]
    assert "tOpSeCrEt" not in text
    assert '"sid"' not in text


async def test_all_rejected_is_422_and_the_old_file_stays(sidecar: TestClient, data_dir: Path) -> None:
    await sidecar.post(PATH, json=[GOOD])
    before = file_of(data_dir).read_bytes()
    reply = await sidecar.post(
        PATH, json=[{"name": "x"}, {"name": "y", "value": "1", "domain": "d.example", "expires": 5}]
    )
    assert reply.status == 422
    body = await reply.json()
    assert body["accepted"] == 0
    assert [(item["index"], item["name"]) for item in body["rejected"]] == [(0, "x"), (1, "y")]
    assert reply.content_type == "application/problem+json"
    assert file_of(data_dir).read_bytes() == before


@pytest.mark.parametrize("body", ['{"name": "a", "value": "1"}', "{}", "7", "null", "true", '{"cookies": 7}'])
async def test_not_an_array_is_400(sidecar: TestClient, body: str) -> None:
    reply = await sidecar.post(PATH, data=body, headers={"Content-Type": "application/json"})
    assert reply.status == 400
    assert (await reply.json())["code"] == "not_cookies"


@pytest.mark.parametrize("body", ["", "   ", "[", "[{]", "cookie=1", '[{"name": "a", "value": tOpSeCrEt}]', "[" * 5000])
async def test_not_json_is_400_and_tells_nothing_of_it(sidecar: TestClient, body: str) -> None:
    reply = await sidecar.post(PATH, data=body, headers={"Content-Type": "application/json"})
    assert reply.status == 400
    text = await reply.text()
    assert json.loads(text)["code"] == "invalid_json"
    assert "tOpSeCrEt" not in text


async def test_a_form_is_400(sidecar: TestClient) -> None:
    reply = await sidecar.post(PATH, data=FormData({"a": "b"}))
    assert reply.status == 400


async def test_wrong_or_missing_secret_is_403_before_anything_is_read(sidecar: TestClient, data_dir: Path) -> None:
    for given in ("wrong", "", "open sesame!", "open sesam", "ü"):
        for method in ("POST", "GET"):
            reply = await sidecar.request(method, PATH, json=[GOOD], headers={"X-Ingest-Secret": given})
            assert reply.status == 403, given
            assert "sesame" not in await reply.text()
    bare = TestClient(sidecar.server)
    assert (await bare.post(PATH, json=[GOOD])).status == 403
    assert (await bare.post("/crawl/jobs", json={})).status == 403
    assert (await bare.get("/healthz")).status == 200
    assert (await bare.get("/readyz")).status == 200
    assert not file_of(data_dir).exists()


async def test_without_a_configured_secret_none_is_asked(start_sidecar: Callable[..., Awaitable[TestClient]]) -> None:
    client = await start_sidecar(ingest_secret=None)
    assert (await client.post(PATH, json=[GOOD], headers={"X-Ingest-Secret": "anything"})).status == 200
    client = await start_sidecar(ingest_secret="")
    assert (await client.get(PATH)).status == 200


async def test_empty_array_needs_to_be_meant(sidecar: TestClient) -> None:
    await sidecar.post(PATH, json=[GOOD])
    reply = await sidecar.post(PATH, json=[])
    assert reply.status == 400
    assert "replace=empty" in (await reply.json())["detail"]
    assert (await (await sidecar.get(PATH)).json())["count"] == 1
    reply = await sidecar.post(PATH + "?replace=empty", json=[])
    assert reply.status == 200
    assert await reply.json() == {"accepted": 0, "rejected": [], "domains": [], "expiresAt": None}
    assert (await (await sidecar.get(PATH)).json())["count"] == 0


async def test_other_shapes(sidecar: TestClient) -> None:
    async def accepted(query: str = "", **body: Any) -> int:
        reply = await sidecar.post(PATH + query, **body)
        assert reply.status == 200, await reply.text()
        return int((await reply.json())["accepted"])

    assert await accepted(json={"cookies": [GOOD]}) == 1
    assert (
        await accepted(json={"cookies": [GOOD], "origins": [{"origin": "https://x.example", "localStorage": []}]}) == 1
    )
    assert await accepted(json=["a=1; b=2"], query="?url=https://app.example.com/") == 2
    assert await accepted(json={"url": "https://app.example.com/", "cookies": "a=1; b=2; c=3"}) == 3
    netscape = f"# Netscape HTTP Cookie File\n.example.com\tTRUE\t/\tTRUE\t{LATER}\ta\t1\n"
    assert await accepted(data=netscape, headers={"Content-Type": "text/plain"}) == 1
    assert await accepted(data=netscape, headers={"Content-Type": "application/octet-stream"}) == 1
    assert (
        await accepted(data=b"\xef\xbb\xbf" + json.dumps([GOOD]).encode(), headers={"Content-Type": "application/json"})
        == 1
    )
    reply = await sidecar.post(PATH + "?url=nonsense", json=[GOOD])
    assert reply.status == 400


async def test_body_limit(start_sidecar: Callable[..., Awaitable[TestClient]]) -> None:
    client = await start_sidecar(max_cookie_bytes=2048)
    reply = await client.post(PATH, json=[GOOD | {"value": "x" * 3000}])
    assert reply.status == 413
    assert (await reply.json())["maxBytes"] == 2048


async def test_no_value_in_the_log(sidecar: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        await sidecar.post(PATH, json=[GOOD, {"name": "x", "value": "tOpSeCrEt;"}])
        await sidecar.post(PATH, data='[{"value": "tOpSeCrEt"', headers={"Content-Type": "application/json"})
        await sidecar.post(PATH, json=[{"value": "tOpSeCrEt"}])
    everything = " ".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert "cookies taken" in everything
    assert "tOpSeCrEt" not in everything


async def test_five_thousand_cookies(sidecar: TestClient) -> None:
    """The whole reply; the figure itself is measured in the bench, not asserted here."""
    many = [GOOD | {"name": f"c{i}", "domain": f"h{i % 50}.example.com"} for i in range(5000)]
    body = json.dumps(many)
    reply = await sidecar.post(PATH, data=body, headers={"Content-Type": "application/json"})
    answer = await reply.json()
    assert (answer["accepted"], answer["rejected"], len(answer["domains"])) == (5000, [], 50)


async def test_encrypted_at_rest(start_sidecar: Callable[..., Awaitable[TestClient]], data_dir: Path) -> None:
    client = await start_sidecar(encryption_key="correct horse battery staple")
    await client.post(PATH, json=[GOOD])
    raw = file_of(data_dir).read_bytes()
    assert b"tOpSeCrEt" not in raw
    assert b"example" not in raw
    assert (await (await client.get(PATH)).json())["count"] == 1
    again = await start_sidecar(encryption_key="correct horse battery staple")
    assert (await (await again.get(PATH)).json())["count"] == 1
    for other in ("another key", None):
        wrong = await start_sidecar(encryption_key=other)
        reply = await wrong.get(PATH)
        assert reply.status == 503
        assert (await reply.json())["code"] == "cookie_file_unreadable"
