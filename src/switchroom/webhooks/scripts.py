"""The server-side scripts of webhooks: the limits, the shared prelude, and one body each."""

from __future__ import annotations

from importlib import resources

from switchroom.store import Script

MOST_RUNNING = 16
"""Requests under way at once to one endpoint (or to one host of callbacks), from all processes together."""
MOST_OPEN = 500_000
"""Messages that wait for one endpoint, five for each call of a full queue; those beyond are dropped and counted."""
MOST_DONE = 1_000
MOST_FAILED = 10_000
KEEP_MS = 7 * 24 * 3_600_000
"""Finished deliveries are told of for so long, and so many of them an endpoint; those that failed, which somebody may
want to send again, are not crowded out by those that arrived."""
MOST_ENDPOINTS = 50

_LIMITS = (
    "local MOST_RUNNING, MOST_OPEN, MOST_DONE, MOST_FAILED, KEEP_MS, MOST_ENDPOINTS = "
    f"{MOST_RUNNING}, {MOST_OPEN}, {MOST_DONE}, {MOST_FAILED}, {KEEP_MS}, {MOST_ENDPOINTS}\n"
)
_FOLDER = resources.files("switchroom.webhooks") / "lua"


def _script(name: str) -> Script:
    return Script(_LIMITS + (_FOLDER / "prelude.lua").read_text() + (_FOLDER / f"{name}.lua").read_text())


SCHEDULE = _script("schedule")
CLAIM = _script("claim")
FINISH = _script("finish")
REDELIVER = _script("redeliver")
ENDPOINT = _script("endpoint")
