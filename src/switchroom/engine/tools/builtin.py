"""Tools that need nothing of their owner: the time, a calculator, a page's text."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import msgspec

from switchroom.compact.sandbox import ScriptError
from switchroom.engine.nodes.base import Step
from switchroom.engine.outbound import send
from switchroom.engine.responder import Tool

__all__ = ["BUILTIN"]

_NOTHING: dict[str, Any] = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
_SUM = re.compile(r"(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|[-+*/%().,^\s]|[A-Za-z]+\d*)*")
_MAX_PAGE = 20_000


def _one(name: str, description: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: {"type": "string", "description": description}},
        "required": [name],
        "additionalProperties": False,
    }


def _time(step: Step, config: dict[str, Any]) -> Tool:
    async def call(given: dict[str, Any], place: str) -> str:
        now = datetime.now(UTC)
        told = {
            "date": now.date().isoformat(),
            "day": now.strftime("%A"),
            "time": now.strftime("%H:%M:%S"),
            "zone": "UTC",
        }
        return msgspec.json.encode(told).decode()

    return Tool(name="current_date_time", description="The date, day and time now.", schema=_NOTHING, call=call)


def _calculator(step: Step, config: dict[str, Any]) -> Tool:
    async def call(given: dict[str, Any], place: str) -> str:
        text = str(given.get("input", ""))
        if not text.strip() or not _SUM.fullmatch(text):
            return "That is no sum."
        try:
            value = await step.sandbox.call(f"with (Math) {{ return ({text.replace('^', '**')}) }}", {})
        except ScriptError as error:
            return f"That is no sum: {error.detail}"
        return str(value) if isinstance(value, (int, float)) else "That is no sum."

    schema = _one("input", "A sum such as 3 * (2 + 0.5) or sqrt(2)")
    return Tool(name="calculator", description="Works out a sum.", schema=schema, call=call)


def _scraper(step: Step, config: dict[str, Any]) -> Tool:
    async def call(given: dict[str, Any], place: str) -> str:
        answer = await send(step, "GET", str(given.get("url") or given.get("input") or ""), {}, None, place=place)
        if answer.status >= 400:
            return f"The page answered {answer.status}."
        if "html" not in answer.content_type:
            return answer.text()[:_MAX_PAGE]
        return await asyncio.to_thread(_page_text, answer.text())

    description = "Reads the text of one web page."
    return Tool(name="web_scraper_tool", description=description, schema=_one("url", "The page's URL"), call=call)


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self._skipped = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._skipped += tag in ("script", "style", "noscript")

    def handle_endtag(self, tag: str) -> None:
        self._skipped -= tag in ("script", "style", "noscript") and self._skipped > 0

    def handle_data(self, data: str) -> None:
        if not self._skipped and data.strip():
            self.words.append(" ".join(data.split()))


def _page_text(html: str) -> str:
    words = _Words()
    words.feed(html)
    words.close()
    return "\n".join(words.words)[:_MAX_PAGE]


BUILTIN: dict[str, Callable[[Step, dict[str, Any]], Tool]] = {
    "currentDateTime": _time,
    "calculator": _calculator,
    "webScraperTool": _scraper,
}
"""By the canvas's names."""
