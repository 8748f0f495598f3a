"""Callers join calls: browsers with a token and addresses that trickle in, telephones by Media Streams."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
import pytest_asyncio
from aiortc import RTCPeerConnection, RTCSessionDescription
from pydantic import SecretStr, ValidationError
from twilio.request_validator import RequestValidator
from twilio.twiml.voice_response import Connect, VoiceResponse

from switchroom.errors import BadInput
from switchroom.queue import EndReason, NewCall, Rules, State
from switchroom.realtime.audio import SILENCE
from switchroom.realtime.peer import close_peer, new_peer
from switchroom.realtime.settings import IceServer
from switchroom.realtime.trickle import ice_tag, read_fragment
from switchroom.realtime.turn import usable
from switchroom.records.model import ExecutionState

from .conftest import EXAMPLES, FLOW, KEY, PAGE, TOKEN, House
from .paced_track import PacedTrack
from .phone_line import PhoneLine, speech_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"


class Browser:
    """A peer whose offer carries no address; it has them for later."""

    def __init__(self) -> None:
        self.peer: RTCPeerConnection = new_peer()
        self.peer.addTrack(PacedTrack(lambda: SILENCE))
        self.told: list[str] = []
        self.channel = self.peer.createDataChannel("events")
        self.channel.on("message", self.told.append)
        self.addresses: list[str] = []
        self.ufrag = ""

    async def offer(self) -> str:
        await self.peer.setLocalDescription(await self.peer.createOffer())
        lines = self.peer.localDescription.sdp.splitlines()
        self.ufrag = ice_tag(self.peer.localDescription.sdp)
        self.addresses = [line for line in lines if line.startswith("a=candidate")]
        kept = [line for line in lines if not line.startswith(("a=candidate", "a=end-of-candidates"))]
        return "\r\n".join(kept) + "\r\n"

    def fragment(self, *, ufrag: str | None = None) -> str:
        lines = [f"a=ice-ufrag:{ufrag or self.ufrag}", "m=audio 9 UDP/TLS/RTP/SAVPF 96", "a=mid:0"]
        return "\r\n".join([*lines, *self.addresses, "a=end-of-candidates"]) + "\r\n"


@pytest_asyncio.fixture(loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    browser = Browser()
    yield browser
    await close_peer(browser.peer)


async def queued(house: House, caller: str) -> str:
    return (await house.queue.enqueue(FLOW, NewCall(form={"ID": caller}), Rules(lines=4))).task_id


async def test_a_browser_joins_with_a_token_and_trickles(house: House, browser: Browser) -> None:
    task_id, other = await queued(house, "1001"), await queued(house, "1002")
    calls = f"{house.url}/api/v1/openai-realtime/{FLOW}/calls"
    key = {"Authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{calls}/token", json={"taskId": task_id}) as reply:
            assert reply.status == 401
        async with http.post(f"{calls}/token", json={"taskId": task_id}, headers=key) as reply:
            assert reply.status == 201
            given = await reply.json()
        asks = {"Origin": PAGE, "Access-Control-Request-Method": "PATCH"}
        async with http.options(f"{calls}/some-leg", headers=asks) as reply:
            assert (reply.status, reply.headers["Access-Control-Allow-Origin"]) == (204, PAGE)
            assert "PATCH" in reply.headers["Access-Control-Allow-Methods"]
            assert "If-Match" in reply.headers["Access-Control-Allow-Headers"]
        async with http.options(calls, headers={**asks, "Origin": "https://other.example"}) as reply:
            assert (reply.status, (await reply.json())["code"]) == (403, "origin_not_allowed")
        async with http.options(f"{calls}/token", headers=asks) as reply:
            assert reply.status == 405  # a token is for a server to ask for
        mine = {"Authorization": f"Bearer {given['token']}", "Origin": PAGE}
        async with http.get(f"{house.url}/api/v1/executions", headers=mine) as reply:
            assert reply.status == 401  # it opens nothing else
        offer = {"data": await browser.offer(), "headers": {**mine, "Content-Type": SDP}}
        naked = {**offer, "data": re.sub("a=fingerprint:.*\r\n", "", str(offer["data"]))}
        async with http.post(house.url + given["url"], **naked) as reply:
            assert (reply.status, (await reply.json())["code"]) == (400, "bad_sdp")
            assert "a=fingerprint" in (await reply.json())["detail"]
        async with http.post(f"{calls}?taskId={other}", **offer) as reply:  # type: ignore[arg-type]
            assert reply.status == 403
            assert reply.headers["Access-Control-Allow-Origin"] == PAGE  # the page can read why
        async with http.post(house.url + given["url"], **offer) as reply:  # type: ignore[arg-type]
            assert reply.status == 201, await reply.text()
            assert reply.headers["Accept-Patch"] == FRAGMENT
            assert reply.headers["Access-Control-Allow-Origin"] == PAGE
            assert {"Location", "ETag"} <= set(reply.headers["Access-Control-Expose-Headers"].split(", "))
            leg, tag = house.url + reply.headers["Location"], reply.headers["ETag"]
            # Without the server's addresses: they find each other only by what the browser sends.
            answer = re.sub("a=(candidate:|end-of).*\r\n", "", await reply.text())
            await browser.peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))

        async def patch(text: str, headers: dict[str, str]) -> int:
            async with http.patch(leg, data=text, headers={**mine, **headers}) as reply:
                return reply.status

        as_fragment = {"Content-Type": FRAGMENT}
        whole = browser.fragment()
        assert await patch(whole, as_fragment) == 428
        assert await patch(whole, {**as_fragment, "If-Match": '"another"'}) == 412
        assert await patch(whole, {"Content-Type": "text/plain", "If-Match": tag}) == 415
        assert await patch(browser.fragment(ufrag="new1"), {**as_fragment, "If-Match": "*"}) == 422
        assert await patch("a=candidate:nonsense", {**as_fragment, "If-Match": tag}) == 400
        assert browser.peer.connectionState != "connected"
        assert await patch(whole, {**as_fragment, "If-Match": tag}) == 204
        async with asyncio.timeout(30):
            while browser.peer.connectionState != "connected":
                await asyncio.sleep(0.02)
        async with asyncio.timeout(10):
            while browser.channel.readyState != "open":
                await asyncio.sleep(0.02)
            nonsense = ["", "[" * 20_000, '{"type": []}', '{"type": "dtmf", "digits": {"1": 2}}', b"\xff", "y" * 60_000]
            for message in [*nonsense, '{"type": "ping", "id": 7}']:
                browser.channel.send(message)
            while not any('"pong"' in text for text in browser.told):  # the connection has outlived it
                await asyncio.sleep(0.02)
        async with http.delete(leg) as reply:
            assert reply.status == 401
        async with http.delete(leg, headers=mine) as reply:
            assert reply.status == 204


async def test_a_browser_that_calls_again_closes_its_old_leg_first(house: House, browser: Browser) -> None:
    task_id = await queued(house, "1003")
    url = f"{house.url}/api/v1/openai-realtime/{FLOW}/calls?taskId={task_id}"
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": SDP}

    async def until(*states: State) -> None:
        async with asyncio.timeout(30):
            while (call := await house.queue.get(FLOW, task_id)) is None or call.state not in states:
                await asyncio.sleep(0.02)

    async def dial(http: aiohttp.ClientSession, one: Browser) -> RTCSessionDescription:
        await one.offer()
        async with http.post(url, data=one.peer.localDescription.sdp, headers=headers) as reply:
            assert reply.status == 201
            return RTCSessionDescription(await reply.text(), "answer")

    again = Browser()
    try:
        async with aiohttp.ClientSession() as http:
            await browser.peer.setRemoteDescription(await dial(http, browser))
            await until(State.LIVE)
            answer = await dial(http, again)
        await close_peer(browser.peer)
        await asyncio.sleep(0.3)  # the server has seen it go
        await until(State.LIVE)
        await again.peer.setRemoteDescription(answer)
        async with asyncio.timeout(30):
            while again.peer.connectionState != "connected":
                await asyncio.sleep(0.02)
        await until(State.LIVE)
        await close_peer(again.peer)  # the newest leg hangs up: that is the end
        await until(State.WRAPUP, State.ENDED)
    finally:
        await close_peer(again.peer)


async def test_fragments() -> None:
    lines = [
        "a=ice-ufrag:EsAw",
        "m=audio 9 RTP/AVP 0",
        "a=mid:0",
        "a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0",
        "a=candidate:3471623853 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active",
        "a=end-of-candidates",
    ]
    read = read_fragment("\r\n".join(lines))
    assert read.ufrag == "EsAw" and read.complete
    (one,) = read.candidates  # TCP is not spoken
    assert (one.ip, one.port, one.sdpMid, one.sdpMLineIndex) == ("192.0.2.1", 61764, "0", 0)
    with pytest.raises(BadInput, match="line 2"):
        read_fragment("a=mid:0\na=candidate:1 1 udp\n")
    with pytest.raises(BadInput, match="more than"):
        read_fragment((lines[3] + "\n") * 65)


async def test_turn_credentials_end() -> None:
    server = IceServer(urls=["turn:turn.example.com:3478"], secret=SecretStr("shared"), credential_s=600)
    (given,) = usable([server], "alice", now_s=1_000_000.5)
    assert given.username == "1000600:alice"
    mac = hmac.new(b"shared", b"1000600:alice", hashlib.sha1).digest()
    assert given.credential == base64.b64encode(mac).decode()
    assert given.secret is None  # it is never given out
    make: Callable[..., IceServer] = IceServer
    for wrong in ({"urls": ["http://x"]}, {"urls": []}, {"urls": ["turn:x"], "secret": "s", "username": "u"}):
        with pytest.raises(ValidationError):
            make(**wrong)


# --- telephones -------------------------------------------------------------------------------------------------------

CALL = {"CallSid": "CA0", "From": "+38641656457", "To": "+38615550000", "Direction": "inbound", "CallStatus": "ringing"}


def signed(url: str, form: dict[str, str] | None = None, token: str = TOKEN) -> dict[str, str]:
    """The header as the vendor's own library makes it."""
    return {"X-Twilio-Signature": RequestValidator(token).compute_signature(url, form or {})}


async def ring(http: aiohttp.ClientSession, url: str, form: dict[str, str] = CALL) -> ET.Element:
    async with http.post(url, data=form, headers=signed(url, form)) as reply:
        assert reply.status == 200, await reply.text()
        assert reply.content_type == "text/xml"
        return ET.fromstring(await reply.text())


async def test_a_phone_call(house: House) -> None:
    webhook = f"{house.url}/api/v1/twilio/{FLOW}/voice?ticket=T-17"
    async with aiohttp.ClientSession() as http:
        answer = await ring(http, webhook)
        stream = answer.find("Connect/Stream")
        assert stream is not None
        url = stream.attrib["url"]
        parameters = {one.attrib["name"]: one.attrib["value"] for one in stream.findall("Parameter")}
        again = answer.findtext("Redirect")
        assert again is not None
        connect = Connect()
        connect.stream(url=url).parameter(name="taskId", value=parameters["taskId"])
        twiml = VoiceResponse()
        twiml.append(connect)
        twiml.redirect(again, method="POST")
        assert ET.canonicalize(str(twiml)) == ET.canonicalize(ET.tostring(answer, encoding="unicode"))

        assert (await ring(http, webhook)).find("Connect/Stream/Parameter").attrib["value"] == parameters["taskId"]  # type: ignore[union-attr]

        line = PhoneLine(await http.ws_connect(url, headers=signed(url)), parameters)
        await line.begin()
        await line.until_voice()
        await line.until_quiet()
        await line.drop()  # the socket breaks, the caller is still on the line: Twilio asks what to do
        answer = await ring(http, again)
        assert [verb.tag for verb in answer] == ["Pause", "Connect", "Redirect"]
        url = answer.find("Connect/Stream").attrib["url"]  # type: ignore[union-attr]
        line = PhoneLine(await http.ws_connect(url, headers=signed(url)), parameters)
        await line.begin()
        await line.say(await speech_of(EXAMPLES / "caller-1-invoice.wav"))
        await line.until_voice()
        await asyncio.sleep(1.2)  # into the answer
        await line.say(await speech_of(EXAMPLES / "caller-3-operator.wav"))
        async with asyncio.timeout(30):
            await line.closed.wait()  # the agent said its last words and hung up
        assert line.cleared_at is not None
        await line.drop()
        assert line.longest_buffer_ms <= 400  # in real time, not a clause at once: it can be interrupted
        assert (await ring(http, again)).find("Hangup") is not None
        with pytest.raises(aiohttp.WSServerHandshakeError) as used:
            await http.ws_connect(url, headers=signed(url))
        assert used.value.status == 401  # a stream's URL is good once

    task_id = parameters["taskId"]
    call = await house.queue.get(FLOW, task_id)
    assert call is not None and call.state is State.ENDED and call.end_reason is EndReason.COMPLETED
    (row,) = await house.executions.find(FLOW, task_id)
    assert row.state is ExecutionState.FINISHED
    assert row.form == {"ID": "+38641656457", "ticket": "T-17", "to": "+38615550000", "callSid": "CA0"}
    assert row.recording is not None and row.recording.duration_ms > 5000
    hello, invoice, answered, operator, goodbye = row.transcript
    assert hello.text == "Hello." and "question" in invoice.text.lower() and "operator" in operator.text.lower()
    # The answer is cut to what the line had played when the caller broke in: some of it, not all.
    assert answered.interrupted
    whole = "I can look into your invoice. Please tell me your order number, digit by digit."
    assert whole.startswith(answered.text) and len("I can") <= len(answered.text) < len(whole)
    assert goodbye.text == "One moment, please." and not goodbye.interrupted


@pytest.mark.parametrize(
    ("number", "dialled"),
    [("+38615550100", "+38615550100"), ("sip:desk@pbx.example", "<Sip>sip:desk@pbx.example</Sip>")],
)
async def test_a_phone_call_is_transferred(house: House, number: str, dialled: str) -> None:
    live = f"{house.url}/api/v1/openai-realtime/{FLOW}/live"
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as http:
        caller = {**CALL, "CallSid": "CA7", "From": f"+3864100000{len(dialled)}"}
        answer = await ring(http, f"{house.url}/api/v1/twilio/{FLOW}/voice", caller)
        url = answer.find("Connect/Stream").attrib["url"]  # type: ignore[union-attr]
        parameters = {one.attrib["name"]: one.attrib["value"] for one in answer.iter("Parameter")}
        task_id, again = parameters["taskId"], answer.findtext("Redirect")
        assert again is not None
        line = PhoneLine(await http.ws_connect(url, headers=signed(url)), parameters)
        await line.begin()
        await line.until_voice()
        for key in "42#":
            await line.press(key)
        async with asyncio.timeout(30):
            while not any(
                one.text == "42" for row in await house.executions.find(FLOW, task_id) for one in row.transcript
            ):
                await asyncio.sleep(0.05)
        async with http.post(f"{live}/{task_id}/transfer", json={"number": number, "operator": "ann"}) as reply:
            assert reply.status == 200, await reply.text()
        async with asyncio.timeout(30):
            await line.closed.wait()
        await line.drop()
        verbs = ET.tostring(await ring(http, again), encoding="unicode")
        assert f"<Dial>{dialled}</Dial>" in verbs
        assert "<Hangup" in ET.tostring(await ring(http, again), encoding="unicode")  # once
    (row,) = await house.executions.find(FLOW, task_id)
    assert row.end_reason == "transferred" and number in row.detail


async def test_who_may_ring(house: House) -> None:
    webhook = f"{house.url}/api/v1/twilio/{FLOW}/voice"
    stream = f"{house.url}/api/v1/twilio/{FLOW}/stream"
    async with aiohttp.ClientSession() as http:
        for headers, status in (
            ({}, 401),
            (signed(webhook, CALL, "another token"), 403),
            (signed(webhook + "/other", CALL), 403),
            (signed(webhook, {**CALL, "From": "+1"}), 403),
        ):
            async with http.post(webhook, data=CALL, headers=headers) as reply:
                assert reply.status == status, headers
                assert reply.content_type == "application/problem+json"
        assert (await house.queue.status(FLOW)).pending_count == 0  # nothing was queued by any of them
        with_port = webhook.replace("127.0.0.1", "localhost")
        async with http.post(with_port, data=CALL, headers=signed(with_port, CALL)) as reply:
            assert reply.status == 200
        async with http.post(
            f"{webhook}?taskId=nobody", data=CALL, headers={"Authorization": f"Bearer {KEY}"}
        ) as reply:
            assert reply.status == 404
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(stream)
        assert refused.value.status == 401
        async with http.ws_connect(stream, headers=signed(stream.replace("http", "ws"))) as socket:
            line = PhoneLine(socket, {})
            await line.begin()
            async with asyncio.timeout(30):
                await line.closed.wait()
            assert socket.close_code == 1008  # nothing says which call it is
            await line.drop()
