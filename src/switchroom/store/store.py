"""The one store: Valkey or Redis >= 7, embedded or yours. Everything durable goes through here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import redis.asyncio as redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from switchroom.errors import Unavailable
from switchroom.store.script import Script
from switchroom.store.wire import Address, Wire

Word = str | bytes | int | float

CONNECT_PATIENCE_S = 5.0
"""How long a call waits for a lost server to come back before it fails."""


class Store:
    """Calls on one batching connection; blocking waits on connections of their own.

    Replies are RESP2 as they come: `bytes`, `int`, `None`, `list`. A server's error raises
    `redis.exceptions.ResponseError`; a server that is not there raises `Unavailable`. A command whose connection
    broke before its reply may or may not have run: it is never repeated here.
    """

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self.url = url
        self._address = Address.from_url(url)
        self._timeout_s = timeout_s
        self._wire: Wire | None = None
        self._connecting = asyncio.Lock()
        self._closed = False
        # No driver info: redis-py would read its own metadata from disk for each connection.
        self._blocking: Any = redis.Redis.from_url(url, socket_timeout=None, protocol=2, driver_info=None)
        self._blocking.response_callbacks.clear()

    @classmethod
    async def connect(cls, url: str, *, timeout_s: float = 10.0) -> Store:
        """Opens the store at `url` (`redis://`, `rediss://`, `unix://`) and checks that it may not evict."""
        store = cls(url, timeout_s=timeout_s)
        await store.call("PING")
        return store

    async def call(self, *command: Word) -> Any:
        """Runs one command; it shares its write with the others of this event-loop tick."""
        wire = self._wire
        if wire is None or not wire.alive:
            wire = await self._connect()
        return await wire.send(*command)

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Word]) -> Any:
        """Runs a script, loading it where the server does not know it."""
        try:
            return await self.call("EVALSHA", script.sha, len(keys), *keys, *args)
        except ResponseError as error:
            if not (isinstance(error, NoScriptError) or str(error).startswith("NOSCRIPT")):
                raise
            return await self.call("EVAL", script.source, len(keys), *keys, *args)

    async def blocking(self, *command: Word, timeout_s: float) -> Any:
        """Runs a command that waits on the server (`BLPOP`, `XREAD BLOCK`) on a connection of its own.

        `timeout_s` is our deadline and must be longer than the command's own.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._blocking.execute_command(*command)
        except (RedisConnectionError, RedisTimeoutError, OSError, TimeoutError) as error:
            raise Unavailable(
                f"the store does not answer: {error}", code="store_unavailable", retry_after_s=1
            ) from error

    async def close(self) -> None:
        self._closed = True
        if self._wire is not None:
            self._wire.close()
        await self._blocking.aclose()

    async def _connect(self) -> Wire:
        async with self._connecting:
            if self._wire is not None and self._wire.alive:
                return self._wire
            if self._closed:
                raise Unavailable("the store is closed", code="store_unavailable")
            deadline = asyncio.get_running_loop().time() + CONNECT_PATIENCE_S
            pause_s = 0.02
            while True:
                try:
                    wire = await Wire.open(self._address, timeout_s=self._timeout_s)
                    await wire.send("PING")
                except (Unavailable, ResponseError) as error:
                    # A server that loads its append-only file refuses commands: that passes.
                    if asyncio.get_running_loop().time() + pause_s > deadline:
                        raise Unavailable(
                            f"the store does not answer: {error}", code="store_unavailable", retry_after_s=1
                        ) from error
                    await asyncio.sleep(pause_s)
                    pause_s = min(pause_s * 2, 0.5)
                else:
                    self._wire = wire
                    return wire
