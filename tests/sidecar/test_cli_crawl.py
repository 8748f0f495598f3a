"""The command line against a sidecar that runs, as a user starts it: in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from aiohttp.test_utils import TestClient

MAIN = """
import typer
from switchroom.cli_crawl import cookies_app, crawl_command
app = typer.Typer()
app.add_typer(cookies_app, name="cookies")
app.command("crawl")(crawl_command)
app()
"""


async def run(sidecar: TestClient, *arguments: str, secret: str = "open sesame") -> tuple[int, str, str]:
    known = {"SWITCHROOM_SIDECAR_URL": str(sidecar.make_url("")), "SWITCHROOM_INGEST_SECRET": secret, "COLUMNS": "200"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MAIN, *arguments, stdout=-1, stderr=-1, env={**os.environ, **known}
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode(), err.decode()


async def test_crawl_to_the_wall_push_and_crawl_on(sidecar: TestClient, site: TestClient, data_dir: Path) -> None:
    url = str(site.make_url("/"))
    code, out, err = await run(sidecar, "crawl", url, "--no-wait", "--render", "never", "--json")
    assert code == 3, err
    walled: dict[str, Any] = json.loads(out)
    assert walled["state"] == "waiting_login"
    code, out, _ = await run(sidecar, "crawl", url, "--no-wait", "--render", "never")
    assert code == 3
    assert f"127.0.0.1:{site.port} needs a login" in out

    reply = await site.post("/login?as=json", data={"user": "ana", "password": "switchroom"})
    file = data_dir / "exported.json"
    file.write_bytes(await reply.read())
    value = (await reply.json())[0]["Value"]
    code, out, err = await run(sidecar, "cookies", "push", str(file))
    assert code == 0, err
    assert "1 cookies taken" in out
    assert value not in out + err
    code, out, _ = await run(sidecar, "cookies", "show", "--json")
    assert (code, json.loads(out)["count"]) == (0, 1)

    folder = data_dir / "saved"
    code, out, err = await run(sidecar, "crawl", url, "--out", str(folder), "--json")
    assert code == 0, err
    done = json.loads(out)
    assert (done["state"], done["savedFiles"]) == ("completed", 6)
    saved = [path.read_text() for path in folder.rglob("*.md")]
    assert any("61.40 EUR" in text for text in saved)


async def test_mistakes_are_told_in_words(sidecar: TestClient, data_dir: Path) -> None:
    file = data_dir / "bad.json"
    file.write_text('[{"name": "a", "value": "tOpSeCrEt"}]')
    code, out, err = await run(sidecar, "cookies", "push", str(file))
    assert code == 1
    assert "has no domain" in err
    assert "tOpSeCrEt" not in out + err
    code, _, err = await run(sidecar, "cookies", "push", str(data_dir / "none.json"))
    assert code == 1
    assert "cannot be read" in err
    code, _, err = await run(sidecar, "cookies", "show", secret="wrong")
    assert code == 1
    assert "X-Ingest-Secret" in err
    code, _, err = await run(sidecar, "cookies", "show", "--sidecar", "http://127.0.0.1:9")
    assert code == 1
    assert "No sidecar answers" in err
    code, _, err = await run(sidecar, "crawl", "not-a-url")
    assert code == 1
    assert "/urls/0" in err
