"""What a crawl leaves on disk: a folder a domain with Markdown files, `pages.jsonl` and `sitemap.xml`.

Every file is written beside and renamed, so that a reader never sees half of one.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
from collections.abc import Iterable
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import msgspec
from yarl import URL

from switchroom.crawler.extract import front_matter
from switchroom.crawler.job import PageRecord
from switchroom.crawler.marks import HostMarks

_NOT_IN_NAMES = re.compile(r"[^a-z0-9_-]+")
_NOT_IN_HOSTS = re.compile(r"[^a-z0-9.-]+")
_MAX_SLUG_CHARS = 80
LOCAL_PDF = "local_pdf"
"""The reserved domain whose folder people put files into (see `local_pdf`)."""
_numbers = itertools.count()


class PageFile(NamedTuple):
    """A good reading on its way to disk: `record.file` and `record.screenshot` say where."""

    host: str
    record: PageRecord
    markdown: str
    screenshot: bytes = b""


class Output:
    """The tree under `root`. All methods block: call them in a thread."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, host: str) -> Path:
        """The folder of a domain; its name holds letters, digits, `.`, `-` and `_` only and never begins with a dot."""
        if host == LOCAL_PDF:
            return self.root / "Local_PDF"
        name = _NOT_IN_HOSTS.sub("_", host.lower()).lstrip(".") or "_"
        return self.root / name

    def write_pages(self, files: Iterable[PageFile]) -> None:
        """Write the Markdown of pages; what is unchanged and there is left alone."""
        for host, record, markdown, screenshot in files:
            folder = str(self.folder(host))
            path = f"{folder}/{record.file}"
            if screenshot:
                _write(f"{folder}/{record.screenshot}", screenshot)
            if not markdown or (record.outcome == "unchanged" and os.path.exists(path)):  # noqa: PTH110 (hot)
                continue
            fetched_at = rfc3339_ms(record.fetched_ms)
            text = front_matter(
                markdown, url=record.url, title=record.title, fetched_at=fetched_at, rendered=record.rendered
            )
            _write(path, text.encode("utf-8", "replace"))

    def write(self, host: str, relative: str, text: str) -> None:
        """Write another file of a domain's folder."""
        _write(f"{self.folder(host)}/{relative}", text.encode("utf-8", "replace"))

    def prune_changes(self, host: str, before: date) -> None:
        """Remove the differences of the days before `before`."""
        for folder in (self.folder(host) / "changes").glob("????-??-??"):
            if folder.name < before.isoformat():
                shutil.rmtree(folder, ignore_errors=True)

    def has(self, host: str, relative: str) -> bool:
        """Whether a file of a domain's folder is there."""
        return bool(relative) and (self.folder(host) / relative).is_file()

    def remove_page(self, host: str, relative: str) -> None:
        """Take a page out again; one that is gone already is no error."""
        if Path(relative).parts[:1] in (("pages",), ("screenshots",)):
            (self.folder(host) / relative).unlink(missing_ok=True)

    def write_index(self, host: str, pages: list[PageRecord], marks: HostMarks) -> None:
        """Write `pages.jsonl` (a line a page that was read) and `sitemap.xml` (the pages in use) of a domain."""
        lines = [
            msgspec.json.encode(
                {
                    "url": page.url,
                    "title": page.title,
                    "file": page.file,
                    "fetched_at": rfc3339_ms(page.fetched_ms),
                    "changed_at": rfc3339_ms(page.changed_ms or page.fetched_ms),
                    "rendered": page.rendered,
                    "chars": page.chars,
                    "content_hash": page.content_hash,
                    "depth": page.depth,
                    "status": page.status,
                    "etag": page.etag or None,
                    "last_modified": page.last_modified or None,
                    "lastmod": page.lastmod or None,
                    "screenshot": page.screenshot or None,
                    "gone_at": rfc3339_ms(page.gone_ms) if page.gone_ms else None,
                    "mark": marks.of(page.url).mark,
                }
            )
            for page in pages
        ]
        _write(f"{self.folder(host)}/pages.jsonl", b"".join(line + b"\n" for line in lines))
        entries = "".join(
            f"  <url><loc>{escape(page.url)}</loc><lastmod>{changed}</lastmod></url>\n"
            for page in pages
            if not page.gone_ms
            and marks.of(page.url).mark == "use"
            and (changed := rfc3339_ms(page.changed_ms or page.fetched_ms))
        )
        _write(
            f"{self.folder(host)}/sitemap.xml",
            b'<?xml version="1.0" encoding="UTF-8"?>\n'
            + f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{entries}</urlset>\n'.encode(),
        )


def file_name(url: str) -> str:
    """`pages/<readable>-<hash>.md`: the hash of the whole URL keeps two pages apart whose readable parts are alike."""
    readable = _NOT_IN_NAMES.sub("-", URL(url).path.lower()).strip("-")[:_MAX_SLUG_CHARS].strip("-") or "index"
    digest = hashlib.sha256(url.encode()).hexdigest()[:10]
    return f"pages/{readable}-{digest}.md"


def change_name(url: str, at_ms: int) -> str:
    """`changes/<day>/<readable>-<hash>-<time>.diff`."""
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    stem = file_name(url).removeprefix("pages/").removesuffix(".md")
    return f"changes/{at:%Y-%m-%d}/{stem}-{at:%H%M%S}.diff"


def screenshot_name(file: str) -> str:
    """The picture beside a page's Markdown file."""
    return "screenshots/" + file.removeprefix("pages/").removesuffix(".md") + ".jpeg"


def rfc3339_ms(at_ms: int) -> str:
    """Unix milliseconds as RFC 3339 in UTC, to the second."""
    return _rfc3339(at_ms // 1000)


@lru_cache(maxsize=512)
def _rfc3339(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _write(path: str, content: bytes) -> None:
    """Plain system calls: this runs once a page."""
    folder, _, name = path.rpartition("/")
    temporary = f"{folder}/.{name}.{os.getpid()}.{next(_numbers)}.tmp"
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
    try:
        handle = os.open(temporary, flags, 0o600)
    except FileNotFoundError:
        Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(temporary, flags, 0o600)
    try:
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(handle, rest) :]
        finally:
            os.close(handle)
        os.rename(temporary, path)  # noqa: PTH104 (hot)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
