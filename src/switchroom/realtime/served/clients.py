"""The clients of one served session: the caller's own, and those that listen and steer beside it (`?call_id=`)."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple, Protocol

import msgspec

from switchroom.realtime.served.protocol import Event, error_event, new_id

_WAITING = 512
"""Client events that may wait; a WebSocket is not read further meanwhile."""
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Client(Protocol):
    """Takes an event as JSON. Must not block; a client that cannot follow is closed, never skipped."""

    def send(self, text: str) -> None: ...

    def end(self, code: int, reason: str) -> None:
        """Close it once everything is out."""
        ...


class Came(NamedTuple):
    """A client's event."""

    client: Client
    event: Event


class Clients:
    """Everybody is told everything, in order; an error only the client that caused it."""

    def __init__(self) -> None:
        self._clients: list[Client] = []
        self._inbox: asyncio.Queue[Came] = asyncio.Queue(_WAITING)

    def join(self, client: Client, *greeting: Event) -> None:
        """From now on it is told too, after `greeting`."""
        for event in greeting:
            self.tell_one(client, event)
        self._clients.append(client)

    def leave(self, client: Client) -> None:
        if client in self._clients:
            self._clients.remove(client)

    def end(self, reason: str) -> None:
        """The call is over: nobody has anything to watch any more."""
        for client in tuple(self._clients):
            client.end(1000, reason)

    def tell(self, event: Event) -> None:
        text = _text(event)
        for client in tuple(self._clients):
            client.send(text)

    def tell_one(self, client: Client, event: Event) -> None:
        client.send(_text(event))

    async def came(self, client: Client, raw: str | bytes) -> None:
        """Waits while too much waits."""
        if (event := self._read(client, raw)) is not None:
            await self._inbox.put(Came(client, event))

    def came_now(self, client: Client, raw: str | bytes) -> None:
        """For a transport that cannot be held up: what does not fit is refused."""
        if (event := self._read(client, raw)) is None:
            return
        try:
            self._inbox.put_nowait(Came(client, event))
        except asyncio.QueueFull:
            cause = event.get("event_id")
            refused = error_event("Too many events wait.", code="rate_limit_exceeded", event_id=_id_of(cause))
            self.tell_one(client, refused)

    async def next(self) -> Came:
        return await self._inbox.get()

    def _read(self, client: Client, raw: str | bytes) -> Event | None:
        try:
            return _decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self.tell_one(client, error_event(f"An event must be a JSON object: {error}.", code="invalid_json"))
            return None


def _id_of(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _text(event: Event) -> str:
    return _encode({"event_id": new_id("event"), **event}).decode()
