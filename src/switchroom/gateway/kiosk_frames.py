"""The frames of a kiosk's socket, JSON texts with a `type`: what it says, and what it is told."""

from __future__ import annotations

from typing import Any

import msgspec

from switchroom.queue import Token as FencingToken

__all__ = ["FROM_KIOSK", "TO_KIOSK", "FromKiosk", "ToKiosk"]


class HeldCall(msgspec.Struct, rename="camel"):
    """A call that the kiosk held before its connection was lost. `turn` is the last one whose `turnEnd` it got, 0 for
    none: an answer that ended since is told again. A turn that was under way is answered anyway."""

    task_id: str
    token: FencingToken
    turn: int | None = None


class Hello(msgspec.Struct, rename="camel", tag="hello"):
    """The first frame. `capacity`: calls at once; `held`: calls to go on with; `paused`: it is offered nothing yet;
    `pause_after`: so many offers in a row without an answer pause it (0: never)."""

    client_id: str
    skills: list[str] = []
    capacity: int = 1
    held: list[HeldCall] = []
    paused: bool = False
    pause_after: int = 0


class Accept(msgspec.Struct, rename="camel", tag="accept"):
    """Takes an offered call."""

    task_id: str


class Refuse(msgspec.Struct, rename="camel", tag="refuse"):
    """Gives an offered call back: another kiosk may have it."""

    task_id: str
    reason: str = ""


class Pause(msgspec.Struct, rename="camel", tag="pause"):
    """A break: no offers until `resume`. Live calls, and an offer that is out, stay the kiosk's."""

    reason: str = ""


class Resume(msgspec.Struct, rename="camel", tag="resume"):
    """The break is over."""


class Ping(msgspec.Struct, rename="camel", tag="ping"):
    """Every 5 s: the callers are still there."""


class Question(msgspec.Struct, rename="camel", tag="question"):
    """What the caller said. While an answer still runs it interrupts it; `heard` is what the caller heard of that."""

    text: str
    task_id: str | None = None
    heard: str | None = None


class Complete(msgspec.Struct, rename="camel", tag="complete"):
    """Ends a call that the kiosk holds."""

    task_id: str
    outcome: str = ""
    result: Any = None


class Ready(msgspec.Struct, rename="camel", tag="ready", kw_only=True):
    """The answer to `hello`. Without a ping for `lease_seconds` the calls go to others."""

    client_id: str
    capacity: int
    ping_every_seconds: int
    lease_seconds: int


class Paused(msgspec.Struct, rename="camel", tag="paused"):
    """The kiosk is offered nothing until it says `resume`; `reason` is its own, or `no_answer` (see `pauseAfter`)."""

    reason: str = ""


class Resumed(msgspec.Struct, rename="camel", tag="resumed"):
    """The kiosk is offered calls again."""


class SessionContext(msgspec.Struct, rename="camel"):
    session_id: str


class Offer(msgspec.Struct, rename="camel", tag="offer", kw_only=True):
    """A call to accept or refuse before `deadline` (RFC 3339). `token` fences it: kept for `held` and a completion over
    HTTP. `state` is the caller's state over the flow's own."""

    task_id: str
    flow_id: str
    caller_id: str = msgspec.field(name="ID")
    token: int
    attempt: int
    form: dict[str, Any]
    state: dict[str, Any]
    session_context: SessionContext
    priority: int
    deadline: str | None


class State(msgspec.Struct, rename="camel", tag="state", kw_only=True, omit_defaults=True):
    """A call came to another state; `end_reason` with the end."""

    task_id: str
    state: str
    end_reason: str = ""
    detail: str = ""


class Lost(msgspec.Struct, rename="camel", tag="lost", kw_only=True, omit_defaults=True):
    """The kiosk does not hold this call (any more)."""

    task_id: str
    state: str = ""
    reason: str = ""


class Token(msgspec.Struct, rename="camel", tag="token", kw_only=True):
    """A piece of a turn, cut anywhere: a turn's pieces assemble to `{"text", "tool_calls", "error"}`."""

    task_id: str
    turn: int
    data: str


class TurnEnd(msgspec.Struct, rename="camel", tag="turnEnd", kw_only=True):
    """A turn is over, with its last piece: `reply` and the engine's other outcomes, `failed`, `interrupted`."""

    task_id: str
    turn: int
    outcome: str
    active_agent_id: str | msgspec.UnsetType | None = msgspec.UNSET


class Pong(msgspec.Struct, tag="pong"):
    """The answer to a ping, with our time (RFC 3339)."""

    at: str | None


class Problem(msgspec.Struct, rename="camel", tag="error", kw_only=True, omit_defaults=True):
    """A frame that was wrong, or could not be done; the next one is read."""

    code: str
    detail: str
    task_id: str | None = None


FromKiosk = Hello | Accept | Refuse | Pause | Resume | Ping | Question | Complete
ToKiosk = Ready | Offer | State | Lost | Paused | Resumed | Token | TurnEnd | Pong | Problem
FROM_KIOSK = (Hello, Accept, Refuse, Pause, Resume, Ping, Question, Complete)
TO_KIOSK = (Ready, Offer, State, Lost, Paused, Resumed, Token, TurnEnd, Pong, Problem)
