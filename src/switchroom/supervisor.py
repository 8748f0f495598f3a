"""`switchroom serve`: the embedded store and one child process a role, started, watched and stopped by one parent.

Each role is a process of its own (media by design; the API so that a busy call never delays an answer), started with
the very command that an operator would use to run it on another machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic_settings import NoDecode

from switchroom.app import Ready, Role, store_folder
from switchroom.errors import Conflict, SwitchroomError, Unavailable
from switchroom.settings import Settings
from switchroom.store import EmbeddedServer, Store
from switchroom.store.embedded import die_with_parent
from switchroom.tracing import traced

log = logging.getLogger(__name__)

EXIT_NOT_INSTALLED = 3
"""A role whose extra is not installed ends with this code and is not started again."""
_RESTART_FIRST_S = 0.2
_RESTART_MOST_S = 10.0
_READY_S = 90.0
_PORTS: dict[Role, str] = {"api": "SWITCHROOM_PORT", "crawl": "SWITCHROOM_SIDECAR_PORT"}


@contextlib.asynccontextmanager
async def opened_store(settings: Settings) -> AsyncIterator[str]:
    """The store's URL: yours, that of a server that runs on this data folder already, or our own embedded one."""
    if settings.store_url:
        yield settings.store_url
        return
    server = EmbeddedServer(store_folder(settings), fsync=settings.fsync)
    try:
        url = await server.start()
    except Conflict:
        # `serve` runs on this folder: a sidecar or a media process beside it shares its store.
        probe = await Store.connect(server.url, timeout_s=2.0)
        await probe.close()
        log.info("sharing the store of the server that runs on this data folder")
        yield server.url
        return
    try:
        yield url
    finally:
        await server.stop()


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set; a second one ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def asked() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked)
    return stop


async def _run(role: Role, settings: Settings, store: Store, stop: asyncio.Event, ready: Ready) -> None:
    """Runs a role until `stop` is set."""
    run_it: Callable[[Settings, Store, asyncio.Event, Ready], Awaitable[None]]
    if role == "api":
        from switchroom.app_api import run_api as run_it
    elif role == "media":
        from switchroom.app_media import run_media_role as run_it
    else:
        from switchroom.app_crawl import run_sidecar as run_it
    async with traced(role):
        await run_it(settings, store, stop, ready)


async def run_role(role: Role, settings: Settings) -> None:
    """One role in this process, until SIGTERM; prints `ready ROLE URL` when it can serve."""
    stop = stop_on_signals()

    def ready(url: str) -> None:
        # What start-up made is never garbage, and walking it holds everything up: a full collection took 125 ms here.
        gc.freeze()
        print(f"ready {role} {url}".rstrip(), flush=True)

    async with opened_store(settings) as store_url:
        store = await Store.connect(store_url, replicas_ack=settings.replicas_ack)
        try:
            await _run(role, settings, store, stop, ready)
        finally:
            await store.close()


@dataclass
class _Child:
    role: Role
    name: str
    ready: asyncio.Future[str]
    process: asyncio.subprocess.Process | None = None
    pinned: dict[str, str] = field(default_factory=dict)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class Supervisor:
    """All roles of one machine."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._children: list[_Child] = []
        self._stopping = False

    async def run(self) -> None:
        """Until SIGTERM or SIGINT: media drains first, then the others stop, the store last."""
        stop = stop_on_signals()
        async with opened_store(self._settings) as store_url:
            try:
                roles: list[tuple[Role, str]] = [("api", "api"), ("crawl", "sidecar")]
                roles += [("media", f"media-{number}") for number in range(1, self._settings.media_count + 1)]
                for role, name in roles:
                    self._start(role, name, store_url)
                urls = await self._all_ready(stop)
                if urls is not None:
                    print(f"ready {urls['api']} sidecar {urls['sidecar']}", flush=True)
                await stop.wait()
            finally:
                await self._stop()

    def _start(self, role: Role, name: str, store_url: str) -> None:
        child = _Child(role, name, asyncio.get_running_loop().create_future())
        self._children.append(child)
        child.tasks.append(asyncio.create_task(self._keep(child, store_url), name=f"keep-{name}"))

    async def _keep(self, child: _Child, store_url: str) -> None:
        """Starts the child again whenever it dies, a little later each time that it dies young."""
        pause_s = _RESTART_FIRST_S
        loop = asyncio.get_running_loop()
        while not self._stopping:
            began = loop.time()
            child.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "switchroom",
                "serve",
                "--role",
                child.role,
                env={**os.environ, **_environment(self._settings), "SWITCHROOM_STORE_URL": store_url, **child.pinned},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                preexec_fn=die_with_parent(os.getpid(), signal.SIGKILL),  # the store ends with us too
                start_new_session=True,  # a Ctrl-C reaches us, and we stop our children in order
            )
            log.info("started", extra={"child": child.name, "pid": child.process.pid})
            assert child.process.stdout is not None
            async for line in child.process.stdout:
                words = line.decode(errors="replace").split()
                if words[:2] == ["ready", child.role] and not child.ready.done():
                    url = words[2] if len(words) > 2 else ""
                    child.ready.set_result(url)
                    if child.role in _PORTS:  # whoever knows this URL finds it again after a restart
                        child.pinned[_PORTS[child.role]] = url.rpartition(":")[2]
            code = await child.process.wait()
            if self._stopping:
                return
            if code == EXIT_NOT_INSTALLED or (code == 2 and not child.ready.done()):
                if not child.ready.done():
                    child.ready.set_exception(
                        Unavailable(f"{child.name} cannot run (exit {code})", code=f"exit_{code}")
                    )
                return
            log.error("a process died, starting it again", extra={"child": child.name, "exit_code": code})
            if loop.time() - began > 30:
                pause_s = _RESTART_FIRST_S
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _RESTART_MOST_S)

    async def _all_ready(self, stop: asyncio.Event) -> dict[str, str] | None:
        """The URLs once every child can serve; None when told to stop before that. A media process without its
        speech models is left out with a warning: calls then wait in the queue."""
        stopped = asyncio.create_task(stop.wait())
        urls: dict[str, str] = {}
        try:
            for child in self._children:
                either: set[asyncio.Future[Any]] = {child.ready, stopped}
                await asyncio.wait(either, timeout=_READY_S, return_when=asyncio.FIRST_COMPLETED)
                if stop.is_set():
                    return None
                if not child.ready.done():
                    raise Unavailable(f"{child.name} was not ready within {_READY_S:.0f} s")
                error = child.ready.exception()
                if isinstance(error, SwitchroomError) and child.role == "media" and error.code == "exit_3":
                    log.warning("no media process: calls will wait in the queue", extra={"cause": str(error)})
                elif error is not None:
                    raise error
                else:
                    urls[child.name] = child.ready.result()
            return urls
        finally:
            stopped.cancel()

    async def _stop(self) -> None:
        self._stopping = True
        # Callers that are still talking need the API to hang up and to be told; so media ends before it.
        for role, patience_s in (("media", self._settings.media.drain_s + 15), ("crawl", 20.0), ("api", 20.0)):
            await asyncio.gather(*(self._end(child, patience_s) for child in self._children if child.role == role))
        for child in self._children:
            for task in child.tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            if child.ready.done() and not child.ready.cancelled():
                child.ready.exception()

    @staticmethod
    async def _end(child: _Child, patience_s: float) -> None:
        process = child.process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), patience_s)
            except TimeoutError:
                log.error("a process did not stop in time", extra={"child": child.name})
                process.kill()
                await process.wait()


def _environment(settings: Settings) -> dict[str, str]:
    """The settings as a child reads them: options of our command line reach it too."""
    fields = Settings.model_fields
    texts = {
        name: _text(value, words=NoDecode in fields[name].metadata)
        for name, value in settings.model_dump(mode="python").items()
    }
    return {f"SWITCHROOM_{name.upper()}": text for name, text in texts.items() if text is not None}


def _text(value: Any, *, words: bool) -> str | None:
    """A setting as its variable holds it; `words`: with commas between them, else JSON."""
    if value is None:
        return None
    if isinstance(value, bool | int | float | str):
        return str(value)
    if isinstance(value, tuple) and words:
        return ",".join(_reveal(item) for item in value)
    if isinstance(value, dict | tuple):
        return json.dumps(value, default=_reveal)
    return _reveal(value)


def _reveal(value: Any) -> str:
    """A secret's text: it goes from one process of ours to the next by its environment, nowhere else."""
    return value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)
