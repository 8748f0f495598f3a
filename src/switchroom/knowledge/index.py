"""One collection's full-text index in a SQLite file (FTS5, BM25): made from the library, and made anew at will.

The file keeps, in the same transaction as the documents, the number of the last change it has seen: a crash at any
point leaves an index that goes on from there. Readers and the one writer do not wait for each other (WAL), also between
processes. All methods block: call them in a thread.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from switchroom.errors import Unavailable
from switchroom.knowledge.chunks import VERSION as CHUNKS_VERSION
from switchroom.knowledge.chunks import chunks_of
from switchroom.knowledge.library import Changes, Held
from switchroom.knowledge.words import language_to_index, terms

log = logging.getLogger(__name__)
_T = TypeVar("_T")

SCHEMA = f"1.{CHUNKS_VERSION}"
_BUSY_MS = 10_000
_TITLE, _HEADINGS, _BODY = 3.0, 2.0, 1.0
_TABLES = """
CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE document (
  id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, url TEXT NOT NULL, title TEXT NOT NULL, language TEXT NOT NULL,
  changed_ms INTEGER NOT NULL, metadata TEXT NOT NULL
);
CREATE TABLE chunk (
  id INTEGER PRIMARY KEY, document INTEGER NOT NULL REFERENCES document(id), headings TEXT NOT NULL, text TEXT NOT NULL,
  model TEXT NOT NULL, vector BLOB
);
CREATE INDEX chunk_document ON chunk(document);
CREATE INDEX chunk_model ON chunk(model) WHERE model <> '';
CREATE INDEX document_language ON document(language);
CREATE VIRTUAL TABLE term USING fts5(title, headings, body, detail='column',
  tokenize="unicode61 remove_diacritics 0 categories 'L* M* N* Co'");
"""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk with its document. `terms` are those of the chunk, its headings and its title."""

    chunk: int
    key: str
    url: str
    title: str
    language: str
    changed_ms: int
    metadata: str
    headings: list[str]
    text: str
    terms: frozenset[str]
    bm25: float


class Index:
    """The file at `path`; connections are kept a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._own = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            for connection in self._open:
                connection.close()
            self._open.clear()
            self._own = threading.local()

    def forget(self) -> None:
        """Remove the file."""
        self.close()
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def position(self) -> tuple[str, int]:
        """The generation of the collection and the number of its last change that are in here."""
        return self._tried(_position)

    def apply(self, seen: tuple[str, int], gen: str, changes: Changes, *, anew: bool) -> None:
        """Take changes in, after `seen` (what `position` said); nothing happens where another process was here since.
        With `anew` everything that is there goes first."""

        def work(db: sqlite3.Connection) -> None:
            rows = [(held, chunks_of(held.document.text, held.document.title)) for held in changes.documents]
            db.execute("BEGIN IMMEDIATE")
            try:
                if _position(db) != seen:
                    db.execute("ROLLBACK")
                    return
                if anew:
                    for table in ("term", "chunk", "document"):
                        db.execute(f"DELETE FROM {table}")  # noqa: S608 - names of ours
                for key in changes.gone:
                    _remove(db, key)
                for held, chunks in rows:
                    _remove(db, held.document.key)
                    _add(db, held, [(list(chunk.headings), chunk.text) for chunk in chunks])
                state = [("gen", gen), ("seq", str(changes.seq))]
                db.executemany(
                    "INSERT INTO state VALUES (?, ?) ON CONFLICT(name) DO UPDATE SET value=excluded.value", state
                )
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

        self._tried(work)

    def languages(self) -> list[str]:
        """The languages of the documents in here."""
        return self._tried(lambda db: [row[0] for row in db.execute("SELECT DISTINCT language FROM document")])

    def frequencies(self, wanted: Sequence[str]) -> tuple[int, dict[str, int]]:
        """How many chunks there are, and how many of them hold each term."""

        def work(db: sqlite3.Connection) -> tuple[int, dict[str, int]]:
            total = int(db.execute("SELECT count(*) FROM chunk").fetchone()[0])
            counts = {
                term: int(db.execute("SELECT count(*) FROM term WHERE term MATCH ?", (_quoted(term),)).fetchone()[0])
                for term in wanted
            }
            return total, counts

        return self._tried(work)

    def match(self, wanted: Sequence[str], limit: int, *, prefixes: bool = False) -> list[Row]:
        """The chunks with any of the terms (or words that begin so), best first by BM25, where a title weighs more than
        a heading and that more than the text."""
        question = " OR ".join(_quoted(term) + ("*" if prefixes else "") for term in wanted)
        ranked = f"bm25(term, {_TITLE}, {_HEADINGS}, {_BODY})"
        sql = f"SELECT rowid, {ranked} FROM term WHERE term MATCH ? ORDER BY 2 LIMIT ?"  # noqa: S608 - numbers of ours
        return self._tried(lambda db: _rows(db, sql, (question, limit)))

    def rows(self, chunks: Sequence[int]) -> list[Row]:
        """These chunks, without a score."""
        marks = ",".join("?" * len(chunks))
        sql = f"SELECT rowid, 0.0 FROM term WHERE rowid IN ({marks})"  # noqa: S608 - question marks
        return self._tried(lambda db: _rows(db, sql, tuple(chunks)))

    def vectors(self, model: str) -> list[tuple[int, bytes]]:
        """The vectors of `model`, by chunk."""
        sql = "SELECT id, vector FROM chunk WHERE model = ? AND vector IS NOT NULL"
        return self._tried(lambda db: list(db.execute(sql, (model,))))

    def _tried(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            return work(self._connection())
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
                raise Unavailable(f"The knowledge index cannot be used: {error}.", code="index_unavailable") from error
            # A damaged file costs only the time to make it again: the library has everything.
            log.warning("knowledge index is damaged, it is made anew", extra={"cause": str(error)})
            self.forget()
            return work(self._connection())

    def _connection(self) -> sqlite3.Connection:
        held: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if held is not None:
            return held
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        db = sqlite3.connect(self.path, timeout=_BUSY_MS / 1000, isolation_level=None, check_same_thread=False)
        try:
            self.path.chmod(0o600)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            _prepare(db)
        except BaseException:
            db.close()
            raise
        with self._lock:
            self._open.append(db)
            self._own.connection = db
        return db


def _prepare(db: sqlite3.Connection) -> None:
    """The tables, as this version has them."""
    if _schema(db) == SCHEMA:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        if _schema(db) != SCHEMA:
            for table in ("term", "chunk", "document", "state"):
                db.execute(f"DROP TABLE IF EXISTS {table}")
            for statement in _TABLES.split(";"):
                if statement.strip():
                    db.execute(statement)
            db.execute("INSERT INTO state VALUES ('schema', ?)", (SCHEMA,))
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _schema(db: sqlite3.Connection) -> str:
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'state'").fetchone() is None:
        return ""
    row = db.execute("SELECT value FROM state WHERE name = 'schema'").fetchone()
    return row[0] if row else ""


def _position(db: sqlite3.Connection) -> tuple[str, int]:
    held = dict(db.execute("SELECT name, value FROM state WHERE name IN ('gen', 'seq')"))
    return held.get("gen", ""), int(held.get("seq", 0))


def _remove(db: sqlite3.Connection, key: str) -> None:
    row = db.execute("SELECT id FROM document WHERE key = ?", (key,)).fetchone()
    if row is not None:
        db.execute("DELETE FROM term WHERE rowid IN (SELECT id FROM chunk WHERE document = ?)", row)
        db.execute("DELETE FROM chunk WHERE document = ?", row)
        db.execute("DELETE FROM document WHERE id = ?", row)


def _add(db: sqlite3.Connection, held: Held, chunks: list[tuple[list[str], str]]) -> None:
    document = held.document
    language = document.language or language_to_index(document.text)
    metadata = msgspec.json.encode(document.metadata).decode()
    told = (document.key, document.url, document.title, language, document.changed_ms, metadata)
    number = db.execute(
        "INSERT INTO document (key, url, title, language, changed_ms, metadata) VALUES (?, ?, ?, ?, ?, ?)", told
    ).lastrowid
    title = " ".join(terms(document.title, language))
    vectors = held.vectors if held.vectors is not None and held.vectors.chunks == len(chunks) else None
    for place, (headings, text) in enumerate(chunks):
        vector = None
        if vectors is not None:
            width = 2 * vectors.size
            vector = vectors.rows[place * width : (place + 1) * width]
        chunk = db.execute(
            "INSERT INTO chunk (document, headings, text, model, vector) VALUES (?, ?, ?, ?, ?)",
            (number, msgspec.json.encode(headings).decode(), text, vectors.model if vectors else "", vector),
        ).lastrowid
        db.execute(
            "INSERT INTO term (rowid, title, headings, body) VALUES (?, ?, ?, ?)",
            (chunk, title, " ".join(terms(" ".join(headings), language)), " ".join(terms(text, language))),
        )


def _rows(db: sqlite3.Connection, sql: str, words: tuple[object, ...]) -> list[Row]:
    found = [
        Row(
            chunk=row[0],
            bm25=-row[1],
            headings=msgspec.json.decode(row[2], type=list[str]),
            text=row[3],
            key=row[4],
            url=row[5],
            title=row[6],
            language=row[7],
            changed_ms=row[8],
            metadata=row[9],
            terms=frozenset(f"{row[10]} {row[11]} {row[12]}".split()),
        )
        for row in db.execute(
            f"WITH hit(chunk, score) AS ({sql}) "  # noqa: S608 - statements of ours
            "SELECT c.id, h.score, c.headings, c.text, d.key, d.url, d.title, d.language, d.changed_ms, d.metadata, "
            "t.title, t.headings, t.body "
            "FROM hit h JOIN chunk c ON c.id = h.chunk JOIN document d ON d.id = c.document "
            "JOIN term t ON t.rowid = c.id",
            words,
        )
    ]
    return sorted(found, key=lambda row: -row.bm25)


def _quoted(term: str) -> str:
    return '"' + term.replace('"', '""') + '"'
