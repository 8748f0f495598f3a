"""A campaign's file cut into lines while it streams in, and each line as the body of an enqueue.

NDJSON: a JSON body a line. CSV (RFC 4180; comma, semicolon or tab, as its header row has it): the columns `priority`,
`notBefore`, `expiresAt`, `maxAttempts`, `callbackUrl`, `ccBaseUrl`, `skills` (with `|` between them) and
`idempotencyKey` are the body's members, `state.crm.tier` is a place in the state, every other column, or
`form.NAME`, a field of the form. An empty cell is left out. A quoted cell may hold line breaks.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any, NamedTuple

from switchroom.errors import BadInput, Fault, TooLarge
from switchroom.http_problems import decoded_json

_NUMBERS = frozenset({"priority", "maxAttempts"})
_WORDS = frozenset({"notBefore", "expiresAt", "callbackUrl", "ccBaseUrl", "idempotencyKey"})
_BOM = b"\xef\xbb\xbf"
_BREAK = 2
"""Bytes of the line break, which do not count."""


class Line(NamedTuple):
    """A line, or a CSV record with its line breaks; `number` is that of its first line. `raw` None: it was longer
    than allowed, and passed over."""

    number: int
    raw: bytes | None


class Splitter:
    """Cuts chunks of bytes into lines of at most `longest` bytes, and holds no more than one of them.

    `quoted`: a line break inside double quotes does not end a line.
    """

    def __init__(self, longest: int, *, quoted: bool = False) -> None:
        self._longest = longest
        self._quoted = quoted
        self._parts: list[bytes] = []
        self._size = 0
        self._number = 1
        self._breaks = 0
        self._open = False
        self._begun = False
        self._head = b""
        """What came so far where that may be the beginning of a byte order mark."""

    def feed(self, chunk: bytes) -> Iterator[Line]:
        """The lines that end in `chunk`; blank ones are left out."""
        if not self._begun:
            chunk = self._head + chunk
            if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
                self._head = chunk
                return
            self._begun, self._head = True, b""
            chunk = chunk.removeprefix(_BOM)
        start = 0
        while (end := chunk.find(b"\n", start) + 1) > 0:
            self._keep(chunk[start:end])
            start = end
            self._breaks += 1
            if not self._open:
                yield from self.end()
        if start < len(chunk):
            self._keep(chunk[start:])

    def end(self) -> Iterator[Line]:
        """The line so far: the last one, where no line break ends it."""
        if self._head:  # no mark came of it
            self._keep(self._head)
            self._head = b""
        whole = b"".join(self._parts).rstrip(b"\r\n")
        too_long = self._size > self._longest + _BREAK or len(whole) > self._longest
        number = self._number
        self._number += self._breaks
        self._parts.clear()
        self._size = self._breaks = 0
        self._open = False
        if too_long:
            yield Line(number, None)
        elif whole.strip():
            yield Line(number, whole)

    def _keep(self, piece: bytes) -> None:
        if self._quoted and piece.count(b'"') % 2:
            self._open = not self._open
        self._size += len(piece)
        if self._size <= self._longest + _BREAK:
            self._parts.append(piece)
        else:
            # A quote that never closes must not swallow the rest of the file: the next break ends this line.
            self._parts.clear()
            self._open = False


class JsonLines:
    """NDJSON: a line is a body."""

    headed = False

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self.splitter = Splitter(longest)

    def body(self, line: Line) -> object:
        """The decoded body. Raises `BadInput` or `TooLarge`."""
        return decoded_json(_raw(line, self._longest))


class CsvLines:
    """CSV: the first line names the columns. `charset`: the text's encoding, one that `ascii_based` takes."""

    headed = True

    def __init__(self, longest: int, charset: str = "utf-8") -> None:
        self._longest = longest
        self._charset = charset
        self._columns: list[str] = []
        self._delimiter = ","
        self.splitter = Splitter(longest, quoted=True)

    def header(self, line: Line) -> None:
        """Takes the names of the columns. Raises `BadInput` where they cannot be."""
        raw = _raw(line, self._longest)
        self._delimiter = "\t" if b"\t" in raw else ";" if raw.count(b";") > raw.count(b",") else ","
        names = [name.strip() for name in self._cells(raw)]
        doubled = sorted({name for name in names if name and names.count(name) > 1})
        if doubled:
            raise BadInput(f"The CSV header names a column twice: {', '.join(doubled)}.", code="invalid_csv")
        if not any(name.lower() in ("id", "form.id") for name in names):
            raise BadInput("The CSV header has no column ID.", code="invalid_csv")
        self._columns = names

    def body(self, line: Line) -> object:
        """The record as a body. Raises `BadInput` or `TooLarge`."""
        cells = self._cells(_raw(line, self._longest))
        if len(cells) != len(self._columns):
            what = f"has {len(cells)} cells; the header has {len(self._columns)}"
            raise BadInput(f"The record {what}.", code="invalid_csv", faults=[Fault(what, "")])
        form: dict[str, Any] = {}
        body: dict[str, Any] = {"form": form}
        for name, cell in zip(self._columns, cells, strict=True):
            if not name or not cell.strip():
                continue
            if name in _NUMBERS:
                body[name] = _number(cell)
            elif name in _WORDS:
                body[name] = cell.strip()
            elif name == "skills":
                body[name] = [skill for skill in cell.split("|") if skill.strip()]
            elif name.startswith("state."):
                _put(body.setdefault("state", {}), name, name.split(".")[1:], cell)
            else:
                form[name.removeprefix("form.")] = cell
        return body

    def _cells(self, raw: bytes) -> list[str]:
        try:
            return next(csv.reader([raw.decode(self._charset)], delimiter=self._delimiter, strict=True))
        except UnicodeDecodeError as error:
            what = f"The line is not {self._charset}: send `text/csv; charset=…` with the encoding of the file."
            raise BadInput(what, code="invalid_csv") from error
        except (csv.Error, StopIteration) as error:
            raise BadInput(f"The line is not CSV: {error}.", code="invalid_csv") from error


def ascii_based(charset: str) -> bool:
    """Whether a text in this encoding can be cut at the bytes of line breaks, quotes and delimiters."""
    plain = "".join(map(chr, range(128)))
    try:
        return plain.encode(charset) == plain.encode()
    except (LookupError, UnicodeError):
        return False


def _raw(line: Line, longest: int) -> bytes:
    if line.raw is None:
        raise TooLarge(f"The line is longer than {longest} bytes.", extra={"maxBytes": longest})
    return line.raw


def _number(cell: str) -> int | str:
    """A whole number; anything else stays as it is, and the body's own check names it."""
    try:
        return int(cell)
    except ValueError:
        return cell


def _put(state: dict[str, Any], name: str, path: list[str], cell: str) -> None:
    place: Any = state
    for part in path[:-1]:
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            break
    if not isinstance(place, dict) or path[-1] in place or not all(path):
        what = "names a place in the state that another column fills"
        raise BadInput(f"The column {name} {what}.", code="invalid_csv", faults=[Fault(what, f"/{name}")])
    place[path[-1]] = cell
