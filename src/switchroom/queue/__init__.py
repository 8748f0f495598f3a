"""The queue: calls waiting and held."""

from switchroom.queue.answers import (
    Accepted,
    Detail,
    Figures,
    Finished,
    LeaseLost,
    Row,
    StaleRules,
    Statistics,
    Status,
    Waiting,
)
from switchroom.queue.feed import Feed
from switchroom.queue.model import Call, EndReason, Held, NewCall, QueueEvent, State
from switchroom.queue.queue import CALLER_HUNG_UP, Queue
from switchroom.queue.rules import UNITY, Rules

__all__ = [
    "CALLER_HUNG_UP",
    "UNITY",
    "Accepted",
    "Call",
    "Detail",
    "EndReason",
    "Feed",
    "Figures",
    "Finished",
    "Held",
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
    "Waiting",
]
