"""The queue: calls waiting and held."""

from switchroom.queue.answers import (
    Accepted,
    Changed,
    Detail,
    Figures,
    Finished,
    Holders,
    Idle,
    LeaseLost,
    Row,
    StaleRules,
    Statistics,
    Status,
    Waiting,
)
from switchroom.queue.feed import Feed
from switchroom.queue.model import MAX_TOKEN, Call, EndReason, Held, NewCall, QueueEvent, State, Token
from switchroom.queue.queue import CALLER_HUNG_UP, Queue
from switchroom.queue.rules import UNITY, Rules

__all__ = [
    "CALLER_HUNG_UP",
    "MAX_TOKEN",
    "UNITY",
    "Accepted",
    "Call",
    "Changed",
    "Detail",
    "EndReason",
    "Feed",
    "Figures",
    "Finished",
    "Held",
    "Holders",
    "Idle",
    "LeaseLost",
    "NewCall",
    "Queue",
    "QueueEvent",
    "Row",
    "Rules",
    "StaleRules",
    "State",
    "Statistics",
    "Status",
    "Token",
    "Waiting",
]
