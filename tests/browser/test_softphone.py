"""The softphone in a real Chromium, with an audio file for a microphone, against the whole product: it calls, is heard
and hears, interrupts, presses keys, loses its server and comes back into the same call, hangs up."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.async_api import Page, async_playwright, expect

from switchroom.crawler.render import find_chromium

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "serve"))
from running import ROOT, Server, serving

FLOW = "line"
_DEAF = """
// While `deaf`, nothing that the server sends on a data channel arrives, as on a network that is gone.
window.deaf = false;
const { get, set } = Object.getOwnPropertyDescriptor(RTCDataChannel.prototype, "onmessage");
const onmessage = { get, set(heard) { set.call(this, (message) => window.deaf || heard(message)); } };
Object.defineProperty(RTCDataChannel.prototype, "onmessage", onmessage);
"""
_PEERS = """
// What the page keeps to itself.
window.peers = [];
window.RTCPeerConnection = class extends RTCPeerConnection {
  constructor(...given) { super(...given); window.peers.push(this); }
};
"""
_OPERATE = """
// An operator's page, in a few lines: listens by an SDP offer, whispers, talks, gives the call back, leaves.
async (live) => {
  const statuses = [];
  const ask = async (method, path, body) => {
    const headers = body ? { "Content-Type": body.startsWith("v=0") ? "application/sdp" : "application/json" } : {};
    const reply = await fetch(live + path, { method, headers, body });
    statuses.push(reply.status);
    return reply;
  };
  const peer = new RTCPeerConnection();
  const heard = new Promise((done) => { peer.ontrack = done; });
  peer.addTransceiver("audio");
  await peer.setLocalDescription();
  await new Promise((done) => {
    const check = () => peer.iceGatheringState === "complete" && done();
    peer.onicegatheringstatechange = check;
    check();
  });
  const answer = await ask("POST", "/listeners?operator=ann", peer.localDescription.sdp);
  const place = new URL(answer.headers.get("Location"), location.href).pathname.split("/live/")[1];
  const leg = "/" + place.split("/").slice(1).join("/");
  await peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
  await heard;
  await ask("POST", "/whisper", JSON.stringify({ text: "Be kind.", operator: "ann" }));
  const taken = await (await ask("PUT", leg + "/mode", JSON.stringify({ mode: "talk" }))).json();
  await ask("PUT", leg + "/mode", JSON.stringify({ mode: "listen" }));
  const there = await (await ask("GET", "")).json();
  await ask("DELETE", leg);
  peer.close();
  return { statuses, talks: taken.talks, operators: there.operators.map((one) => [one.operator, one.mode]) };
}
"""
LONG = "We know of this question. " + " ".join(f"It has {word} lines about work on your line." for word in
                                               ("ten", "many", "several", "long", "some", "twelve"))  # fmt: skip


def canvas() -> dict[str, Any]:
    """A greeting of a word, and an answer that lasts long enough to be interrupted."""
    drawn: dict[str, Any] = json.loads((ROOT / "examples" / "support-line.json").read_text())
    for node in drawn["nodes"]:
        inputs = node["data"].get("inputs") or {}
        if "agentGreeting" in inputs:
            inputs["agentGreeting"], inputs["agentFallback"] = "Hello.", LONG
            for intent in inputs["agentIntents"]:
                if intent["intent"] == "INVOICE":
                    intent["reply"] = LONG
    return drawn


def microphone(path: Path) -> Path:
    """A question, then a pause, over and over: whatever is being said when it comes again is interrupted."""
    with wave.open(str(ROOT / "examples" / "caller-1-invoice.wav")) as wav:
        rate = wav.getframerate()
        question = np.frombuffer(wav.readframes(wav.getnframes()), dtype="<i2")
    with wave.open(str(path), "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(rate)
        quiet = np.zeros(rate * 7 // 2, dtype="<i2")
        wav.writeframes(np.concatenate((quiet, question)).tobytes())
    return path


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    with serving(tmp_path, SWITCHROOM_MEDIA__MEDIA_LOOPBACK="true") as server:
        status, _ = server.call("POST", f"/api/v1/chatflows?id={FLOW}", canvas())
        assert status < 300
        yield server


@pytest.fixture
async def softphone(server: Server, tmp_path: Path) -> AsyncIterator[Page]:
    program = await asyncio.to_thread(find_chromium, None)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=program,
            chromium_sandbox=os.geteuid() != 0,
            args=[
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-audio-capture={microphone(tmp_path / 'microphone.wav')}",
            ],
        )
        page = await browser.new_page(viewport={"width": 640, "height": 900})
        await page.add_init_script(_DEAF + _PEERS)
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await page.goto(f"{server.url}/softphone?flow={FLOW}&caller=ana")
        yield page
        assert [line for line in complaints if "404" not in line] == []  # the flow that is not there
        assert {url for url in asked if not url.startswith((server.url, "data:"))} == set()
        await browser.close()


async def level(page: Page, meter: str, *, above: float, timeout_s: float = 20) -> float:
    """The first level of a meter above so many dBFS."""
    async with asyncio.timeout(timeout_s):
        while (value := float(await page.locator(meter).evaluate("one => one.value"))) < above:
            await asyncio.sleep(0.03)
    return value


async def test_a_call_from_the_page(server: Server, softphone: Page, tmp_path: Path) -> None:
    page, lines = softphone, softphone.locator("#transcript li")
    await page.locator("#flow").fill("nobody")
    await page.get_by_role("button", name="Call").click()
    await expect(page.get_by_role("alert")).to_contain_text("There is no flow 'nobody'")
    await page.locator("#flow").fill(FLOW)
    await page.get_by_role("button", name="Call").click()
    await expect(page.locator("#state")).to_have_text("Live", timeout=30_000)
    task = await page.locator("#task").input_value()
    assert f"task={task}" in page.url

    agent = page.locator("#transcript li[data-role=agent]")
    caller = page.locator("#transcript li[data-role=caller]")
    assert await level(page, "#caller-level", above=-45) < 0
    await expect(caller.first).to_contain_text("question", ignore_case=True, timeout=20_000)
    await expect(agent.filter(has_text="We know of this").first).to_be_visible(timeout=20_000)
    await level(page, "#agent-level", above=-45)
    await page.screenshot(path=tmp_path / "talking.png")

    # the question comes again: the agent stops in the middle of its answer
    interrupted = page.locator("#transcript li[data-role=agent].interrupted")
    await expect(interrupted.first).to_be_visible(timeout=30_000)
    heard = await interrupted.first.inner_text()
    assert heard and len(heard) < len(LONG)

    mute = page.locator("#mute")
    await mute.click()
    await expect(mute).to_have_text("Unmute")
    assert await page.locator("#caller-level").evaluate("async one => { await new Promise(r => setTimeout(r, 150)); "
                                                         "return one.value; }") == -60  # fmt: skip
    # keys, by the page's buttons and by the browser's own sender of tones, are one number
    await page.locator("#keys [data-key='5']").click()
    await page.evaluate("window.peers.at(-1).getSenders()[0].dtmf.insertDTMF('402#')")
    await expect(caller.filter(has_text="5402").first).to_be_visible(timeout=20_000)

    seen = await page.evaluate(_OPERATE, f"/api/v1/openai-realtime/{FLOW}/live/{task}")
    assert seen == {"statuses": [201, 200, 200, 200, 200, 204], "talks": "ann", "operators": [["ann", "listen"]]}

    # it hears nothing any more: it calls again by itself, and it is the same call
    before = await lines.count()
    await page.evaluate("window.deaf = true")
    await expect(page.locator("#state")).to_have_attribute("data-state", "reconnecting", timeout=20_000)
    await page.evaluate("window.deaf = false")
    await expect(page.locator("#state")).to_have_text("Live", timeout=30_000)
    assert await lines.count() >= before and await page.locator("#task").input_value() == task

    await page.get_by_role("button", name="Hang up").click()
    await expect(page.locator("#state")).to_have_text("You hung up")
    await expect(page.locator("#dial")).to_be_visible()
    await page.screenshot(path=tmp_path / "over.png")

    async with asyncio.timeout(30):
        while (ended := server.call("GET", f"/api/v1/openai-realtime/{FLOW}/queue/status?taskId={task}")[1])[
            "state"
        ] != "ended":
            await asyncio.sleep(0.2)
    (execution_id,) = ended["executionIds"]
    _, row = server.call("GET", f"/api/v1/executions/{execution_id}")
    assert (row["endReason"], row["attempt"], row["callerId"]) == ("completed", 1, "ana")
    assert any(line["interrupted"] for line in row["transcript"])
    assert any(turn["interrupted"] for turn in row["timings"])
    assert row["recording"]["durationMs"] > 8000
    acts = ["operator_joined", "whispered", "taken_over", "given_back", "operator_left"]
    assert [one["action"] for one in row["operators"]] == acts
    assert [one["cause"] for one in ended["history"] if one["cause"] in acts] == acts
