"""A WebRTC peer connection set up our way. With `media_path.py` the only file that touches aiortc where its API ends.

Four things that aiortc 1.16 does not offer: no STUN server unless one is named (its default asks Google), a
jitter buffer of two frames (its constant four costs 80 ms), 127.0.0.1 as a candidate (aioice leaves it out, so
that a machine without a network could not even talk to itself), and a close that does not wait for its decoder's
thread on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from typing import Any

from aioice import Candidate, Connection
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection
from aiortc.jitterbuffer import JitterBuffer
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from switchroom.realtime.settings import IceServer

log = logging.getLogger(__name__)

JITTER_FRAMES = 2
JITTER_CAPACITY = 16
_JITTER_ATTRIBUTE = "_RTCRtpReceiver__jitter_buffer"
_DECODER_QUEUE = "_RTCRtpReceiver__decoder_queue"
_DECODER_THREAD = "_RTCRtpReceiver__decoder_thread"
_LOOPBACK = "127.0.0.1"
_OPUS = re.compile(r"a=rtpmap:(\d+) opus/48000/2\r\n(?!a=fmtp:\1)")


class SilentTrack(MediaStreamTrack):
    """Stands for the audio that a `MediaPath` sends: a peer only offers to send what it has a track for."""

    kind = "audio"

    async def recv(self) -> Any:
        raise MediaStreamError


def asking_for_copies(sdp: str) -> str:
    """A description that lets the other side put copies of lost packets into its Opus (`useinbandfec`, RFC 7587)."""
    return _OPUS.sub(lambda line: f"{line[0]}a=fmtp:{line[1]} minptime=10;useinbandfec=1\r\n", sdp)


def new_peer(ice_servers: Sequence[IceServer] = ()) -> RTCPeerConnection:
    servers = [RTCIceServer(s.urls, username=s.username, credential=s.credential) for s in ice_servers]
    return RTCPeerConnection(RTCConfiguration(iceServers=servers))


def prepare(peer: RTCPeerConnection, *, loopback: bool) -> None:
    """To be called when the peer's transceivers and channel exist and before it sets its local description."""
    connections: dict[int, Connection] = {}
    for transceiver in peer.getTransceivers():
        shorten_jitter(transceiver.receiver)
        transport = transceiver.receiver.transport.transport
        connections[id(transport)] = transport.iceGatherer._connection
    if peer.sctp is not None:
        transport = peer.sctp.transport.transport
        connections[id(transport)] = transport.iceGatherer._connection
    for connection in connections.values():
        _offer_loopback(connection, always=loopback)


def shorten_jitter(receiver: Any) -> None:
    """Two frames instead of four: 42 ms one way instead of 81 on a clean path, with one frame to spare."""
    if not hasattr(receiver, _JITTER_ATTRIBUTE):
        log.warning("aiortc changed: its jitter buffer stays as it is")
        return
    setattr(receiver, _JITTER_ATTRIBUTE, JitterBuffer(capacity=JITTER_CAPACITY, prefetch=JITTER_FRAMES))


def _offer_loopback(connection: Connection, *, always: bool) -> None:
    gather: Any = connection.get_component_candidates

    async def with_loopback(component: int, addresses: list[str], **options: Any) -> list[Candidate]:
        if _LOOPBACK not in addresses and (always or not addresses):
            addresses = [*addresses, _LOOPBACK]
        candidates: list[Candidate] = await gather(component=component, addresses=addresses, **options)
        return candidates

    connection.__dict__["get_component_candidates"] = with_loopback  # this connection's own, not the class's


async def close_peer(peer: RTCPeerConnection, *, timeout_s: float = 3.0) -> None:
    """Close a connection, and its decoder threads without blocking the loop. Logs when it takes too long."""
    peer.remove_all_listeners()
    try:
        async with asyncio.timeout(timeout_s):
            for transceiver in peer.getTransceivers():
                inbox = getattr(transceiver.receiver, _DECODER_QUEUE, None)
                thread = getattr(transceiver.receiver, _DECODER_THREAD, None)
                if inbox is not None and thread is not None:
                    inbox.put(None)
                    await asyncio.to_thread(thread.join)
            await peer.close()
    except TimeoutError:
        log.warning("a peer connection did not close in time")
