"""What a turn has done: kept in the journal as it goes, handed to the session where the turn pauses, and had again
when the run goes on.

A paused run is walked again from where it began. Its finished steps give their results in silence: who listens has
heard them. Steps that the journal alone knows were run by a process that died; these are told again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from switchroom.engine.events import Media
from switchroom.engine.journal import Journal
from switchroom.engine.paused import Entry, Paused
from switchroom.engine.session import Session

__all__ = ["Replay"]


class Replay:
    """One turn's. `run_id` names the run in idempotency keys and stays the same over its pauses."""

    def __init__(self, journal: Journal, session: Session, paused: Paused | None) -> None:
        self.run_id = paused.run_id if paused else journal.run_id
        self.can_park = journal.can_park
        self.recall = journal.recall
        self._journal = journal
        self._session = session
        self._positions = list(paused.positions) if paused else []
        self._loops = dict(session.loops)
        self._before = dict(paused.steps) if paused else {}
        self._already = dict(paused.spoken) if paused else {}
        self._notes: dict[str, Any] = dict(paused.notes) if paused else {}
        self._steps: dict[str, Entry] = dict(self._before)
        self._spoken: dict[str, list[str]] = {}
        self._inside: dict[str, list[str]] = {}
        self._parents: set[str] = set()

    def begin(self, positions: list[str]) -> None:
        self._positions = list(positions)

    def done(self, key: str, parent: str) -> tuple[Entry, bool] | None:
        """A step that finished earlier, and whether it is to be told again."""
        entry = self._before.get(key)
        told = entry is None
        entry = entry or self._journal.done(key)
        if entry is None:
            return None
        self._settle(key, parent, entry)
        return entry, told

    def inside(self, key: str) -> list[Entry]:
        """What finished inside of a step that an earlier process ran."""
        return self._journal.inside(key)

    async def commit(self, key: str, parent: str, entry: Entry) -> None:
        """Keeps a finished step; what was said in it is added."""
        await self._journal.commit(key, entry, self._session)
        self._settle(key, parent, entry)

    def said(self, key: str) -> list[str]:
        """What was said in a step so far, inside of it too."""
        return self._spoken.get(key) or self._inside.get(key) or []

    def _settle(self, key: str, parent: str, entry: Entry) -> None:
        self._steps[key] = entry
        self._spoken.pop(key, None)
        self._inside.pop(key, None)
        if parent:
            self._parents.add(parent)
            if entry.said:
                self._inside.setdefault(parent, []).extend(entry.said)
        # Its entry stands for all that was done inside.
        for known in (self._steps, self._notes) if key in self._parents else (self._notes,):
            for place in [one for one in known if one.startswith((key + "/", key + "#", key + ">"))]:
                del known[place]

    async def once(self, place: str, work: Callable[[], Awaitable[Any]]) -> Any:
        if place in self._notes:
            return self._notes[place]
        value = self._notes[place] = await self._journal.once(place, work)
        return value

    def unsaid(self, key: str, text: str) -> str:
        """The part of a step's words that nobody heard before the pause; all of it is kept as said."""
        self._spoken.setdefault(key, []).append(text)
        heard = self._already.pop(key, "")
        if heard.startswith(text):
            if rest := heard[len(text) :]:
                self._already[key] = rest
            return ""
        return text.removeprefix(heard)

    def pause(self, until_ms: int, media: list[Media]) -> Paused:
        """What the session is to keep."""
        return Paused(
            run_id=self.run_id,
            positions=self._positions,
            loops=self._loops,
            steps=self._steps,
            notes=self._notes,
            spoken={key: "".join(pieces) for key, pieces in self._spoken.items()},
            media=media,
            until_ms=until_ms,
        )
