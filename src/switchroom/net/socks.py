"""A SOCKS5 server on loopback (RFC 1928, CONNECT without authentication) through which a browser goes out.

A browser resolves and connects by itself, and a check before that proves nothing about the address it then takes.
Behind this server it hands over names, and the connection goes to the address that the guard checked: pages,
subresources, WebSockets and redirects alike, with no cost a request (only a connection).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import struct
from typing import Self

from switchroom.net.guard import Guard, OutboundError

log = logging.getLogger(__name__)

_HANDSHAKE_TIMEOUT_S = 15.0
_CONNECT_TIMEOUT_S = 10.0
_MAX_CONNECTIONS = 512
_CHUNK_BYTES = 65_536
_OK, _FAILED, _REFUSED, _UNREACHABLE, _CONNECTION_REFUSED, _BAD_COMMAND, _BAD_ADDRESS = 0, 1, 2, 4, 5, 7, 8


class GuardedSocks:
    """The server. `start()`, then `port`; `close()` ends it and its connections.

    `refused` counts connections that the guard refused, `last_refused` holds the newest hosts among them.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.refused = 0
        self.last_refused: list[str] = []

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1; 0 before `start()`."""
        return int(self._server.sockets[0].getsockname()[1]) if self._server else 0

    async def start(self) -> Self:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_CHUNK_BYTES)
        return self

    async def close(self) -> None:
        """Stop listening and end what is open."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if len(self._tasks) > _MAX_CONNECTIONS:
                log.warning("browser connections over the bound", extra={"bound": _MAX_CONNECTIONS})
                return
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            log.debug("browser connection ended early")
        except asyncio.CancelledError:
            # Only `close()` cancels; the stream machinery would report it as an error of its own.
            log.debug("browser connection closed with its server")
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_HANDSHAKE_TIMEOUT_S):
            target = await _handshake(reader, writer)
        if target is None:
            return
        host, port = target
        try:
            far_reader, far_writer = await self._connect(host, port)
        except OutboundError as error:
            if error.cause == "address_refused":
                self.refused += 1
                self.last_refused = [*self.last_refused[-15:], host]
                log.warning("browser request refused", extra={"host": host, "port": port})
            _reply(writer, _REFUSED if error.cause == "address_refused" else _UNREACHABLE)
            await writer.drain()
            return
        except OSError:
            _reply(writer, _CONNECTION_REFUSED)
            await writer.drain()
            return
        try:
            _reply(writer, _OK)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, far_writer))
                group.create_task(_pump(far_reader, writer))
        except* OSError:
            log.debug("browser connection reset")
        finally:
            far_writer.close()

    async def _connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        problem: OSError = OSError("no address")
        for family, address in await self._guard.resolve(host, port):
            try:
                async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                    return await asyncio.open_connection(address, port, family=family, limit=_CHUNK_BYTES)
            except OSError as error:
                problem = error
        raise problem


async def _handshake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, int] | None:
    version, methods = await reader.readexactly(2)
    offered = await reader.readexactly(methods)
    if version != 5 or 0 not in offered:
        writer.write(b"\x05\xff")
        await writer.drain()
        return None
    writer.write(b"\x05\x00")
    version, command, _, kind = await reader.readexactly(4)
    if kind == 1:
        host = socket.inet_ntop(socket.AF_INET, await reader.readexactly(4))
    elif kind == 4:
        host = str(ipaddress.IPv6Address(await reader.readexactly(16)))
    elif kind == 3:
        host = (await reader.readexactly((await reader.readexactly(1))[0])).decode("ascii", "replace")
    else:
        _reply(writer, _BAD_ADDRESS)
        return None
    (port,) = struct.unpack("!H", await reader.readexactly(2))
    if version != 5 or command != 1:
        _reply(writer, _BAD_COMMAND)
        return None
    return host, port


def _reply(writer: asyncio.StreamWriter, code: int) -> None:
    writer.write(bytes([5, code, 0, 1, 0, 0, 0, 0, 0, 0]))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
