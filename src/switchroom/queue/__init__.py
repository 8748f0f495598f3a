"""The queue: calls waiting and held."""

from switchroom.queue.feed import Feed
from switchroom.queue.model import Call, EndReason, Held, NewCall, QueueEvent, State
from switchroom.queue.queue import Accepted, Detail, LeaseLost, Queue, Row, Rules, StaleRules, Status, Waiting

__all__ = [
    "Accepted",
    "Call",
    "Detail",
    "EndReason",
    "Feed",
    "Held",
    "LeaseLost",
    "NewCall",
    "Queue",
    "QueueEvent",
    "Row",
    "Rules",
    "StaleRules",
    "State",
    "Status",
    "Waiting",
]
