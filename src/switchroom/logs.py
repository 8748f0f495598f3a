"""Structured logs on standard error: text for people or JSON lines, with the correlation ID of the request."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from switchroom.http_problems import correlation_id

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def set_up(level: str, form: str, *, pii: bool, role: str) -> None:
    """Configures the root logger of this process. Extra keys that begin with `pii_` are left out unless `pii`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json(pii, role) if form == "json" else _Text(pii, role))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # These tell each packet and each request; what matters of them is in our own lines.
    for noisy in ("aiohttp.access", "aioice", "aiortc", "asyncio"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLogger().level))


class _Base(logging.Formatter):
    def __init__(self, pii: bool, role: str) -> None:
        super().__init__()
        self._pii = pii
        self._role = role

    def members(self, record: logging.LogRecord) -> dict[str, Any]:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line: dict[str, Any] = {
            "at": at,
            "level": record.levelname.lower(),
            "role": self._role,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if cid := correlation_id.get():
            line["correlation_id"] = cid
        for name, value in vars(record).items():
            if name not in _OWN and (self._pii or not name.startswith("pii_")):
                line[name] = value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return line


class _Json(_Base):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(self.members(record), default=str, ensure_ascii=False)


class _Text(_Base):
    def format(self, record: logging.LogRecord) -> str:
        line = self.members(record)
        exception = line.pop("exception", None)
        head = f"{line.pop('at')} {line.pop('level'):<7} {line.pop('role')}: {line.pop('message')}"
        line.pop("logger")
        rest = " ".join(f"{name}={value}" for name, value in line.items())
        text = f"{head}  {rest}".rstrip()
        return f"{text}\n{exception}" if exception else text
