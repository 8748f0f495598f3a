"""A button instead of voice detection: what is said while it is down is one utterance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class PushToTalk:
    """Reads a client's message `{"type": "talk", "active": true | false}`; a press that comes twice counts once."""

    def __init__(self, press: Callable[[], None], release: Callable[[], None]) -> None:
        self._press = press
        self._release = release
        self.down = False

    def message(self, event: dict[str, Any]) -> None:
        active = event.get("active")
        if event.get("type") != "talk" or not isinstance(active, bool) or active == self.down:
            return
        self.down = active
        (self._press if active else self._release)()
