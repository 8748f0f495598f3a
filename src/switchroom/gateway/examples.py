"""Requests that work as they stand, for the API document and its page, by operation ID. They are about the flow
`support-line` (`examples/support-line.json`, which the README imports first); a test sends each of them."""

from __future__ import annotations

from typing import Any

__all__ = ["BODIES", "PARAMETERS"]

PARAMETERS = {"flowId": "support-line", "collection": "handbook"}
"""By the names of path parameters."""

_CANVAS = {
    "nodes": [
        {"id": "start", "data": {"name": "startAgentflow", "inputs": {"startInputType": "chatInput"}}},
        {
            "id": "reply",
            "data": {"name": "directReplyAgentflow", "inputs": {"directReplyMessage": "You said: {{ question }}"}},
        },
    ],
    "edges": [{"source": "start", "target": "reply"}],
}

BODIES: dict[str, dict[str, Any]] = {
    "chatflows_create_flow": {
        "flow": {"id": "echo", "name": "Echo", "flowData": _CANVAS},
        "settings": {
            "id": "echo-in-public",
            "flowData": _CANVAS,
            "settings": {"chat": {"public": True, "rateLimit": {"limit": 30, "windowS": 60}}},
        },
    },
    "chatflows_update_flow": {"name": {"name": "Support line"}},
    "compact_compact": {"stored": {"flowId": "support-line"}, "canvas": {"flowData": _CANVAS}},
    "palette_try_function": {"function": {"javascriptFunction": "return 1 + 1"}},
    "prediction_predict": {
        "question": {"question": "I have a question about my invoice."},
        "conversation": {
            "question": "My order number is 4172.",
            "sessionId": "customer-123",
            "overrideConfig": {"tenantVariables": {"city": "Bled"}},
        },
        "stream": {"question": "I have a question about my invoice.", "streaming": True},
        "form": {"form": {"ticket": "T-1042"}},
        "upload": {
            "question": "What does it say?",
            "uploads": [{"name": "note.txt", "type": "file:full", "data": "The invoice is 7 days late."}],
        },
    },
    "queue_enqueue": {
        "call": {"form": {"ID": "+38641656457", "question": "Hey, how are you?"}},
        "context": {
            "form": {"ID": "customer-123", "ticket": "T-1042"},
            "state": {"crm": {"tier": "gold"}},
            "priority": 5,
            "notBefore": "2030-01-02T09:00:00+01:00",
        },
    },
    "queue_toggle": {"pause": {"enabled": False}, "open": {"enabled": True}},
    "knowledge_put_documents": {
        "documents": [{"key": "refunds", "title": "Refunds", "text": "A refund takes five working days."}],
    },
    "chat_clients_add_lead": {"lead": {"chatflowid": "support-line", "name": "Ana", "email": "ana@example.com"}},
}
"""Name of the example -> body."""
