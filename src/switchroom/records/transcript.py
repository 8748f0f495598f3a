"""A call's transcript as WebVTT (https://www.w3.org/TR/webvtt1/), Markdown and JSON.

WebVTT's times are places in the recording, so that a player shows each line when it is heard.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from switchroom.records.model import Execution, Utterance

_SPEAKERS = {"caller": "Caller", "agent": "Agent", "operator": "Operator"}
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~])")


def to_vtt(lines: Sequence[Utterance]) -> str:
    """WebVTT with one cue a line, in the order of their starts, voices named `Caller`, `Agent` and `Operator`. Where
    words have times, each carries its own, so that a player lights them up one by one."""
    parts = ["WEBVTT\n"]
    for number, line in enumerate(sorted(lines, key=lambda one: one.start_ms), 1):
        # A cue must end after it starts, and its text has no blank line and no "-->".
        end_ms = max(line.end_ms, line.start_ms + 1)
        text = _timed(line, end_ms) if line.words else _cue_text(line.text)
        speaker = _SPEAKERS[line.role]
        parts.append(f"\n{number}\n{_clock(line.start_ms)} --> {_clock(end_ms)}\n<v {speaker}>{text}\n")
    return "".join(parts)


def to_markdown(execution: Execution) -> str:
    """A readable page: what the call was, then who said what when. The caller's ID is not in it."""
    title = f"# Call {_plain(execution.task_id)}" if execution.task_id else f"# Conversation {_plain(execution.id)}"
    facts = [f"- State: {execution.state}"]
    if execution.end_reason:
        facts.append(f"- Ended: {_plain(execution.end_reason)}")
    if execution.detail:
        facts.append(f"- Detail: {_plain(execution.detail)}")
    lines = [
        f"**{_SPEAKERS[line.role]}** ({_clock(line.start_ms)}): {_plain(line.text)}"
        + (" *(interrupted)*" if line.interrupted else "")
        for line in sorted(execution.transcript, key=lambda one: one.start_ms)
    ]
    return "\n".join([title, "", *facts, "", *(f"{line}\n" for line in lines)]).rstrip() + "\n"


def to_json(lines: Sequence[Utterance]) -> bytes:
    """A JSON array of `{role, text, start_ms, end_ms, interrupted, words: [{text, start_ms, end_ms}]}`."""
    return msgspec.json.encode(list(lines))


def _cue_text(text: str) -> str:
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _timed(line: Utterance, end_ms: int) -> str:
    """The words behind their timestamps, which must grow and lie inside the cue (WebVTT §4.1)."""
    parts, last = [], line.start_ms
    for word in line.words:
        if last < word.start_ms < end_ms:
            parts.append(f"<{_clock(word.start_ms)}>{_cue_text(word.text)}")
            last = word.start_ms
        else:
            parts.append(_cue_text(word.text))
    return " ".join(parts)


def _clock(at_ms: int) -> str:
    seconds, milliseconds = divmod(max(0, at_ms), 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}.{milliseconds:03}"


def _plain(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))
