"""What a run has done so far, so that it can go on in another process.

A run is walked again from its beginning: a step that is in the journal gives its result without being run, and the
session stands as the last step left it. So all that a run did is done once, but for the step that was under way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from switchroom.engine.events import Media
from switchroom.engine.paused import Entry
from switchroom.engine.session import Session

__all__ = ["Entry", "Journal", "WrittenJournal"]

_STEP, _NOTE = "s:", "n:"

_encode = msgspec.json.Encoder().encode
_entry = msgspec.json.Decoder(Entry).decode


class Journal:
    """Keeps nothing; a `WrittenJournal` does. `run_id` names the run in idempotency keys; `can_park`
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


class WrittenJournal(Journal, ABC):
    """Kept as fields of one hash, JSON each: a step's entry as `s:` and its key, a side effect's value as `n:` and its
    key, the session as `session`. Where they are written is the subclass's."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self._steps: dict[str, bytes] = {}
        self._notes: dict[str, bytes] = {}

    def done(self, key: str) -> Entry | None:
        kept = self._steps.get(key)
        return None if kept is None else _entry(kept)

    def inside(self, key: str) -> list[Entry]:
        within = (key + "/", key + "#", key + ">")
        found = [_entry(kept) for place, kept in self._steps.items() if place.startswith(within)]
        return sorted(found, key=lambda entry: entry.event.at_ms)

    async def commit(self, key: str, entry: Entry, session: Session) -> None:
        await self._keep(*self._step(key, entry, session))

    async def once(self, key: str, work: Callable[[], Awaitable[Any]]) -> Any:
        kept = self._notes.get(key)
        if kept is not None:
            return msgspec.json.decode(kept)
        value = await work()
        await self._keep(_NOTE + key, _encode(value))
        return value

    def _resume(self, fields: Mapping[str, bytes]) -> None:
        """An earlier process wrote these fields of the run."""
        self._steps = {name[2:]: value for name, value in fields.items() if name.startswith(_STEP)}
        self._notes = {name[2:]: value for name, value in fields.items() if name.startswith(_NOTE)}
        self.resumed = True

    @staticmethod
    def _step(key: str, entry: Entry, session: Session) -> tuple[str | bytes, ...]:
        """A finished step's fields, each name before its value."""
        return _STEP + key, _encode(entry), "session", _encode(session)

    @abstractmethod
    async def _keep(self, *fields: str | bytes) -> None:
        """Writes the fields, each name before its value, all or none. Raises RunLost where the run is another's now."""
