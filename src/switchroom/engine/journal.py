"""What a run has done so far, so that it can go on in another process.

A run is walked again from its beginning: a step that is in the journal gives its result without being run, and the
session stands as the last step left it. So all that a run did is done once, but for the step that was under way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from switchroom.engine.events import Media
from switchroom.engine.paused import Entry
from switchroom.engine.session import Session

__all__ = ["Entry", "Journal"]


class Journal:
    """Keeps nothing; `Kept` (runs.py) keeps it in the store. `run_id` names the run in idempotency keys; `can_park`
    says that a run can wait for a time without a process."""

    can_park = False

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.resumed = False
        """The session is that of a run under way: the turn has begun already."""

    async def begin(self, session: Session) -> None:
        """The turn is prepared, no node has run."""

    def done(self, key: str) -> Entry | None:
        """The step's entry, if it finished in an earlier process."""
        return None

    def inside(self, key: str) -> list[Entry]:
        """The entries of the steps inside of a finished one, in the order in which they finished."""
        return []

    async def commit(self, key: str, entry: Entry, session: Session) -> None:
        """The step is finished: its entry and the session as it is now, in one write. Raises RunLost."""

    async def once(self, key: str, work: Callable[[], Awaitable[Any]]) -> Any:
        """A side effect's JSON value, from the journal if it was had before. Raises RunLost."""
        return await work()

    async def keep_media(self, session: Session, media: list[Media]) -> None:
        """What came with the session's last message, for later turns."""

    async def recall(self, session_id: str, names: list[str]) -> list[Media]:
        """What came with earlier messages, where it is still there."""
        return []

    def park(self, until_ms: int) -> None:
        """The run is to go on at this Unix time; told once the turn has ended (only where `can_park`)."""
