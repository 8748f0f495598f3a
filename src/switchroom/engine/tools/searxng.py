"""The tool `searXNG`: a web search by a SearXNG server of the owner's, which needs no key (its JSON answers must be
enabled there)."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from switchroom.engine.nodes.base import NodeFault, Step, decoded
from switchroom.engine.outbound import send
from switchroom.engine.responder import Tool

__all__ = ["SEARXNG", "searxng_tool"]

SEARXNG = "searXNG"
_RESULTS = 8
_PASSED_ON = ("categories", "engines", "language", "time_range", "safesearch")


def searxng_tool(step: Step, config: dict[str, Any]) -> Tool:
    """Raises NodeFault without the server's address (`apiBase`)."""
    base = step.render(str(config.get("apiBase") or "")).strip().rstrip("/")
    if not base:
        raise NodeFault(f"`{step.label}` searches with SearXNG, but has no `apiBase`.", code="bad_node")
    given = {name: str(config[name]) for name in _PASSED_ON if config.get(name) not in (None, "")}

    async def call(asked: dict[str, Any], place: str) -> str:
        query = urlencode({"q": str(asked.get("query", "")), "format": "json", **given})
        answer = await send(step, "GET", f"{base}/search?{query}", {}, None, place=place)
        found = decoded(answer.text()) if answer.status < 400 else None
        rows = found.get("results") if isinstance(found, dict) else None
        if not isinstance(rows, list):
            return f"The search answered {answer.status} without results."
        lines = [
            f"{row.get('title', '')}\n{row.get('url', '')}\n{row.get('content', '')}"
            for row in rows[:_RESULTS]
            if isinstance(row, dict)
        ]
        return "\n\n".join(lines) or "Nothing was found."

    schema = {
        "type": "object",
        "properties": {"query": {"type": "string", "description": "What to search the web for"}},
        "required": ["query"],
        "additionalProperties": False,
    }
    return Tool(name="searxng", description="Searches the web.", schema=schema, call=call)
