"""The two seams of a live call: how audio comes and goes (`Transport`), and who talks (`VoiceEngine`).

No event name of any wire protocol passes through here: a transport or an engine for another protocol is one more
file, and neither the call, the flow engine nor a record notices.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal, Protocol

import msgspec

from switchroom.engine.events import NodeFinished, TurnInput
from switchroom.engine.session import Session
from switchroom.realtime.audio import Samples
from switchroom.realtime.playout import Playout
from switchroom.records.model import TurnTiming, Word


class CallerSpeaking(msgspec.Struct, frozen=True, kw_only=True):
    """The caller began or stopped to speak, as voice detection sees it."""

    active: bool


class AgentSpeaking(msgspec.Struct, frozen=True, kw_only=True):
    """The agent's voice began to leave or has ended."""

    active: bool


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """Words of the transcript. Not `final`: a guess that a later one with the same `start_ms` replaces.

    For the agent, `text` is what was played out, cut where the caller interrupted. Times are milliseconds from
    the moment the call went live.
    """

    role: Literal["caller", "agent", "operator"]
    text: str
    final: bool
    start_ms: int
    end_ms: int
    interrupted: bool = False
    words: tuple[Word, ...] = ()
    """Each with its times, where the recogniser tells them apart."""


class TurnDone(msgspec.Struct, frozen=True, kw_only=True):
    """A turn's latencies are known."""

    timing: TurnTiming


class NodeDone(msgspec.Struct, frozen=True, kw_only=True):
    """A node of the flow was run."""

    node: NodeFinished


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What another attempt needs to go on: the conversation before the turn of `given`, or as it stands (None)."""

    session: Session
    given: TurnInput | None


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """What the call has cost so far, as its voice service counts it: the whole, which replaces what came before."""

    usage: dict[str, Any]


class Concluded(msgspec.Struct, frozen=True, kw_only=True):
    """The engine has nothing more to say: the call is to end. `failed` carries the true cause in `detail`."""

    cause: Literal["finished", "silence", "too_long", "voicemail", "failed"]
    detail: str = ""


VoiceEvent = CallerSpeaking | AgentSpeaking | Said | TurnDone | NodeDone | Kept | Used | Concluded
Emit = Callable[[VoiceEvent], None]
"""Takes an event of the engine; must not block and not raise."""


class VoiceEngine(Protocol):
    """Holds one conversation: hears the caller, speaks through a `Playout`."""

    def hear(self, frame: Samples) -> None:
        """One 20 ms frame of the caller, 48 kHz mono. Called on the loop, must not block."""
        ...

    def dtmf(self, digit: str) -> None:
        """The caller pressed a key: one of `0123456789*#ABCD`. Called on the loop, must not block."""
        ...

    def message(self, message: dict[str, Any]) -> None:
        """The caller's client says something about the talk on its side channel. Called on the loop, must not block."""
        ...

    async def run(self, playout: Playout, emit: Emit) -> Concluded:
        """Talk until there is nothing more to say. Cancelling it ends the conversation at once."""
        ...

    def pause(self) -> None:
        """The leg is lost: stop talking and stop counting silence."""
        ...

    def resume(self) -> None:
        """The caller is back."""
        ...

    def leave(self) -> None:
        """The call ends now: settle what was heard of the running utterance, emit it, say no more."""
        ...


class Listener(Protocol):
    """What a leg hands on. All are called on the loop and must not block."""

    def on_frame(self, frame: Samples) -> None:
        """20 ms of the caller, 48 kHz mono."""
        ...

    def on_dtmf(self, digit: str) -> None:
        """The caller pressed a key: one of `0123456789*#ABCD`."""
        ...

    def on_message(self, message: dict[str, Any]) -> None:
        """The caller's client sent an event that is not the transport's own."""
        ...


DTMF_KEYS = frozenset("0123456789*#ABCD")


class Transport(Protocol):
    """One leg: a caller's audio both ways, and a side channel for events.

    It pulls one frame from the playout every 20 ms. One behind which audio waits once more sets
    `Playout.confirmed_by_leg` and `on_clear` in `start`, and calls `Playout.confirm`.
    """

    connected: asyncio.Event
    """Set once media can flow."""
    gone: asyncio.Event
    """Set when the peer left or died; `gone_cause` says how."""
    gone_cause: Literal["", "hung_up", "dead", "failed"]

    def start(self, playout: Playout, listener: Listener) -> None:
        """Play from `playout` from now on; hand what the caller does to `listener`."""
        ...

    def detach(self) -> None:
        """Play silence and hand on nothing from now on: another leg has taken over."""
        ...

    def send_event(self, event: dict[str, Any]) -> None:
        """Tell the caller's client. Best effort: a full or missing channel drops and counts it."""
        ...

    async def close(self) -> None:
        """Free everything. Idempotent."""
        ...
