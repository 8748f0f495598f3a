"""The command line against a sidecar that runs, as a user starts it: in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from aiohttp.test_utils import TestClient

MAIN = """
import typer
from switchroom.cli_crawl import cookies_app, crawl_command
from switchroom.cli_jobs import jobs_app
app = typer.Typer()
app.add_typer(jobs_app, name="jobs")
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
    (code, _, err), (_, listed, _) = await asyncio.gather(
        run(sidecar, "jobs", "cancel", done["id"]), run(sidecar, "jobs", "pages", done["id"], "--json")
    )
    assert (code, "A job that is completed cannot take 'cancel'." in err) == (1, True), err
    assert len(json.loads(listed)) == 6
    saved = [path.read_text() for path in folder.rglob("*.md")]
    assert any("61.40 EUR" in text for text in saved)


async def test_mistakes_are_told_in_words(sidecar: TestClient, data_dir: Path) -> None:
    file = data_dir / "bad.json"
    file.write_text('[{"name": "a", "value": "tOpSeCrEt"}]')
    told = await asyncio.gather(
        run(sidecar, "cookies", "push", str(file)),
        run(sidecar, "cookies", "push", str(data_dir / "none.json")),
        run(sidecar, "cookies", "show", secret="wrong"),
        run(sidecar, "cookies", "show", "--sidecar", "http://127.0.0.1:9"),
        run(sidecar, "crawl", "not-a-url", "--extract", "best"),
        run(sidecar, "jobs", "show", "nope"),
    )
    assert [code for code, _, _ in told] == [1] * 6
    errors = [err for _, _, err in told]
    expected = (
        "has no domain",
        "cannot be read",
        "X-Ingest-Secret",
        "No sidecar answers",
        "/extract",
        "no such crawl job",
    )
    assert [words in err for words, err in zip(expected, errors, strict=True)] == [True] * 6, errors
    assert "/urls/0" in errors[4]
    assert "tOpSeCrEt" not in "".join(out + err for _, out, err in told)
