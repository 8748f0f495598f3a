"""The values of webhooks: an endpoint with its secrets, a message for it, and what became of the message."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, NamedTuple, get_args

import msgspec

MessageType = Literal["call.scheduled", "call.pending", "call.offered", "call.live", "call.wrapup", "call.ended"]
TYPES: tuple[str, ...] = get_args(MessageType)
"""What a message can tell: the state that a call came to."""

CALLBACK = "callback"
"""The endpoint of a flow that stands for the `callbackUrl`s of its calls: it has no URL of its own, but the secret."""


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """A signing secret as it is stored (sealed where a key is set). `until_ms` 0 is the present one; an old one signs
    along until then (Unix milliseconds)."""

    value: bytes
    until_ms: int = 0


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where messages of a flow go. `types` empty means all; `secrets` has the present one first."""

    id: str
    url: str
    types: tuple[str, ...] = ()
    description: str = ""
    enabled: bool = True
    disabled_reason: str = ""
    """`gone` (it answered 410) or `asked`; empty while enabled."""
    secrets: tuple[Secret, ...]
    created_ms: int
    updated_ms: int

    def wants(self, kind: str) -> bool:
        return self.enabled and (not self.types or kind in self.types)


class Message(NamedTuple):
    """One message for one endpoint. `id` is made from the event and the endpoint: the same event gives the same one."""

    id: str
    endpoint_id: str
    url: str
    """Of a callback; an endpoint's is read when the message is sent, so that a mended URL counts at once."""
    task_id: str
    type: str
    body: bytes


class Outcome(StrEnum):
    """Where a delivery stands. `waiting` covers the first try and every retry to come."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One try: when (Unix ms), how long (ms), the status of the answer (0: none came), and one word for what went wrong
    (`status`, `sender_lost`, `secret_unreadable`, `endpoint_disabled`, `endpoint_deleted`, or `OutboundError.cause`).
    `answer` holds the first kilobyte of a refusal."""

    at_ms: int = msgspec.field(name="a")
    took_ms: int = msgspec.field(name="m", default=0)
    status: int = msgspec.field(name="s", default=0)
    error: str = msgspec.field(name="e", default="")
    answer: str = msgspec.field(name="b", default="")


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A message on its way, or what became of it. Times are Unix milliseconds, 0 where it has not happened."""

    id: str
    flow_id: str
    endpoint_id: str
    url: str
    task_id: str
    type: str
    body: bytes
    outcome: Outcome
    tries: int
    """Tries since it was made or last redelivered; the schedule goes by it."""
    created_ms: int
    next_at_ms: int
    """When it is tried again; 0 while it is under way, waits for an earlier message of its call, or is over."""
    ended_ms: int
    attempts: list[Attempt]
    token: int
    """Grows with each claim: a failure that a sender reports with an older one does not count."""
