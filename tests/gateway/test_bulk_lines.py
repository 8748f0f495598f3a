"""Cutting a campaign's file into lines, however its bytes arrive."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchroom.errors import BadInput, TooLarge
from switchroom.gateway.bulk_lines import CsvLines, Line, Splitter, ascii_based


def cut(text: bytes, sizes: list[int], *, quoted: bool = False, longest: int = 1000) -> list[Line]:
    splitter = Splitter(longest, quoted=quoted)
    found = []
    start = 0
    for size in [*sizes, len(text)]:
        found += splitter.feed(text[start : start + size])
        start += size
    return found + list(splitter.end())


@given(st.lists(st.text("ab{}\r ", max_size=9)), st.lists(st.integers(0, 7), max_size=40), st.booleans())
def test_lines_are_the_same_however_the_bytes_come(lines: list[str], sizes: list[int], ends: bool) -> None:
    text = "\n".join(lines) + ("\n" if ends else "")
    expected = [(number, line.rstrip("\r")) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    assert [(line.number, line.raw.decode()) for line in cut(text.encode(), sizes) if line.raw] == expected


@given(
    st.lists(st.lists(st.text('a,;"\n ', max_size=6), min_size=2, max_size=2), max_size=8),
    st.lists(st.integers(0, 7), max_size=40),
)
def test_csv_records_are_those_of_the_csv_module(rows: list[list[str]], sizes: list[int]) -> None:
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows([["ID", "note"], *rows])
    lines = CsvLines(1000)
    header, *records = cut(out.getvalue().encode(), sizes, quoted=True)
    lines.header(header)
    bodies = [lines.body(record) for record in records]
    kept = [
        {"form": {name: cell for name, cell in zip(("ID", "note"), row, strict=True) if cell.strip()}} for row in rows
    ]
    assert bodies == kept


def test_a_long_line_is_passed_over_and_the_next_one_stands() -> None:
    found = cut(b"x" * 50 + b"\nshort\n" + b"y" * 11 + b"\n" + b"z" * 10, [7] * 9, longest=10)
    assert found == [Line(1, None), Line(2, b"short"), Line(3, None), Line(4, b"z" * 10)]


def test_a_quote_that_never_closes_takes_no_more_than_the_longest_line() -> None:
    text = b'ID\n"open\n' + b"0123456789\n" * 30
    found = cut(text, [13] * 30, quoted=True, longest=40)
    assert found[0] == Line(1, b"ID")
    assert found[1] == Line(2, None)
    assert [line.raw for line in found[2:]] == [b"0123456789"] * len(found[2:])
    assert len(found) > 20


def test_columns_become_members_form_and_state() -> None:
    lines = CsvLines(1000)
    lines.header(Line(1, b"id;question;priority;skills;state.crm.tier;state.crm.since;form.priority;notBefore"))
    assert lines.body(Line(2, "+386;Živjo;5;sl|en;gold;;high;2030-01-01T00:00:00Z".encode())) == {
        "form": {"id": "+386", "question": "Živjo", "priority": "high"},
        "priority": 5,
        "skills": ["sl", "en"],
        "state": {"crm": {"tier": "gold"}},
        "notBefore": "2030-01-01T00:00:00Z",
    }


def test_a_byte_order_mark_may_come_in_pieces() -> None:
    for sizes in ([1, 1, 1], [2, 1], [3], [1, 5]):
        assert cut("\ufeffa\nb".encode(), sizes) == [Line(1, b"a"), Line(2, b"b")]
    assert [line.raw for line in cut(b"\xef\xbb", [1])] == [b"\xef\xbb"]


def test_tabs_and_the_encoding_of_a_spreadsheet() -> None:
    lines = CsvLines(1000, "windows-1250")
    lines.header(Line(1, "ID\time, priimek".encode("windows-1250")))
    assert lines.body(Line(2, "1\tŽiga; Čeh".encode("windows-1250"))) == {
        "form": {"ID": "1", "ime, priimek": "Žiga; Čeh"}
    }
    assert [name for name in ("utf-8", "cp1250", "latin-1", "gbk") if not ascii_based(name)] == []
    assert [name for name in ("utf-16", "utf-7", "cp500", "rot13", "base64", "nope") if ascii_based(name)] == []


@pytest.mark.parametrize("header", [b"name,phone", b"ID,ID", b'"ID', b"\xff\xfe"])
def test_a_header_that_cannot_be(header: bytes) -> None:
    with pytest.raises(BadInput):
        CsvLines(1000).header(Line(1, header))


@pytest.mark.parametrize(
    ("header", "record", "error"),
    [
        (b"ID,a", b"1", BadInput),
        (b"ID,a", b"1,2,3", BadInput),
        (b"ID,a", b"1,\xff", BadInput),
        (b"ID,state.a,state.a.b", b"1,2,3", BadInput),
        (b"ID,state.a.b,state.a", b"1,2,3", BadInput),
        (b"ID,state.", b"1,2", BadInput),
        (b"ID,a", None, TooLarge),
    ],
)
def test_a_record_that_cannot_be(header: bytes, record: bytes | None, error: type[Exception]) -> None:
    lines = CsvLines(1000)
    lines.header(Line(1, header))
    with pytest.raises(error):
        lines.body(Line(2, record))
