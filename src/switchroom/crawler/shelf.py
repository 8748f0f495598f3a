"""Where a crawl's results go: the folder of the domain, what is known of the site, and the knowledge that flows search.

The order for a page: its file, its site, its knowledge, and only then (by the caller) the frontier. A process that dies
in between leaves a page that is read again; doing any of it twice is no harm.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from switchroom.crawler import marks, sites, urls
from switchroom.crawler.diffs import body_of, diff_of
from switchroom.crawler.frontier import Done
from switchroom.crawler.job import Job, PageRecord
from switchroom.crawler.marks import HostMarks
from switchroom.crawler.output import LOCAL_PDF, PageFile, change_name, rfc3339_ms
from switchroom.crawler.sitemap import end_of_day_ms
from switchroom.crawler.tools import Tools
from switchroom.knowledge import MAX_TEXT_CHARS, Document, Library
from switchroom.store import Store, keys

LASTMODS_MS = 14 * 86_400_000
"""How long a job's lastmod values are kept."""
MAX_CHANGES = 20_000
MOVED = 301
"""The status of a page that is gone because its address leads to another page."""
_BATCH = 500


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a job found different at a page: `added` and `removed` count lines; `diff` names the file with the
    difference, relative to the domain's folder. `moved` and `gone` pages are taken out after the grace, which `removed`
    tells; `back` ones were gone. `listed` pages have a `lastmod` in a sitemap, now as before; `behind` ones changed
    although it says the same."""

    url: str
    kind: Literal["new", "changed", "gone", "moved", "back", "removed"]
    at_ms: int
    title: str = ""
    status: int = 0
    added: int = 0
    removed: int = 0
    diff: str = ""
    listed: bool = False
    behind: bool = False


class Shelf:
    """One a crawl."""

    def __init__(self, tools: Tools, job: Job) -> None:
        self._tools = tools
        self._store = tools.store
        self._job = job
        self.job_id = job.id
        self._library = Library(tools.store)
        self._marks: dict[str, tuple[int, HostMarks]] = {}

    async def open(self) -> None:
        """Let the hosts of the job be sites."""
        if self._job.spec.mode in ("crawl", "root", "discover"):
            for host in self._job.spec.hosts:
                await sites.remember(self._store, host, self._job.spec)

    def collection(self, host: str) -> str:
        """The knowledge collection of a host's pages."""
        return self._job.spec.collection or host

    async def marks(self, host: str) -> HostMarks:
        """What is wanted of a host's pages now."""
        version = await marks.version(self._store, host)
        held = self._marks.get(host)
        if held is None or held[0] != version:
            held = self._marks[host] = (version, HostMarks(await marks.all_of(self._store, host)))
        return held[1]

    async def lastmods(self, found: dict[str, str]) -> None:
        """Keep what sitemaps say of pages until they are read."""
        if found:
            name = keys.crawl(self._job.id, "lastmods")
            await self._store.call("HSET", name, *(part for item in found.items() for part in item))
            await self._store.call("PEXPIRE", name, LASTMODS_MS)

    async def keep(self, files: Sequence[PageFile], done: Sequence[tuple[str, Done]]) -> dict[str, int]:
        """Shelve good pages, and what became of the other URLs; returns what to count (`changed`, `new`, …)."""
        asked = {one.final or one.record.url: url for url, one in done}
        by_host: dict[str, list[PageFile]] = {}
        for file in files:
            by_host.setdefault(file.host, []).append(file)
        # All that is read, and then all that is written, goes out together: a store on a busy disk takes its time.
        lastmods, states = await asyncio.gather(
            self._lastmods_of([url for url, _ in done]),
            asyncio.gather(*(self._state(host, pages) for host, pages in by_host.items())),
        )
        changes: list[Change] = []
        for (host, pages), (wanted, before) in zip(by_host.items(), states, strict=True):
            changes += await self._keep_host(host, pages, wanted, before, asked, lastmods)
        changes += await self._note(done, lastmods)
        return await self.tell(changes)

    async def _state(self, host: str, files: list[PageFile]) -> tuple[HostMarks, dict[str, PageRecord | None]]:
        """What is wanted of a host's pages, and the readings that these replace."""
        names = [file.record.url for file in files]
        wanted, before = await asyncio.gather(self.marks(host), sites.some_site_pages(self._store, host, names))
        return wanted, dict(zip(names, before, strict=True))

    async def _keep_host(
        self,
        host: str,
        files: list[PageFile],
        wanted: HostMarks,
        before: dict[str, PageRecord | None],
        asked: dict[str, str],
        lastmods: dict[str, str],
    ) -> list[Change]:
        files = [file for file in files if wanted.of(file.record.url).mark == "use"]
        if not files:
            return []
        files = [
            file._replace(
                record=_finished(file.record, before[file.record.url], _first(asked, lastmods, file.record.url))
            )
            for file in files
        ]
        changes = await asyncio.to_thread(self._write, host, files, before)
        documents = [_document(file.record, file.markdown) for file in files if file.markdown]
        await asyncio.gather(
            sites.keep_site_pages(self._store, host, [file.record for file in files]),
            self._library.put_many(self.collection(host), documents),
        )
        return changes

    def _write(self, host: str, files: list[PageFile], before: dict[str, PageRecord | None]) -> list[Change]:
        """The files, and how they differ from those that they replace. Blocks."""
        folder = self._tools.output.folder(host)
        changes: list[Change] = []
        for file in files:
            record, old = file.record, before[file.record.url]
            told = {"url": record.url, "at_ms": record.fetched_ms, "title": record.title, "status": record.status}
            if old is None:
                changes.append(Change(kind="new", **told))  # type: ignore[arg-type]
                continue
            if old.content_hash != record.content_hash:
                text = _text(folder / old.file)
                times = rfc3339_ms(old.fetched_ms), rfc3339_ms(record.fetched_ms)
                diff = diff_of(body_of(text), file.markdown, record.url, times)
                name = change_name(record.url, record.fetched_ms)
                self._tools.output.write(host, name, diff.text)
                listed = bool(old.lastmod and record.lastmod)
                changes.append(
                    Change(
                        kind="changed",
                        added=diff.added,
                        removed=diff.removed,
                        diff=name,
                        listed=listed,
                        behind=listed
                        and old.lastmod == record.lastmod
                        and old.fetched_ms >= end_of_day_ms(old.lastmod),
                        **told,  # type: ignore[arg-type]
                    )
                )
            elif old.gone_ms:
                changes.append(Change(kind="back", **told))  # type: ignore[arg-type]
        self._tools.output.write_pages(files)
        return changes

    async def _note(self, done: Sequence[tuple[str, Done]], lastmods: dict[str, str]) -> list[Change]:
        """What became of URLs that gave no page of their own: gone, moved, or passed over until something changes."""
        changes: list[Change] = []
        noted: dict[str, dict[str, sites.Placeholder]] = {}
        for url, one in done:
            record = one.record
            host = urls.bare_host(urls.host_of(url))
            target = one.final or record.final_url
            moved = bool(target) and target != url
            if record.outcome in ("kept", "unchanged") and not moved:
                continue
            gone = record.cause == "not_found" or moved
            if gone and (change := await self._gone(host, url, record, moved=moved)) is not None:
                changes.append(change)
            found = sites.Placeholder(
                found_ms=record.fetched_ms,
                checked_ms=0 if record.outcome == "found" and not record.status else record.fetched_ms,
                lastmod=lastmods.get(url, ""),
                title=record.title,
                cause="moved" if moved else record.cause,
                status=record.status,
                depth=record.depth,
                leads_to=target if moved else "",
            )
            noted.setdefault(host, {})[url] = found
        for host, placeholders in noted.items():
            await sites.keep_placeholders(self._store, host, placeholders)
        return changes

    async def _gone(self, host: str, url: str, record: PageRecord, *, moved: bool) -> Change | None:
        before = await sites.site_page(self._store, host, url)
        if before is None or before.gone_ms:
            return None
        now_ms = _now_ms()
        status = MOVED if moved else record.status
        marked = msgspec.structs.replace(before, gone_ms=now_ms, gone_status=status)
        await sites.keep_site_pages(self._store, host, [marked])
        kind: Literal["moved", "gone"] = "moved" if moved else "gone"
        return Change(url=url, kind=kind, at_ms=now_ms, title=before.title, status=status)

    async def forget(self, host: str, names: Iterable[str]) -> int:
        """Take pages out again: of the site, the folder and the knowledge. Returns how many the site had."""
        wanted = list(names)
        count = 0
        for start in range(0, len(wanted), _BATCH):
            portion = wanted[start : start + _BATCH]
            records = [one for one in await sites.some_site_pages(self._store, host, portion) if one is not None]
            await self._library.remove(self.collection(host), portion)
            await sites.forget_site_pages(self._store, host, portion)
            await asyncio.to_thread(self._remove_files, host, records)
            count += len(records)
        return count

    def _remove_files(self, host: str, records: list[PageRecord]) -> None:
        for record in records:
            for name in (record.file, record.screenshot):
                if name:
                    self._tools.output.remove_page(host, name)

    async def drop(self, host: str) -> int:
        """Remove a site with all that it left; returns how many pages it had."""
        found = await sites.site_pages(self._store, host)
        if self.collection(host) == host:
            await self._library.drop(host)
        else:
            for start in range(0, len(found), _BATCH):
                await self._library.remove(self.collection(host), [page.url for page in found[start : start + _BATCH]])
        await sites.forget_site(self._store, host)
        folder = self._tools.output.folder(host)
        # What people put there is theirs.
        ours = folder / "pages" if host == LOCAL_PDF else folder
        await asyncio.to_thread(shutil.rmtree, ours, ignore_errors=True)
        return len(found)

    async def show(self, host: str, pages: Sequence[PageRecord]) -> int:
        """Put pages back into the knowledge from their files; returns how many had one."""
        folder = self._tools.output.folder(host)
        texts = await asyncio.to_thread(lambda: [_text(folder / page.file) for page in pages])
        found = [_document(page, body_of(text)) for page, text in zip(pages, texts, strict=True) if text]
        if found:
            await self._library.put_many(self.collection(host), found)
        return len(found)

    async def hide(self, host: str, names: Sequence[str]) -> int:
        """Take pages out of the knowledge alone."""
        return await self._library.remove(self.collection(host), names)

    async def tell(self, changes: Sequence[Change]) -> dict[str, int]:
        """Keep changes for the job's report; returns how many there are of each kind."""
        counts: dict[str, int] = {}
        for change in changes:
            counts["found:" + change.kind] = counts.get("found:" + change.kind, 0) + 1
        # A first crawl's thousands of new pages are no news: its list of pages has them.
        worth = [one for one in changes if one.kind != "new" or self._job.spec.mode == "fresh"]
        if worth:
            name = keys.crawl(self._job.id, "changes")
            await self._store.call("RPUSH", name, *(msgspec.json.encode(one) for one in worth))
            await self._store.call("LTRIM", name, -MAX_CHANGES, -1)
        return counts

    async def write_index(self, host: str) -> None:
        """Let the folder's lists be as the site is."""
        pages = await sites.site_pages(self._store, host)
        wanted = await self.marks(host)
        there = bool(pages) or await asyncio.to_thread(self._tools.output.folder(host).is_dir)
        if there:
            await asyncio.to_thread(self._tools.output.write_index, host, pages, wanted)

    async def changes(self) -> list[Change]:
        """What the job found different until now."""
        return await changes_of(self._store, self.job_id)

    async def _lastmods_of(self, wanted: list[str]) -> dict[str, str]:
        if not wanted:
            return {}
        found = await self._store.call("HMGET", keys.crawl(self._job.id, "lastmods"), *wanted)
        return {url: raw.decode() for url, raw in zip(wanted, found, strict=True) if raw is not None}


async def changes_of(store: Store, job_id: str) -> list[Change]:
    """What a job found different, in the order in which it did."""
    raw = await store.call("LRANGE", keys.crawl(job_id, "changes"), 0, -1)
    return [msgspec.json.decode(row, type=Change) for row in raw]


def _first(asked: dict[str, str], lastmods: dict[str, str], url: str) -> str:
    """What a sitemap says of a page: under the URL that was asked for, or under its own."""
    return lastmods.get(asked.get(url, ""), "") or lastmods.get(url, "")


def _finished(record: PageRecord, before: PageRecord | None, lastmod: str) -> PageRecord:
    """A reading as its site keeps it."""
    same = before is not None and before.content_hash == record.content_hash
    changed_ms = (before.changed_ms or before.fetched_ms) if same and before is not None else record.fetched_ms
    return msgspec.structs.replace(record, lastmod=lastmod, changed_ms=changed_ms, gone_ms=0, gone_status=0)


def _document(record: PageRecord, markdown: str) -> Document:
    """A page as knowledge. The beginning alone of one that is longer than a document may be; its file has all."""
    return Document(
        key=record.url,
        url=record.url,
        title=record.title,
        text=markdown[:MAX_TEXT_CHARS],
        changed_ms=record.changed_ms or record.fetched_ms,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""  # somebody took the file away: everything in the page is new then


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
