"""The WebRTC leg on the server's side: an SDP offer in, an answer out, Opus both ways, a data channel for events.

The client opens the data channel (label `events`). On it, JSON texts: to the client `state`, `transcript`, `turn`,
`ended`, `ping`, `pong`; from the client `ping` (answered by `pong`), `pong`, `dtmf` (`digits`) and what the
conversation takes. A leg on which neither audio nor a message came for `dead_peer_s` is dead, whatever the library
says: its own consent check takes half a minute. Keys may also come as RFC 4733 has them (a browser's `RTCDTMFSender`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Any, Literal

from aiortc import RTCDataChannel, RTCPeerConnection, RTCSessionDescription

from switchroom.errors import BadInput, PreconditionFailed, TimedOut, Unprocessable
from switchroom.realtime import opus
from switchroom.realtime.audio import SILENCE, Samples
from switchroom.realtime.media_path import MediaPath
from switchroom.realtime.peer import SilentTrack, asking_for_copies, close_peer, new_peer, prepare
from switchroom.realtime.playout import Playout
from switchroom.realtime.settings import MediaSettings
from switchroom.realtime.telephone_event import answered
from switchroom.realtime.trickle import MAX_CANDIDATES, Fragment, ice_tag, read_fragment
from switchroom.realtime.turn import usable
from switchroom.realtime.voice import DTMF_KEYS, Listener

log = logging.getLogger(__name__)

_PING_S = 1.0
_GATHER_S = 8.0
_CHANNEL_LIMIT = 256 * 1024
_EARLY_EVENTS = 200
_DIGITS = 64
"""Keys that one message may press."""


class WebRtcLeg:
    """One peer. `answer` first, then `start`; `close` always.

    `channel` is the label of the client's data channel. With `on_text` another protocol is spoken on it: messages go
    there as they are, and nothing of ours is sent but `send_text`.
    """

    def __init__(
        self, settings: MediaSettings, *, channel: str = "events", on_text: Callable[[str | bytes], None] | None = None
    ) -> None:
        self._settings = settings
        self._label = channel
        self._on_text = on_text
        self._peer: RTCPeerConnection = new_peer(usable(settings.ice_servers, "media"))
        self._tag = ""
        self._offered_tag = ""
        self._candidates = 0
        self._playout: Playout | None = None
        self._listener: Listener | None = None
        self._channel: RTCDataChannel | None = None
        self._early: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._adding = asyncio.Lock()
        self._sign_of_life = time.monotonic()
        self.connected = asyncio.Event()
        self.gone = asyncio.Event()
        self.gone_cause: Literal["", "hung_up", "dead", "failed"] = ""
        self.events_dropped = 0
        self.frames_received = 0
        self.path = MediaPath(self._pull, self._hear, self._pressed)

        self._peer.on("datachannel", self._on_channel)
        self._peer.on("connectionstatechange", self._on_state)

    async def answer(self, offer_sdp: str) -> str:
        """The answer to an offer. Raises `BadInput` for an SDP that we cannot answer, `TimedOut` when our own
        addresses cannot be gathered (a STUN or TURN server that does not answer), `Unavailable` without libopus."""
        await asyncio.to_thread(opus.load)
        try:
            await self._peer.setRemoteDescription(RTCSessionDescription(sdp=offer_sdp, type="offer"))
        except Exception as error:  # the parser raises what it happens to meet
            raise BadInput(f"the SDP offer cannot be read: {type(error).__name__}", code="bad_sdp") from error
        audio = [t for t in self._peer.getTransceivers() if t.kind == "audio"]
        if not audio:
            raise BadInput("the SDP offer has no audio", code="bad_sdp")
        if "a=fingerprint:" not in offer_sdp:  # aiortc would notice after it has answered
            raise BadInput("the SDP offer has no a=fingerprint: its audio could not be encrypted", code="bad_sdp")
        self._peer.addTrack(SilentTrack())
        self.path.attach(self._peer)
        try:
            answer = await self._peer.createAnswer()
            prepare(self._peer, loopback=self._settings.media_loopback)
            async with asyncio.timeout(_GATHER_S):
                await self._peer.setLocalDescription(answer)
        except TimeoutError:
            raise TimedOut("gathering our network addresses took too long") from None
        except Exception as error:
            raise BadInput(f"the SDP offer cannot be answered: {type(error).__name__}", code="bad_sdp") from error
        self._spawn(self._watch(), "leg-watch")
        sdp = str(self._peer.localDescription.sdp)
        self._tag, self._offered_tag = ice_tag(sdp), ice_tag(offer_sdp)
        sdp, self.path.key_types = answered(asking_for_copies(sdp), offer_sdp)
        return sdp

    def trickle(self, fragment: str, tag: str) -> None:
        """Take addresses that the caller found after its offer. `tag`: the answer's ICE session, "" for whichever.

        Raises `PreconditionFailed` for another session's, `Unprocessable` for a restart of ICE (a new leg is offered
        instead), `BadInput` for what is no fragment.
        """
        if tag not in ("", self._tag):
            raise PreconditionFailed("this call's ICE session is another one", code="wrong_ice_session")
        given = read_fragment(fragment)
        if given.ufrag not in ("", self._offered_tag):
            raise Unprocessable("ICE is not restarted: offer a new leg for the same call", code="no_ice_restart")
        self._candidates += len(given.candidates)
        if self._candidates > MAX_CANDIDATES:
            raise BadInput(f"more than {MAX_CANDIDATES} candidates", code="bad_sdpfrag")
        self._spawn(self._add(given), "leg-trickle")

    async def _add(self, given: Fragment) -> None:
        async with self._adding:
            for candidate in given.candidates:
                try:
                    async with asyncio.timeout(_GATHER_S):  # a name of mDNS may have to be looked up
                        await self._peer.addIceCandidate(candidate)
                except (TimeoutError, ValueError, OSError) as error:
                    log.info("a caller's address is of no use", extra={"cause": type(error).__name__})
            if given.complete:
                await self._peer.addIceCandidate(None)

    def start(self, playout: Playout, listener: Listener) -> None:
        playout.confirm_all()  # what the leg before this one sent was heard, for all that we know
        self._playout = playout
        self._listener = listener

    def detach(self) -> None:
        self._playout = None
        self._listener = None

    def send_event(self, event: dict[str, Any]) -> None:
        if self._on_text is None:
            self.send_text(json.dumps(event, separators=(",", ":")))

    def send_text(self, text: str) -> None:
        """Send on the data channel, in order; before it is open, at most 200 messages wait."""
        channel = self._channel
        if channel is None:
            # Before the client's channel is up; afterwards it gets what happened, in order.
            if len(self._early) < _EARLY_EVENTS:
                self._early.append(text)
            else:
                self.events_dropped += 1
            return
        self._send(channel, text)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        current = asyncio.current_task()
        others = [task for task in self._tasks if task is not current]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await close_peer(self._peer)
        self.path.close()
        self._leave("hung_up")

    def _pull(self) -> Samples:
        return self._playout.next_frame() if self._playout is not None else SILENCE

    def _send(self, channel: RTCDataChannel, text: str) -> None:
        if channel.readyState != "open" or channel.bufferedAmount > _CHANNEL_LIMIT:
            self.events_dropped += 1
            return
        channel.send(text)

    def _spawn(self, coroutine: Any, name: str) -> None:
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _leave(self, cause: Literal["hung_up", "dead", "failed"]) -> None:
        if not self.gone.is_set():
            self.gone_cause = cause
            self.gone.set()

    def _on_state(self) -> None:
        state = self._peer.connectionState
        if state == "connected":
            self._sign_of_life = time.monotonic()
            self.connected.set()
        elif state == "closed":
            self._leave("hung_up")
        elif state == "failed":
            self._leave("dead" if self.connected.is_set() else "failed")

    def _hear(self, frame: Samples) -> None:
        self.frames_received += 1
        if self._listener is not None:
            self._listener.on_frame(frame)

    def _pressed(self, key: str) -> None:
        if self._listener is not None:
            self._listener.on_dtmf(key)

    def _on_channel(self, channel: RTCDataChannel) -> None:
        if channel.label != self._label or self._channel is not None:
            return
        self._channel = channel
        channel.on("message", self._on_message)
        for text in self._early:
            self._send(channel, text)
        self._early.clear()

    def _on_message(self, message: str | bytes) -> None:
        self._sign_of_life = time.monotonic()
        if len(message) > 65_536:
            self.events_dropped += 1
            return
        if self._on_text is not None:
            self._on_text(message)
            return
        try:
            event = json.loads(message)
        except (ValueError, RecursionError):  # an error in here would take the whole connection down
            event = None
        if not isinstance(event, dict):
            self.events_dropped += 1
            return
        match event.get("type"):
            case "ping" if self._channel is not None:
                self._send(self._channel, json.dumps({"type": "pong", "id": event.get("id")}))
            case "ping" | "pong":
                pass
            case "dtmf":
                digits = event.get("digits")
                for digit in digits[:_DIGITS] if isinstance(digits, str) else "":
                    if digit.upper() in DTMF_KEYS:
                        self._pressed(digit.upper())
            case _ if self._listener is not None:
                self._listener.on_message(event)

    async def _watch(self) -> None:
        """Our own eye on the peer: connect deadline, pings, silence."""
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                await self.connected.wait()
        except TimeoutError:
            self._leave("failed")
            return
        self._sign_of_life = time.monotonic()
        last_ping = 0.0
        while not self.gone.is_set():
            now = time.monotonic()
            if now - max(self._sign_of_life, self.path.last_packet_s) > self._settings.dead_peer_s:
                self._leave("dead")
                return
            if self._channel is not None and self._on_text is None and now - last_ping >= _PING_S:
                last_ping = now
                self._send(self._channel, '{"type":"ping"}')
            await asyncio.sleep(0.25)
