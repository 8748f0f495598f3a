"""What a call brings along when it is handed to somebody outside: a Unity client at its `ccBaseUrl`, or a kiosk."""

from __future__ import annotations

import uuid
from collections import deque
from typing import Any

from switchroom.compact import CompactGraph
from switchroom.queue import Call, Held

UNITY_OWNER = "unity"
"""Who holds the calls that are offered at their `ccBaseUrl`: the clients there, whichever process of ours offers."""
KIOSK_PREFIX = "kiosk:"
PING_EVERY_S = 5
LEASE_MS = 60_000
"""A call whose pings stop for so long is taken back (the contract's execution timeout)."""

_CONTEXTS = uuid.UUID("0f2f5a6e-8d0e-4f1c-9a37-0d1f7b8f3c11")


def context_id(call: Call) -> str:
    """The session context of one attempt of a call: a UUID that every process of ours makes alike."""
    return str(uuid.uuid5(_CONTEXTS, f"{call.flow_id}/{call.task_id}/{call.attempt}"))


def handed_state(call: Call, graph: CompactGraph | None) -> dict[str, Any]:
    """The state that the flow gets on dispatch: the call's own, and `active_agent_id` (the Agent that speaks first) and
    `current_media_prompts` (nothing is shown yet) where the call does not set them."""
    first = first_agent(graph) if graph is not None else None
    return {"active_agent_id": first, "current_media_prompts": [], **call.memory}


def first_agent(graph: CompactGraph) -> str | None:
    """The Agent that is nearest to the Start node."""
    found = deque(node.id for node in graph.starts)
    seen = set(found)
    while found:
        node = graph.by_id.get(found.popleft())
        if node is None:
            continue
        if node.kind == "agent":
            return node.id
        for _, _, target in graph.ways_on.get(node.id, ()):
            if target not in seen:
                seen.add(target)
                found.append(target)
    return None


def hold_by_token(call: Call, owner: str, token: int, lease_ms: int = LEASE_MS) -> Held:
    """The hold that a client outside speaks of. Whether it still stands is for the queue's script to say."""
    return Held(call=call, owner=owner, attempt=call.attempt, token=token, lease_ms=lease_ms)
