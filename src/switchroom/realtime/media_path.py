"""The way of a leg's audio packets, in place of aiortc's: no thread, no executor, no task and no copy of PCM a packet.

aiortc does signalling, ICE, DTLS, keys and RTCP; its receiver and sender stay in place for that. Packets of audio are
taken where a socket's datagram arrives, and are sent where one leaves; both by a plain function call. What of aiortc is
touched for it (1.16) stands in this file and in `peer.py`; a test fails when it is not there any more.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import pylibsrtp
from aiortc import RTCPeerConnection, clock

from switchroom.realtime import opus
from switchroom.realtime.audio import FRAME, FRAME_S, RATE, SILENCE, Decimator, Framer, Interpolator, Samples
from switchroom.realtime.g711 import G711_RATE, Law, decode, encode
from switchroom.realtime.jitter import JitterBuffer, Slot
from switchroom.realtime.path_figures import PathFigures, sent_lost
from switchroom.realtime.telephone_event import KeyReader

log = logging.getLogger(__name__)

_HEADER = struct.Struct("!BBHII")
_VERSION = 0x80
_RESYNC_S = 0.2
_RTCP_TYPES = range(192, 224)
"""A second byte in this range is RTCP's (RFC 5761 §4)."""
_STEADY_SILENCE = 25
"""So many silent frames in a row, and the packet of the last one says it all."""
_REPORTS_EVERY = 50
_PLC_FRAMES = 10
"""Concealment fades; after so many frames in a row it is silence."""
_LAWS: dict[str, Law] = {"audio/pcmu": "ulaw", "audio/pcma": "alaw"}


class Codec(Protocol):
    """Both directions of one leg."""

    rate: int
    """Of the RTP clock."""

    def encode(self, frame: Samples) -> bytes: ...
    def decode(self, slot: Slot) -> Samples: ...
    def samples_of(self, payload: bytes) -> int: ...
    def expect_loss(self, percent: int) -> None: ...
    def close(self) -> None: ...


class OpusCodec:
    rate = RATE

    def __init__(self) -> None:
        self._encoder = opus.Encoder()
        self._decoder = opus.Decoder()
        self._concealed = 0
        self.samples_of = opus.samples_of
        self.expect_loss = self._encoder.expect_loss
        self.encode = self._encoder.encode

    def decode(self, slot: Slot) -> Samples:
        if slot.packet is not None:
            self._concealed = 0
            samples = self._decoder.decode(slot.packet)
        elif slot.sent and self._concealed < _PLC_FRAMES:
            self._concealed += 1
            samples = self._decoder.conceal(min(slot.samples, opus.MAX_SAMPLES), slot.following)
        else:
            samples = None
        return samples if samples is not None else np.zeros(slot.samples, dtype=np.int16)

    def close(self) -> None:
        self._encoder.close()
        self._decoder.close()


class G711Codec:
    """For a caller without Opus. A lost packet is the one before it again, each time at half its level."""

    rate = G711_RATE

    def __init__(self, law: Law) -> None:
        self._law = law
        self._down, self._up = Decimator(G711_RATE), Interpolator(G711_RATE)
        self._last: Samples = np.zeros(0, dtype=np.int16)

    def encode(self, frame: Samples) -> bytes:
        return encode(self._down.feed(frame), self._law)

    def decode(self, slot: Slot) -> Samples:
        if slot.packet is not None:
            self._last = decode(slot.packet, self._law)
        else:
            level = 2 if slot.sent else 1 << 15
            self._last = np.resize(self._last, slot.samples) // level
        return self._up.feed(self._last.astype(np.int16))

    def samples_of(self, payload: bytes) -> int:
        return len(payload)

    def expect_loss(self, percent: int) -> None:
        """Nothing to be done about it."""

    def close(self) -> None:
        """Holds nothing."""


class _Arrived(NamedTuple):
    """What aiortc's receiver counts for its reports."""

    ssrc: int
    sequence_number: int
    timestamp: int


class MediaPath:
    """One leg's packets both ways. `source` gives the next 20 ms, `sink` takes those of the caller, `on_key` the keys
    that it presses."""

    def __init__(
        self,
        source: Callable[[], Samples],
        sink: Callable[[Samples], None],
        on_key: Callable[[str], None] = lambda key: None,
    ) -> None:
        self._source = source
        self._sink = sink
        self._on_key = on_key
        self._keys = KeyReader()
        self.key_types: frozenset[int] = frozenset()
        """Payload types of keys, as negotiated."""
        self._framer = Framer()
        self._codec: Codec | None = None
        self._buffer: JitterBuffer | None = None
        self._payload_type = -1
        self._ssrc = -1
        self._dtls: Any = None
        self._connection: Any = None
        self._receiver: Any = None
        self._sender: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._sequence = 0
        self._timestamp = 0
        self._sent = 0
        self._octets = 0
        self._silent = 0
        self._silence = b""
        self._reported: object = None
        """When the other side's last report came."""
        self.last_packet_s = 0.0
        """When the caller's last packet of audio came, monotonic; 0 before the first."""
        self.skipped = self.broken = 0
        self._figures = PathFigures()

    @property
    def buffer(self) -> JitterBuffer | None:
        """The stream's order and its figures, once it flows."""
        return self._buffer

    def attach(self, peer: RTCPeerConnection) -> None:
        """To be called when the peer's audio transceiver exists and before media flows."""
        transceiver = next(one for one in peer.getTransceivers() if one.kind == "audio")
        self._sender, self._receiver = transceiver.sender, transceiver.receiver
        self._sender._run_rtp = self._run

    def close(self) -> None:
        self._stop()
        self._figures.look(self._buffer)
        if self._codec is not None:
            self._codec.close()
            self._codec = None

    # --- out -----------------------------------------------------------------------------------------------------

    async def _run(self, negotiated: Any) -> None:
        """In place of the sender's own loop: aiortc starts it when the keys are there, and cancels it at the end."""
        self._sender._RTCRtpSender__rtp_started.set()
        over = asyncio.get_running_loop().create_future()
        try:
            self._begin(negotiated)
            await over
        except asyncio.CancelledError:
            pass
        except Exception:
            log.exception("a leg's media could not begin")
        finally:
            self._stop()
            self._sender._RTCRtpSender__rtp_exited.set()

    def _begin(self, negotiated: Any) -> None:
        self._codec = self._codec_of(negotiated.mimeType.lower())
        self._buffer = JitterBuffer(self._codec.samples_of, self._codec.rate // 50)
        self._payload_type = negotiated.payloadType
        self._dtls = self._sender.transport
        self._connection = self._dtls.transport._connection
        self._divert()
        random = np.random.default_rng()
        self._sequence, self._timestamp = int(random.integers(1 << 15)), int(random.integers(1 << 32))
        self._due = time.monotonic()
        self._timer = asyncio.get_running_loop().call_soon(self._tick)  # type: ignore[assignment]

    def _codec_of(self, mime_type: str) -> Codec:
        law = _LAWS.get(mime_type)
        return G711Codec(law) if law is not None else OpusCodec()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._connection is not None:
            for protocol in self._connection._protocols:
                protocol.__dict__.pop("datagram_received", None)
            self._connection = None

    def _tick(self) -> None:
        """Every 20 ms by the monotonic clock. After a stall of more than 200 ms it does not catch up but goes on from
        now: a burst would only fill the far jitter buffer."""
        now = time.monotonic()
        if now - self._due > _RESYNC_S:
            late = int((now - self._due) / FRAME_S)
            self.skipped += late
            self._due += late * FRAME_S
            self._timestamp += late * self._step
        self._due += FRAME_S
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(loop.time() + max(0.0, self._due - now), self._tick)
        self._send(self._source())
        if self._buffer is not None:
            self._hand_on(self._buffer.poll(now))
        if self._sent % _REPORTS_EVERY == 0:
            self._report()

    @property
    def _step(self) -> int:
        return FRAME if self._codec is None else self._codec.rate // 50

    def _send(self, frame: Samples) -> None:
        assert self._codec is not None
        if frame is SILENCE:
            self._silent += 1
            if self._silent <= _STEADY_SILENCE:
                self._silence = self._codec.encode(frame)
            payload = self._silence
        else:
            self._silent = 0
            payload = self._codec.encode(frame)
        header = _HEADER.pack(
            _VERSION, self._payload_type, self._sequence, self._timestamp & 0xFFFFFFFF, self._sender._ssrc
        )
        self._sequence = (self._sequence + 1) & 0xFFFF
        self._timestamp += self._step
        self._sent += 1
        self._octets += len(payload)
        pair = self._connection._nominated.get(1) if self._connection is not None else None
        session = self._dtls._tx_srtp
        if pair is None or session is None:
            return
        try:
            pair.protocol.transport.sendto(session.protect(header + payload), pair.remote_addr)
        except (OSError, pylibsrtp.Error, RuntimeError) as error:
            self.broken += 1
            log.debug("a packet could not be sent", extra={"error": str(error)})

    def _report(self) -> None:
        """What the sender's reports (RTCP) say of us, and what the other side's say of the path."""
        sender = self._sender
        sender._RTCRtpSender__ntp_timestamp = clock.current_ntp_time()
        sender._RTCRtpSender__rtp_timestamp = self._timestamp & 0xFFFFFFFF
        sender._RTCRtpSender__packet_count = self._sent
        sender._RTCRtpSender__octet_count = self._octets
        for stats in sender._RTCRtpSender__stats.values():
            if stats.type == "remote-inbound-rtp" and self._codec is not None:
                self._codec.expect_loss(round(stats.fractionLost * 100 / 256))
                if stats.timestamp != self._reported:
                    self._reported = stats.timestamp
                    sent_lost(stats.fractionLost / 256)
        streams = self._receiver._RTCRtpReceiver__remote_streams
        stream = streams.get(self._ssrc)
        rate = RATE if self._codec is None else self._codec.rate
        self._figures.look(self._buffer, stream.jitter / rate if stream is not None else None)

    # --- in ------------------------------------------------------------------------------------------------------

    def _divert(self) -> None:
        for protocol in self._connection._protocols:
            protocol.datagram_received = self._taker(protocol)

    def _taker(self, protocol: Any) -> Callable[[bytes, tuple[Any, ...]], None]:
        on = protocol.datagram_received

        def datagram_received(data: bytes, address: tuple[Any, ...]) -> None:
            if len(data) > _HEADER.size and 128 <= data[0] < 192 and data[1] not in _RTCP_TYPES:
                self._take(data)
            else:
                on(data, address)

        return datagram_received

    def _take(self, data: bytes) -> None:
        session = self._dtls._rx_srtp
        if session is None or self._buffer is None:
            return
        try:
            packet = session.unprotect(data)
        except pylibsrtp.Error:
            self.broken += 1
            return
        first, second, number, timestamp, ssrc = _HEADER.unpack_from(packet)
        payload_type = second & 0x7F
        payload = _payload(packet, first)
        if not payload:
            return
        now = time.monotonic()
        if payload_type in self.key_types:
            self.last_packet_s = now
            self._count(ssrc, number, None)
            self._hand_on(self._buffer.pass_over(number, now))
            if (key := self._keys.take(timestamp, second >= 128, payload)) is not None:
                self._on_key(key)
            return
        if payload_type != self._payload_type:
            return
        self.last_packet_s = now
        if ssrc != self._ssrc:  # the first packet, or another source: its numbers begin anew
            self._ssrc = ssrc
            assert self._codec is not None
            self._buffer = JitterBuffer(self._codec.samples_of, self._step)
            self._keys = KeyReader()
        self._count(ssrc, number, timestamp)
        self._hand_on(self._buffer.put(number, timestamp, payload, now))

    def _count(self, ssrc: int, number: int, timestamp: int | None) -> None:
        """For our reports. A key's packet has a timestamp of its own, which says nothing about jitter."""
        streams = self._receiver._RTCRtpReceiver__remote_streams
        stream = streams.get(ssrc)
        if stream is None:
            from aiortc.rtcrtpreceiver import StreamStatistics

            streams.clear()
            stream = streams[ssrc] = StreamStatistics(self._codec.rate if self._codec is not None else RATE)
        if timestamp is not None:
            stream.add(_Arrived(ssrc, number, timestamp))
        elif (last := stream._last_timestamp) is not None:
            arrival = stream._last_arrival
            stream.add(_Arrived(ssrc, number, last))
            stream._last_arrival = arrival

    def _hand_on(self, slots: list[Slot]) -> None:
        for slot in slots:
            if self._codec is None:
                return
            for frame in self._framer.feed(self._codec.decode(slot)):
                self._sink(frame)


def _payload(packet: bytes, first: int) -> bytes:
    """What follows the header of an RTP packet (RFC 3550 §5.1); b"" for a broken one."""
    begin = _HEADER.size + 4 * (first & 0x0F)
    if first & 0x10:
        if len(packet) < begin + 4:
            return b""
        begin += 4 + 4 * int.from_bytes(packet[begin + 2 : begin + 4])
    end = len(packet) - (packet[-1] if first & 0x20 else 0)
    return packet[begin:end]
