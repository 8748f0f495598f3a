"""The reserved domain `Local_PDF`: PDF files that somebody put into its folder, as knowledge.

`sites/Local_PDF/manuals/Radio 7.pdf` is the page `local-pdf:///manuals/Radio%207.pdf`. No crawl and no Always Fresh
reads it: a look at the folder does.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from pathlib import Path
from urllib.parse import quote

import msgspec

from switchroom.crawler import extract, pdf, sites
from switchroom.crawler.job import Job, JobSpec, PageRecord
from switchroom.crawler.output import LOCAL_PDF, PageFile
from switchroom.crawler.shelf import Shelf
from switchroom.crawler.tools import Tools

log = logging.getLogger(__name__)

HOST = LOCAL_PDF
NAME = "Local_PDF"
PREFIX = "local-pdf:///"
MAX_BYTES = 64_000_000
MAX_FILES = 20_000
SPEC = JobSpec(starts=(PREFIX,), hosts=(HOST,), collection=NAME)


class Looked(msgspec.Struct, kw_only=True):
    """What a look at the folder found; `failed` says why a file gave no text."""

    read: int = 0
    unchanged: int = 0
    removed: int = 0
    failed: dict[str, str] = {}


async def look(tools: Tools) -> Looked:
    """Read the files that are new or changed, and take out those that are gone."""
    await sites.remember(tools.store, HOST, SPEC)
    await sites.set_fresh(tools.store, HOST, False)
    shelf = Shelf(tools, Job(id=HOST, spec=SPEC))
    wanted = await shelf.marks(HOST)
    known = {page.url: page for page in await sites.site_pages(tools.store, HOST)}
    looked = Looked(failed={})
    there: set[str] = set()
    for path, relative, stamp in await asyncio.to_thread(_files, tools.output.folder(HOST)):
        url = PREFIX + quote(relative)
        there.add(url)
        if wanted.of(url).mark != "use":
            continue
        before = known.get(url)
        if before is not None and before.etag == stamp:
            looked.unchanged += 1
            continue
        found = await pdf.read_pdf(await asyncio.to_thread(path.read_bytes))
        if found.cause:
            looked.failed[relative] = found.cause
            continue
        await shelf.keep([_page(url, relative, found, stamp)], [])
        looked.read += 1
    looked.removed = await shelf.forget(HOST, [url for url in known if url not in there])
    await shelf.write_index(HOST)
    log.info("local PDFs looked at", extra={"read": looked.read, "failed": len(looked.failed)})
    return looked


def _page(url: str, relative: str, found: pdf.PdfText, stamp: str) -> PageFile:
    title = found.title or Path(relative).stem
    markdown = extract.under_title(found.markdown, title)
    record = PageRecord(
        url=url,
        outcome="kept",
        title=title,
        file=f"pages/{hashlib.sha256(url.encode()).hexdigest()[:20]}.md",
        content_hash=extract.content_hash(markdown),
        chars=len(markdown),
        fetched_ms=time.time_ns() // 1_000_000,
        etag=stamp,
    )
    return PageFile(HOST, record, markdown)


def _files(folder: Path) -> list[tuple[Path, str, str]]:
    """The PDF files below `folder` with their path in it, and a word that changes with the file. Blocks."""
    found: list[tuple[Path, str, str]] = []
    for path in sorted(folder.rglob("*")):
        # A link may lead anywhere on the machine: only what lies here is read.
        if path.suffix.lower() != ".pdf" or path.is_symlink() or not path.is_file():
            continue
        told = path.stat()
        if told.st_size <= MAX_BYTES and len(found) < MAX_FILES:
            found.append((path, path.relative_to(folder).as_posix(), f"{told.st_size}-{told.st_mtime_ns}"))
    return found
