"""What Schemathesis cannot know by itself: NDJSON, and calls that are really in the queue (`FUZZ_CALLS`: `task` or, for
one that is held, `task:token`)."""

from __future__ import annotations

import json
import os
import random
from typing import Any

import schemathesis

_CALLS = [word.partition(":") for word in os.environ.get("FUZZ_CALLS", "").split()]


@schemathesis.serializer("application/x-ndjson")
def lines(_: Any, value: Any) -> bytes:
    rows = value if isinstance(value, list) else [value]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def _known(given: Any) -> Any:
    """In four of five cases a call that exists, and its token; the same one for the same draw."""
    chance = random.Random(repr(given))
    if not (_CALLS and isinstance(given, dict) and "taskId" in given and chance.random() < 0.8):
        return given
    task, _, token = chance.choice(_CALLS)
    more = {"token": int(token)} if token and "token" in given else {}
    return {**given, "taskId": task, **more}


@schemathesis.hook
def map_body(_: Any, body: Any) -> Any:
    return _known(body)


@schemathesis.hook
def map_query(_: Any, query: Any) -> Any:
    if isinstance(query, dict) and isinstance(query.get("wait"), int) and query["wait"] > 0:
        query = {**query, "wait": min(query["wait"], 1)}  # it would only wait longer
    return _known(query)
