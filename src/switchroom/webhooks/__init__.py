"""Webhooks: what an outbox tells becomes signed messages, sent with retries, and a log of them."""

from switchroom.webhooks.deliveries import Deliveries, message_id
from switchroom.webhooks.endpoints import Endpoints
from switchroom.webhooks.model import CALLBACK, TYPES, Attempt, Delivery, Endpoint, Message, MessageType, Outcome
from switchroom.webhooks.sender import Sender, SenderSettings
from switchroom.webhooks.webhooks import Webhooks

__all__ = [
    "CALLBACK",
    "TYPES",
    "Attempt",
    "Deliveries",
    "Delivery",
    "Endpoint",
    "Endpoints",
    "Message",
    "MessageType",
    "Outcome",
    "Sender",
    "SenderSettings",
    "Webhooks",
    "message_id",
]
