"""Transcripts: what a player and a reader get, also from texts that try to be markup."""

from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from switchroom.records import Execution, Utterance, Word
from switchroom.records.transcript import to_json, to_markdown, to_vtt

LINES = [
    Utterance(role="agent", text="Hello, how can I help?", start_ms=120, end_ms=1900),
    Utterance(role="caller", text="My invoice --> <b>4 & 17</b>\n\nplease", start_ms=3_725_004, end_ms=3_725_004),
]


def test_vtt_cues_carry_place_voice_and_escaped_text() -> None:
    assert to_vtt(reversed_lines := LINES[::-1]) == (
        "WEBVTT\n"
        "\n1\n00:00:00.120 --> 00:00:01.900\n<v Agent>Hello, how can I help?\n"
        "\n2\n01:02:05.004 --> 01:02:05.005\n<v Caller>My invoice --&gt; &lt;b&gt;4 &amp; 17&lt;/b&gt; please\n"
    )
    assert reversed_lines[0] is LINES[1], "the caller's list is left as it is"


def test_words_with_times_stand_in_their_cue() -> None:
    words = (
        Word(text="one", start_ms=1000, end_ms=1200),
        Word(text="<two>", start_ms=1300, end_ms=1500),
        Word(text="late", start_ms=9000, end_ms=9100),
    )
    line = Utterance(role="operator", text="one <two> late", start_ms=1000, end_ms=2000, words=words)
    assert "<v Operator>one <00:00:01.300>&lt;two&gt; late\n" in to_vtt([line])
    assert json.loads(to_json([line]))[0]["words"][1] == {"text": "<two>", "start_ms": 1300, "end_ms": 1500}


_texts = st.text(max_size=60)


@given(st.lists(st.tuples(_texts, st.integers(0, 10**8), st.integers(0, 10**8)), max_size=5))
def test_no_text_breaks_the_cues(values: list[tuple[str, int, int]]) -> None:
    lines = [Utterance(role="caller", text=text, start_ms=start, end_ms=end) for text, start, end in values]
    blocks = [block for block in re.split(r"\n\n", to_vtt(lines))[1:] if block]
    assert len(blocks) == len(lines)
    for block in blocks:
        number, times, *text = block.rstrip("\n").split("\n")
        assert number.isdigit() and len(text) == 1 and "-->" not in text[0]
        start, end = times.split(" --> ")
        assert start < end or len(start) != len(end)


def test_markdown_shows_the_call_and_no_markup_of_a_speaker() -> None:
    execution = Execution(
        id="x",
        flow_id="f",
        session_id="s",
        kind="realtime",
        task_id="flowise-1",
        caller_id="+386",
        end_reason="completed",
        transcript=[*LINES, Utterance(role="agent", text="# *hi*", start_ms=2000, end_ms=2500, interrupted=True)],
    )
    page = to_markdown(execution)
    assert page.startswith(
        "# Call flowise-1\n\n- State: INPROGRESS\n- Ended: completed\n\n**Agent** (00:00:00.120): Hello"
    )
    assert "\\# \\*hi\\* *(interrupted)*" in page
    assert page.index("hi\\*") < page.index("invoice")
    assert "+386" not in page


def test_json_is_the_lines() -> None:
    assert json.loads(to_json(LINES))[0] == {
        "role": "agent", "text": "Hello, how can I help?", "start_ms": 120, "end_ms": 1900, "interrupted": False,
        "words": [],
    }  # fmt: skip
