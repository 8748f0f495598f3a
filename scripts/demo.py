"""The main job, end to end, on real parts: one spoken call and one crawl behind a login. Exits 0 only if all worked.

Run it by `make demo`. It starts its own server on free ports in `demo-data/`, and leaves there what the call and the
crawl brought: the caller's stereo WAV, the server's recording, the pages as Markdown. Kill it (-9, every process) in
the middle of the call and run it again: it first shows what became of that call.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

HERE = Path(__file__).resolve().parent.parent
DATA = HERE / "demo-data"
EXAMPLES = HERE / "examples"
SWITCHROOM = [sys.executable, "-m", "switchroom"]
CALLER = "+38641656457"
SECRET = secrets.token_urlsafe(24)
UNDER_WAY = DATA / "call-under-way.json"
STEPS = 7
BOLD, DIM, GREEN, RED, OFF = (
    ("\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[0m") if sys.stdout.isatty() else [""] * 5
)


class Failed(Exception):
    """A step of the demo did not do what it shows."""


def say(text: str = "") -> None:
    print(text, flush=True)


def step(number: int, text: str) -> None:
    say(f"\n{BOLD}[{number}/{STEPS}] {text}{OFF}")


def check(good: object, what: str) -> None:
    if not good:
        raise Failed(what)
    say(f"  {GREEN}ok{OFF} {what}")


def http_call(
    base: str, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """One request; a body goes as JSON unless it is bytes."""
    url = urllib.parse.urlsplit(base)
    assert url.hostname
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=30)
    sent = dict(headers or {})
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    if data is not None:
        sent.setdefault("Content-Type", "application/json")
    connection.request(method, path, body=data, headers=sent)
    answer = connection.getresponse()
    reply = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    connection.close()
    return reply


def http_json(base: str, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
    status, _, raw = http_call(base, method, path, body, headers)
    if status >= 400:
        raise Failed(f"{method} {path} answered {status}: {raw.decode(errors='replace')[:300]}")
    return json.loads(raw) if raw else None


@contextlib.contextmanager
def program(
    command: list[str], ready: str, log: Path, **environment: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Runs a program until the block ends; waits for its line that begins with `ready`."""
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, **environment}
        )
        assert process.stdout
        try:
            line = ""
            for line in process.stdout:
                if line.startswith(ready):
                    break
            else:
                raise Failed(f"{command[-1]} did not start; see {log}:\n{log.read_text()[-2000:]}")
            yield process, line.strip()
        finally:
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def levels(path: Path) -> tuple[float, list[float]]:
    """Seconds, and the level of each channel of an audio file in dBFS."""
    with av.open(str(path)) as file:
        resampler = av.AudioResampler(format="s16p", layout=file.streams.audio[0].layout, rate=48000)
        pieces = [piece.to_ndarray() for frame in file.decode(audio=0) for piece in resampler.resample(frame)]
    sides = np.concatenate(pieces, axis=1).astype(float)
    power = (sides**2).mean(axis=1)
    return sides.shape[1] / 48000, [round(10 * math.log10(one / 32768**2), 1) if one else -99.0 for one in power]


def the_call_that_was_cut_off(api: str) -> None:
    """The run before this one died in the middle of its call: nothing that was accepted may be lost."""
    before = json.loads(UNDER_WAY.read_text())
    base = f"/api/v1/openai-realtime/{before['flow']}/queue"
    say(f"\n{BOLD}The run before this one was cut off in the middle of the call {before['task']}{OFF}")
    deadline = time.monotonic() + 20
    while True:
        call = http_json(api, "GET", f"{base}/status?taskId={before['task']}")
        rows = [http_json(api, "GET", f"/api/v1/executions/{one}") for one in call["executionIds"]]
        settled = call["state"] in ("pending", "ended") and all(row["state"] != "INPROGRESS" for row in rows)
        if settled or time.monotonic() > deadline:
            break
        time.sleep(0.3)
    for change in call["history"]:
        why = f"  ({change['detail']})" if change["detail"] else ""
        say(f"     {change['at']}  {change['state']:<8} {change['cause']}{why}")
    check(settled, f"it is not lost: it is {call['status']}")
    for row in rows:
        lines = len(row["transcript"])
        say(f"     record {row['id']}: {row['state']}, {row['detail']}; {lines} lines of transcript kept")
    http_json(api, "POST", f"{base}/cancel", {"taskId": before["task"], "reason": "the demo starts anew"})
    UNDER_WAY.unlink()


def the_call(api: str) -> None:
    canvas = EXAMPLES / "support-line.json"
    step(2, f"Import a realtime flow: {canvas.relative_to(HERE)}")
    command = [*SWITCHROOM, "flow", "import", str(canvas), "--id", "support-line", "--server", api]
    flow_id = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    base = f"/api/v1/openai-realtime/{flow_id}"
    check(flow_id == "support-line", f"the flow is stored as {flow_id}")

    step(3, "A ticketing system enqueues a call")
    body = {"form": {"id": CALLER, "ticket": "T-1042"}, "state": {"crm": {"tier": "gold"}}}
    say(f"  POST {base}/queue/enqueue  {json.dumps(body)}")
    status, _, raw = http_call(api, "POST", f"{base}/queue/enqueue", body)
    accepted = json.loads(raw)
    say(f"  {status} {json.dumps(accepted)}")
    check(status == 202 and accepted["accepted"] and accepted["pendingCount"] == 1, "accepted, one call is pending")
    task = accepted["taskId"]
    UNDER_WAY.write_text(json.dumps({"flow": flow_id, "task": task}))
    polled = http_json(api, "GET", f"{base}/queue/status?taskId={task}")
    check(polled["status"] == "pending" and polled["position"] == 1, "polled status: pending, next in line")

    step(4, "The caller joins over WebRTC and speaks; the local voice engine hears, routes and answers")
    heard = DATA / "caller-heard.wav"
    wavs = sorted(EXAMPLES.glob("caller-*.wav"))
    command = [
        *SWITCHROOM,
        "call",
        "--server",
        api,
        "--flow",
        flow_id,
        "--task",
        task,
        "--record",
        str(heard),
        "--json",
    ]
    for wav in wavs:
        command += ["--wav", str(wav)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    check(done.returncode == 0, "the call took place")
    report = json.loads(done.stdout)
    seconds, (said, heard_level) = levels(heard)
    check(
        report["heard_s"] > 1 and heard_level > -50 and said > -50,
        f"stereo WAV of the call, {seconds:.1f} s: caller {said} dBFS, agent {heard_level} dBFS "
        f"-> {heard.relative_to(HERE)}",
    )
    for turn in report["turns"]:
        after = turn["answer_after_ms"]
        say(f"     {turn['wav']}: " + (f"answer after {after:.0f} ms in the caller's ear" if after else "no answer"))

    step(5, "The call is completed and on record")
    deadline = time.monotonic() + 20
    while (polled := http_json(api, "GET", f"{base}/queue/status?taskId={task}&wait=5"))["state"] != "ended":
        if time.monotonic() > deadline:
            raise Failed(f"the call is still {polled['state']}")
    UNDER_WAY.unlink()
    check(polled["status"] == "completed", f"polled status: {polled['status']}")
    for change in polled["history"]:
        say(f"     {change['at']}  {change['state']:<8} {change['cause']}")
    (execution_id,) = polled["executionIds"]
    record = http_json(api, "GET", f"/api/v1/executions/{execution_id}")
    check(record["form"]["ID"] == CALLER and record["form"]["ticket"] == "T-1042", "the record holds the form")
    check("gold" in json.dumps(record), "... and the state")
    text = " ".join(line["text"] for line in record["transcript"]).lower()
    check("invoice" in text and "operator" in text, f"... and the transcript, {len(record['transcript'])} lines")
    check(len(record["timings"]) >= len(wavs), f"... and the timings of {len(record['timings'])} turns")
    status, headers, audio = http_call(api, "GET", f"/api/v1/executions/{execution_id}/recording")
    recording = DATA / "recording.ogg"
    recording.write_bytes(audio)
    seconds, both = levels(recording)
    check(
        status == 200 and len(both) == 2 and min(both) > -60,
        f"... and the recording, {seconds:.1f} s, {headers.get('content-type')} -> {recording.relative_to(HERE)}",
    )

    step(6, "Export the compact graph")
    _, headers, compact = http_call(api, "POST", "/api/v1/openai-realtime/compact", {"flowId": flow_id})
    graph = json.loads(compact)
    size = canvas.stat().st_size
    share = 100 * len(compact) / size
    say(f"  canvas {size:,} bytes -> compact {len(compact):,} bytes ({share:.1f} %), {headers['etag']}")
    check(graph and len(compact) < size / 4, "the graph that ran is the graph that is exported")


def the_crawl(sidecar: str, site: str) -> None:
    step(7, f"Crawl a site behind a login: {site}")
    secret = {"X-Ingest-Secret": SECRET}
    pages = DATA / "pages"
    crawl = [*SWITCHROOM, "crawl", f"{site}/", "--sidecar", sidecar, "--secret", SECRET, "--depth", "3", "--json"]
    wall = subprocess.run([*crawl, "--no-wait"], capture_output=True, text=True)
    check(wall.returncode == 3, "without cookies the crawl stops and reports a login wall")
    job = json.loads(wall.stdout)
    say(f"     job {job['id']}: {job['state']}, needs a login at {job['login']['domain']} ({job['login']['sign']})")
    # What a Unity kiosk does after the operator has logged in in its WebView: it pushes the WebView's cookies.
    cookies = unity_cookies(site)
    status, _, _ = http_call(sidecar, "POST", "/sitemap/web-cookies", cookies, {"X-Ingest-Secret": "wrong"})
    check(status == 403, "a wrong X-Ingest-Secret is refused")
    pushed = http_json(sidecar, "POST", "/sitemap/web-cookies", cookies, secret)
    say(f"     POST /sitemap/web-cookies -> {json.dumps(pushed)}")
    check(pushed["accepted"] == len(cookies), "the kiosk's cookies are accepted")
    deadline = time.monotonic() + 60
    while (job := http_json(sidecar, "GET", f"/crawl/jobs/{job['id']}", headers=secret))["state"] not in (
        "completed",
        "failed",
    ):
        if time.monotonic() > deadline:
            raise Failed(f"the crawl is still {job['state']}")
        time.sleep(0.3)
    check(job["state"] == "completed", "the waiting job went on by itself with the fresh cookies")
    say(f"     {json.dumps(job['progress'])}")
    found = {path: path.read_text() for path in (DATA / "crawl").rglob("*.md")}
    shutil.copytree(DATA / "crawl", pages, dirs_exist_ok=True)
    for path in sorted(found):
        say(f"     {path.relative_to(DATA)}  {len(found[path]):,} bytes")
    everything = "\n".join(found.values())
    check("35 euros" in everything and "transformer" in everything, "the member pages are there as Markdown")
    check("48.20" in everything, "... also the one that only JavaScript renders")
    check("password" not in everything.lower(), "... and no login page among them")


def unity_cookies(site: str) -> list[dict[str, Any]]:
    """Logs in; the site tells its session cookie as a Unity WebView exports it."""
    form = urllib.parse.urlencode({"user": "ana", "password": "switchroom"}).encode()
    _, _, raw = http_call(site, "POST", "/login?as=json", form, {"Content-Type": "application/x-www-form-urlencoded"})
    cookies: list[dict[str, Any]] = json.loads(raw)
    return cookies


def main() -> int:
    began = time.monotonic()
    if not UNDER_WAY.exists():
        shutil.rmtree(DATA, ignore_errors=True)
    DATA.mkdir(exist_ok=True)
    try:
        step(1, "switchroom serve: embedded store, API, media process, sidecar")
        serve = [*SWITCHROOM, "serve", "--data", str(DATA), "--port", "0", "--sidecar-port", "0"]
        environment = {"SWITCHROOM_INGEST_SECRET": SECRET, "SWITCHROOM_CRAWL__ALLOW_PRIVATE": '["127.0.0.0/8"]'}
        site_program = [sys.executable, str(EXAMPLES / "member_site.py"), "--port", "0"]
        with program(serve, "ready ", DATA / "serve.log", **environment) as (process, line):
            _, api, _, sidecar = line.split()
            say(f"  {line}")
            health = http_json(api, "GET", "/readyz")
            check(health["status"] == "ready", f"serving after {time.monotonic() - began:.1f} s")
            if UNDER_WAY.exists():
                the_call_that_was_cut_off(api)
            the_call(api)
            with program(site_program, "ready ", DATA / "site.log") as (_, site_line):
                the_crawl(sidecar, site_line.split()[1])
            process.terminate()
            check(process.wait(60) == 0, "the server stopped clean")
    except Failed as error:
        say(f"\n{RED}FAILED: {error}{OFF}\n{DIM}logs: {DATA}/serve.log{OFF}")
        return 1
    except subprocess.CalledProcessError as error:
        say(f"\n{RED}FAILED: {' '.join(error.cmd)}\n{error.stderr}{OFF}")
        return 1
    say(f"\n{GREEN}{BOLD}All of it worked, in {time.monotonic() - began:.0f} s.{OFF}  It left {DATA.name}/")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
