"""A path that loses, delays and reorders packets: on a virtual clock, and between real peers."""

from __future__ import annotations

import asyncio
import random
import re
import struct
import time
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription
from hypothesis import given, settings
from hypothesis import strategies as st

from switchroom import metrics
from switchroom.realtime import opus
from switchroom.realtime.audio import FRAME, RATE, Samples
from switchroom.realtime.client import load_audio
from switchroom.realtime.jitter import LEAST_WAIT_S, MOST_WAIT_S, JitterBuffer, Slot
from switchroom.realtime.media_path import G711Codec, OpusCodec
from switchroom.realtime.peer import close_peer, new_peer, prepare
from switchroom.realtime.playout import Playout
from switchroom.realtime.settings import MediaSettings
from switchroom.realtime.telephone_event import KeyReader
from switchroom.realtime.webrtc import WebRtcLeg

from .conftest import EXAMPLES
from .paced_track import PacedTrack

PACKET_S = 0.02


class Outcome(NamedTuple):
    audio: Samples
    slots: list[Slot]
    buffer: JitterBuffer
    added_ms: list[float]
    """What each packet waited here."""


def speech(seconds: float) -> Samples:
    samples = np.concatenate([load_audio(EXAMPLES / f"caller-{name}.wav") for name in ("1-invoice", "2-order-number")])
    return np.resize(samples, int(seconds * RATE) // FRAME * FRAME)


def packets_of(samples: Samples, *, loss_percent: int = 0) -> list[bytes]:
    encoder = opus.Encoder()
    encoder.expect_loss(loss_percent)
    made = [encoder.encode(samples[at : at + FRAME]) for at in range(0, samples.size, FRAME)]
    encoder.close()
    return made


def through(payloads: list[bytes], delays_s: list[float | None], *, first: int = 65_500) -> Outcome:
    """Each packet leaves 20 ms after the one before and arrives `delays_s` later (None: never)."""
    arrivals = sorted((number * PACKET_S + delay, number) for number, delay in enumerate(delays_s) if delay is not None)
    codec = OpusCodec()
    buffer = JitterBuffer(opus.samples_of, FRAME)
    slots: list[Slot] = []
    pieces: list[Samples] = []
    came: dict[bytes, float] = {}
    added: list[float] = []

    def take(out: list[Slot], now: float) -> None:
        for slot in out:
            slots.append(slot)
            pieces.append(codec.decode(slot))
            if slot.packet is not None:
                added.append((now - came[slot.packet]) * 1000)

    ticks = 0
    for at, number in [*arrivals, (arrivals[-1][0] + 0.5, -1)]:
        while ticks * PACKET_S < at and number >= 0:
            take(buffer.poll(ticks * PACKET_S), ticks * PACKET_S)
            ticks += 1
        if number >= 0:
            came.setdefault(payloads[number], at)
            wire = (first + number) & 0xFFFF, (0xFFFFFF00 + number * FRAME) & 0xFFFFFFFF
            take(buffer.put(*wire, payloads[number], at), at)
        elif buffer._waiting:
            take(buffer.poll(at), at)
    codec.close()
    return Outcome(np.concatenate(pieces), slots, buffer, added)


def figures(name: str, outcome: Outcome) -> None:
    buffer, concealed = outcome.buffer, sum(slot.packet is None for slot in outcome.slots)
    print(
        f"{name}: {buffer.received} packets, concealed {concealed}, late {buffer.late}, reordered {buffer.reordered}, "
        f"added p50 {np.percentile(outcome.added_ms, 50):.0f} ms, p99 {np.percentile(outcome.added_ms, 99):.0f} ms, "
        f"a gap waits {buffer.wait_s * 1000:.0f} ms"
    )


def test_a_clean_path_adds_nothing() -> None:
    payloads = packets_of(speech(3))
    outcome = through(payloads, [0.03] * len(payloads))
    figures("clean", outcome)
    assert [slot.packet for slot in outcome.slots] == payloads  # across the wrap of both counters
    assert max(outcome.added_ms) == 0


def test_neighbours_that_change_places() -> None:
    payloads = packets_of(speech(4))
    delays: list[float | None] = [0.03] * len(payloads)
    for number in range(10, len(payloads), 25):
        delays[number] = 0.055  # arrives after the next one
    outcome = through(payloads, delays)
    figures("reordered", outcome)
    assert [slot.packet for slot in outcome.slots] == payloads
    assert outcome.buffer.reordered > 0 and outcome.buffer.lost == 0
    assert max(outcome.added_ms) <= LEAST_WAIT_S * 1000


def test_loss_is_concealed_and_copies_are_used() -> None:
    random.seed(5)
    samples = speech(6)
    payloads = packets_of(samples, loss_percent=10)
    lost = {number for number in range(5, len(payloads) - 5) if random.random() < 0.1}
    outcome = through(payloads, [None if number in lost else 0.03 for number in range(len(payloads))])
    figures("10 % lost", outcome)
    assert outcome.buffer.lost == len(lost)
    assert outcome.audio.size == samples.size  # a slot for every 20 ms, once
    whole = through(payloads, [0.03] * len(payloads)).audio.astype(np.float64)
    error = {"concealed": outcome.audio.astype(np.float64), "silence": outcome.audio.astype(np.float64).copy()}
    for number in lost:
        error["silence"][number * FRAME : (number + 1) * FRAME] = 0
    noise = {name: float(np.mean((given - whole) ** 2)) for name, given in error.items()}
    print(f"error of lost frames: {10 * np.log10(noise['silence'] / noise['concealed']):.1f} dB less than with silence")
    assert noise["concealed"] < noise["silence"] / 2


def test_the_wait_follows_the_path_and_falls_back() -> None:
    random.seed(7)
    payloads = packets_of(speech(60))
    rough, calm = 1_000, len(payloads) - 1_000
    delays: list[float | None] = [0.03 + random.random() * 0.12 for _ in range(rough)] + [0.03] * calm
    outcome = through(payloads, delays)
    figures("0 to 120 ms of jitter, then calm", outcome)
    concealed = [number for number, slot in enumerate(outcome.slots) if slot.packet is None]
    assert sum(number > 50 for number in concealed) < rough * 0.01  # after a second of learning
    rough_only = through(payloads[:rough], delays[:rough]).buffer.wait_s
    assert 2 * LEAST_WAIT_S < rough_only <= MOST_WAIT_S
    assert outcome.buffer.wait_s < rough_only / 2
    assert outcome.audio.size >= (len(payloads) - 2) * FRAME  # the first may come after the second


def test_a_stalled_stream_goes_on_in_real_time() -> None:
    payloads = packets_of(speech(4))
    delays: list[float | None] = [0.03] * len(payloads)
    for number in range(50, 100):  # a second in which nothing comes; then all of it at once
        delays[number] = 0.03 + (100 - number) * PACKET_S
    outcome = through(payloads, delays)
    figures("a second of nothing, then a burst", outcome)
    assert outcome.audio.size == len(payloads) * FRAME
    assert outcome.buffer.late > 30  # what its time was filled for already


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(0, 0.4)), min_size=3, max_size=60), st.integers(0, 65_535))
def test_every_slot_is_handed_on_once(delays: list[float | None], first: int) -> None:
    buffer = JitterBuffer(len, FRAME)
    numbers: list[int] = []
    arrivals = sorted((index * PACKET_S + delay, index) for index, delay in enumerate(delays) if delay is not None)
    if not arrivals:
        return
    begin = arrivals[0][1]
    for at, index in arrivals:
        payload = bytes([index]) + bytes(FRAME - 1)
        for slot in buffer.put((first + index) & 0xFFFF, index * FRAME, payload, at):
            if slot.packet is not None:
                numbers.append(slot.packet[0])
    for slot in buffer.poll(1e6):
        if slot.packet is not None:
            numbers.append(slot.packet[0])
    assert numbers == sorted(set(numbers))  # in order, none twice
    assert begin in numbers


def test_a_press_is_told_once() -> None:
    reader = KeyReader()

    def take(timestamp: int, code: int, *, marker: bool = False, ended: bool = False, length: int = 960) -> str | None:
        return reader.take(timestamp, marker, struct.pack("!BBH", code, 0x80 if ended else 0, length))

    assert take(0xFFFFFF00, 5, marker=True) == "5" and take(0xFFFFFF00, 5) is None
    # held for longer than a packet can say: another timestamp, the same press (across the wrap)
    assert take(0x0000FEFF, 5) is None and take(0x0000FEFF, 5, ended=True) is None
    assert take(0xFFFFFF00, 5) is None  # late
    assert take(0x00012000, 5) == "5"  # again, and its first packets were lost
    assert take(0x00013000, 15, marker=True) == "D" and take(0x00014000, 16, marker=True) is None  # a hook flash
    assert reader.take(0x00015000, True, b"\x01") is None  # broken


def test_telephone_codec_conceals_by_fading() -> None:
    codec = G711Codec("ulaw")
    tone = (np.sin(np.arange(FRAME * 4) * 2 * np.pi * 400 / RATE) * 8000).astype(np.int16)
    sent = [codec.encode(tone[at : at + FRAME]) for at in range(0, tone.size, FRAME)]
    levels = [np.abs(codec.decode(Slot(payload, 160))).max() for payload in sent]
    levels += [np.abs(codec.decode(Slot(None, 160))).max() for _ in range(3)]
    assert levels[3] > 7000
    assert 0.3 * levels[3] < levels[4] < levels[3] and levels[6] < 0.3 * levels[3]


# --- real peers ------------------------------------------------------------------------------------------------------


class Heard:
    """What a leg hands on."""

    def __init__(self) -> None:
        self.keys = ""
        self.frames = 0
        self.loud = 0

    def on_frame(self, frame: Samples) -> None:
        self.frames += 1
        self.loud += bool(np.abs(frame).max() > 1000)

    def on_dtmf(self, digit: str) -> None:
        self.keys += digit

    def on_message(self, message: dict[str, Any]) -> None: ...


def offering_keys(offer: str) -> str:
    """What a browser's offer says of keys, which aiortc's does not."""
    keys = "a=rtpmap:110 telephone-event/48000\r\na=rtpmap:126 telephone-event/8000\r\n"
    return re.sub(r"(m=audio [^\r]+)(\r\n(?:[^m].*\r\n)*?)(a=rtpmap)", rf"\1 110 126\2{keys}\3", offer, count=1)


@pytest.fixture
async def pair() -> AsyncIterator[tuple[WebRtcLeg, RTCPeerConnection, Heard]]:
    """A leg, and a peer that talks to it: a tone."""
    leg = WebRtcLeg(MediaSettings(media_loopback=True, dead_peer_s=1.0))
    tone = (np.sin(np.arange(RATE) * 2 * np.pi * 440 / RATE) * 8000).astype(np.int16).reshape(-1, FRAME)
    position = iter(range(10**9))
    peer = new_peer()
    peer.addTrack(PacedTrack(lambda: tone[next(position) % len(tone)]))
    offer = await peer.createOffer()
    prepare(peer, loopback=True)
    await peer.setLocalDescription(offer)
    answer = await leg.answer(offering_keys(peer.localDescription.sdp))
    assert "useinbandfec=1" in answer and "a=rtpmap:110 telephone-event/48000" in answer
    await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    heard = Heard()
    leg.start(Playout(), heard)
    async with asyncio.timeout(30):
        await leg.connected.wait()
    yield leg, peer, heard
    await leg.close()
    await close_peer(peer)


def lost_by_metrics() -> tuple[float, float, float]:
    """Packets lost, looks at jitter, reports of other sides, as `/metrics` has them."""
    names = (
        ("switchroom_leg_packets_total", {"outcome": "lost"}),
        ("switchroom_leg_jitter_seconds_count", {}),
        ("switchroom_leg_sent_loss_ratio_count", {}),
    )
    lost, jitters, reports = (metrics.REGISTRY.get_sample_value(name, labels) or 0.0 for name, labels in names)
    return lost, jitters, reports


class Numbered:
    """In place of a peer's way out: all packets of its stream are numbered here, so that others can be put between."""

    def __init__(self, peer: RTCPeerConnection) -> None:
        self.sender = peer.getTransceivers()[0].sender
        transport: Any = self.sender.transport
        self._send, transport._send_rtp = transport._send_rtp, self
        self._number = -1

    async def __call__(self, data: bytes) -> None:
        if data[1] not in range(192, 224):  # RTCP
            self._number = (self._number + 1 if self._number >= 0 else int.from_bytes(data[2:4], "big")) & 0xFFFF
            data = data[:2] + self._number.to_bytes(2, "big") + data[4:]
        await self._send(data)

    async def press(self, *keys: tuple[int, int, int]) -> None:
        """Events as a browser sends them (RFC 4733): code, packets while the key is held, packets of its end."""
        while self._number < 0:
            await asyncio.sleep(0.01)
        for at, (code, held, ends) in enumerate(keys):
            for step in range(held + ends):
                begins, ended = step == 0, step >= held
                header = struct.pack("!BBHII", 0x80, (begins << 7) | 110, 0, at * 20_000, self.sender._ssrc)
                await self(header + struct.pack("!BBH", code, (ended << 7) | 10, (min(step, held) + 1) * FRAME))


async def test_a_leg_on_a_bad_path_and_a_peer_that_dies(pair: tuple[WebRtcLeg, RTCPeerConnection, Heard]) -> None:
    leg, peer, heard = pair
    async with asyncio.timeout(30):
        await Numbered(peer).press((1, 3, 3), (0, 2, 1), (11, 1, 3))  # of the second key's end only one packet arrives
        while len(heard.keys) < 3:
            await asyncio.sleep(0.01)
    assert heard.keys == "10#"
    assert leg.path.buffer is not None and leg.path.buffer.lost == 0  # a key is no lost packet of audio
    connection = peer.getTransceivers()[0].sender.transport.transport._connection
    transport = connection._nominated[1].protocol.transport
    loop, dice, send = asyncio.get_running_loop(), random.Random(3), transport.sendto

    class BadPath:
        """The socket, but 8 % of its packets never leave and a fifth of them are late by up to 30 ms."""

        dead = False

        def __getattr__(self, name: str) -> Any:
            return getattr(transport, name)

        def sendto(self, data: bytes, address: Any) -> None:
            fate = dice.random()
            if self.dead or (data[0] >= 128 and fate < 0.08):
                return
            loop.call_later(dice.random() * 0.03 if fate > 0.8 else 0, send, data, address)

    figures_before = lost_by_metrics()
    path = connection._nominated[1].protocol.transport = BadPath()
    began, before, loud = time.monotonic(), heard.frames, heard.loud
    await asyncio.sleep(2.0)
    seconds = time.monotonic() - began
    assert leg.path.buffer is not None
    print(f"real peers, bad path: {(heard.frames - before) / seconds:.1f} frames/s, lost {leg.path.buffer.lost}")
    assert leg.path.buffer.lost > 0
    assert heard.frames - before == pytest.approx(seconds * 50, rel=0.25)
    assert heard.loud - loud > 0.9 * (heard.frames - before)  # concealed, not silent
    path.dead = True
    died = time.monotonic()
    async with asyncio.timeout(30):
        await leg.gone.wait()
    assert leg.gone_cause == "dead"
    print(f"a dead peer was noticed after {time.monotonic() - died:.2f} s (limit 1.0)")
    connection._nominated[1].protocol.transport = transport
    await leg.close()
    lost, jitters, reports = (after - was for after, was in zip(lost_by_metrics(), figures_before, strict=True))
    assert lost >= leg.path.buffer.lost and jitters >= 2
    print(
        f"figures of the leg: {lost:g} lost, jitter looked at {jitters:g} times, {reports:g} reports of its other side"
    )
