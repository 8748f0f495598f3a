"""What a key may do: a closed set, one word for reading and one for changing each thing."""

from __future__ import annotations

from enum import StrEnum


class Scope(StrEnum):
    QUEUE_READ = "queue:read"
    QUEUE_WRITE = "queue:write"
    CALLS = "calls"
    """Join a call's media and hang it up."""
    LISTEN = "calls:listen"
    """Hear live calls, and see who is at them."""
    OPERATE = "calls:operate"
    """Whisper to the agent of a live call, take it over, give it back, transfer it."""
    RUN = "run"
    """Run a flow by text (prediction)."""
    FLOWS_READ = "flows:read"
    FLOWS_WRITE = "flows:write"
    RECORDS_READ = "records:read"
    RECORDS_WRITE = "records:write"
    KNOWLEDGE_READ = "knowledge:read"
    KNOWLEDGE_WRITE = "knowledge:write"
    METRICS_READ = "metrics:read"
    KEYS = "keys"
    """Make, list and revoke API keys: whoever has it has everything."""
    ALL = "*"


ALL_SCOPES = frozenset({Scope.ALL})
