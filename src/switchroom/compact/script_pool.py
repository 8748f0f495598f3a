"""Worker processes for flows' JavaScript, shared by all sandboxes of this process.

A thread stands before each worker. It waits for the answer as long as the script may take; then it kills the worker
and starts another one. So nothing that a script does outlives its time, a native function of the engine that never
looks at its clock neither.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import queue
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["Job", "pool"]

log = logging.getLogger(__name__)

_WORKERS = 4
_PROGRAM = Path(__file__).with_name("script_worker.py")
_START_S = 20.0
"""How long a worker may take to come up on a loaded machine."""


class Job:
    """One script: the `request` of `script_worker`, how long it may take once it runs, and who hears what came:
    `done` gets the answer, `{died}` where it took its worker with it, None where it took longer. A job that was
    `dropped` before it began is not run."""

    def __init__(self, request: dict[str, Any], wall_s: float, done: Callable[[dict[str, str] | None], None]) -> None:
        self.request = request
        self.wall_s = wall_s
        self.done = done
        self.dropped = False


class _Worker(threading.Thread):
    def __init__(self, jobs: queue.SimpleQueue[Job]) -> None:
        super().__init__(name="flow-js", daemon=True)
        self._jobs = jobs
        self.idle = False
        self.process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        with contextlib.suppress(OSError):  # tried again, and told, with the first job
            self._start_process()
        while True:
            self.idle = True
            job = self._jobs.get()
            self.idle = False
            if not job.dropped:
                self._do(job)

    def _do(self, job: Job) -> None:
        """The job; a process that it spoiled is replaced once it has its answer."""
        try:
            process = self.process
            if process is None or process.poll() is not None:
                process = self._start_process()
            answer = self._answer(process, job)
            job.done(answer)
            if answer is None or "died" in answer:
                self._end(process)
                self._start_process()
        except OSError as error:
            log.warning("no process for a script could be started", extra={"cause": str(error)})
            job.done({"failed": "No process for it could be started."})

    def _start_process(self) -> subprocess.Popen[bytes]:
        self.process = process = subprocess.Popen(
            [sys.executable, "-I", str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            bufsize=0,
        )
        # The first answer says that it is up: its start is not a script's time.
        nothing = {"body": "", "bound": {}, "cpu_s": 1, "memory": 1 << 24, "stack": 1 << 18, "longest": 4}
        self._exchange(process, _frame(nothing), _START_S)
        return process

    def _answer(self, process: subprocess.Popen[bytes], job: Job) -> dict[str, str] | None:
        answer = self._exchange(process, _frame(job.request), job.wall_s)
        if answer is None:
            return {"died": ""} if process.poll() is not None else None
        decoded: dict[str, str] = msgspec.json.decode(answer)
        return decoded

    def _exchange(self, process: subprocess.Popen[bytes], frame: bytes, wall_s: float) -> bytes | None:
        """None where the answer did not come in time, or the process broke."""
        assert process.stdin is not None and process.stdout is not None
        until = time.monotonic() + wall_s
        out = process.stdout.fileno()
        try:
            process.stdin.write(frame)
            size = _read(out, 4, until)
            return _read(out, int.from_bytes(size, "big"), until) if size is not None else None
        except OSError:
            return None

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        self.process = None
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()


def _frame(request: dict[str, Any]) -> bytes:
    body = msgspec.json.encode(request)
    return len(body).to_bytes(4, "big") + body


def _read(source: int, size: int, until: float) -> bytes | None:
    parts = bytearray()
    poll = select.poll()
    poll.register(source, select.POLLIN | select.POLLHUP)
    while len(parts) < size:
        left_s = until - time.monotonic()
        if left_s <= 0 or not poll.poll(left_s * 1000):
            return None
        piece = os.read(source, size - len(parts))
        if not piece:
            return None
        parts += piece
    return bytes(parts)


class _Pool:
    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()

    def put(self, job: Job) -> None:
        """Takes it, with another worker if all are busy and there may be one."""
        self._jobs.put(job)
        with self._lock:
            free = sum(worker.idle for worker in self._workers)
            if free < self._jobs.qsize() and len(self._workers) < _WORKERS:
                worker = _Worker(self._jobs)
                self._workers.append(worker)
                worker.start()

    def warm(self) -> None:
        """Has one worker come up, in the background."""
        with self._lock:
            if not self._workers:
                worker = _Worker(self._jobs)
                self._workers.append(worker)
                worker.start()

    def kill(self) -> None:
        for worker in self._workers:
            if worker.process is not None:
                worker.process.kill()


pool = _Pool()
atexit.register(pool.kill)
