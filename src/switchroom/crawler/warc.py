"""A job's answers as they came, in WARC files (ISO 28500:2017) that archive tools read."""

from __future__ import annotations

import asyncio
import uuid
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from aiohttp import hdrs

from switchroom.net import Fetched

MAX_FILE_BYTES = 1_000_000_000
# The body is stored unpacked and whole; cookies are nobody's business but the sidecar's.
_NOT_KEPT = frozenset({"content-encoding", "transfer-encoding", "content-length", "set-cookie"})


class WarcArchive:
    """Writes `archives/<job>-<runner>-<n>.warc.gz` under `root`; the next file begins at 1 GB. Each process has
    its own.

    A record is on its way to the disk when `add` returns; after a kill -9 the file's last record may be cut off, those
    before are whole (each is a gzip member of its own).
    """

    def __init__(self, root: Path, job_id: str, runner: str) -> None:
        self._folder = root / "archives"
        self._name = f"{job_id}-{runner[:8]}"
        self._lock = asyncio.Lock()
        self._file: BinaryIO | None = None
        self._writer: Any = None

    async def add(self, url: str, got: Fetched) -> None:
        """Keep what `url` answered, with the redirects on the way."""
        async with self._lock:
            await asyncio.to_thread(self._write, got)

    async def close(self) -> None:
        """End the file."""
        async with self._lock:
            if self._file is not None:
                await asyncio.to_thread(self._file.close)
                self._file = None

    def _open(self) -> Any:
        from warcio.warcwriter import WARCWriter  # only jobs that archive need it

        if self._file is None or self._file.tell() > MAX_FILE_BYTES:
            if self._file is not None:
                self._file.close()
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._folder / f"{self._name}-{uuid.uuid4().hex[:8]}.warc.gz"
            self._file = path.open("xb")
            path.chmod(0o600)
            self._writer = WARCWriter(self._file, gzip=True)
            info = {"software": "Switchroom", "format": "WARC File Format 1.1"}
            self._writer.write_record(self._writer.create_warcinfo_record(path.name, info))
        return self._writer

    def _write(self, got: Fetched) -> None:
        writer = self._open()
        places = [hop.url for hop in got.redirects] + [got.url]
        for hop, target in zip(got.redirects, places[1:], strict=True):
            self._record(writer, hop.url, hop.status, [("Location", target)], b"")
        headers = [(name, value) for name, value in got.headers.items() if name.lower() not in _NOT_KEPT]
        headers.append((hdrs.CONTENT_LENGTH, str(len(got.body))))
        self._record(writer, got.url, got.status, headers, got.body)
        assert self._file is not None
        self._file.flush()

    @staticmethod
    def _record(writer: Any, url: str, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        from warcio.statusandheaders import StatusAndHeaders

        http = StatusAndHeaders(f"{status} Answer", headers, protocol="HTTP/1.1")
        writer.write_record(
            writer.create_warc_record(url, "response", payload=BytesIO(body), http_headers=http, length=len(body))
        )
