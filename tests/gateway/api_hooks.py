"""What Schemathesis cannot know by itself: NDJSON, and calls that are really in the queue (`FUZZ_TASKS`)."""

from __future__ import annotations

import json
import os
import random
from typing import Any

import schemathesis

_TASKS = os.environ.get("FUZZ_TASKS", "").split()


@schemathesis.serializer("application/x-ndjson")
def lines(_: Any, value: Any) -> bytes:
    rows = value if isinstance(value, list) else [value]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def _known(given: Any) -> Any:
    """In four of five cases a call that exists, the same one for the same draw."""
    chance = random.Random(repr(given))
    if _TASKS and isinstance(given, dict) and "taskId" in given and chance.random() < 0.8:
        return {**given, "taskId": chance.choice(_TASKS)}
    return given


@schemathesis.hook
def map_body(_: Any, body: Any) -> Any:
    return _known(body)


@schemathesis.hook
def map_query(_: Any, query: Any) -> Any:
    return _known(query)
