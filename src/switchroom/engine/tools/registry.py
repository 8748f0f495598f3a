"""A canvas's tool by its name: the flow's own first, then the built-in ones; any other is refused by name."""

from __future__ import annotations

import logging
import re
from typing import Any

import msgspec

from switchroom.engine.custom_tool import CustomTool, LiveTool
from switchroom.engine.nodes.base import NodeFault, Step
from switchroom.engine.responder import Tool
from switchroom.engine.retriever import Passage
from switchroom.engine.tools.builtin import BUILTIN
from switchroom.engine.tools.flows import FLOW_TOOLS, flow_tool
from switchroom.engine.tools.mcp import MCP, mcp_tools
from switchroom.engine.tools.requests import METHODS, request_tool
from switchroom.engine.tools.searxng import SEARXNG, searxng_tool
from switchroom.errors import NotFound

__all__ = ["MissingStore", "agent_tools", "call_tool", "search", "store_tool", "told", "tools_named"]

log = logging.getLogger(__name__)

_PASSAGES = 4
_MAX_RESULT = 20_000


class MissingStore(NodeFault):
    """A flow searches a knowledge store that is not here. Who searches finds nothing, and says so."""

    code = "unknown_store"


class UnknownTool(NodeFault):
    """A flow names a tool that this server does not have."""

    code = "unknown_tool"


async def agent_tools(step: Step, name: str, config: dict[str, Any], *, approve: bool) -> list[Tool]:
    """What an Agent's model may call under this name. `approve`: a person has to agree to each call. A tool that is not
    there is offered all the same and answers that it is missing: the model does without, and the trace says so."""
    try:
        found = await tools_named(step, name, config)
    except UnknownTool as error:
        log.warning("a flow's tool is not here", extra={"tool": name, "node_id": step.node.id})
        found = [_missing(name, error.detail)]
    return [msgspec.structs.replace(tool, approve=True) for tool in found] if approve else found


def _missing(name: str, detail: str) -> Tool:
    async def call(given: dict[str, Any], place: str) -> str:
        raise UnknownTool(detail)

    schema = {"type": "object", "properties": {"input": {"type": "string"}}}
    return Tool(name=function_name(name), description=f"{name} (not set up on this server)", schema=schema, call=call)


async def tools_named(step: Step, name: str, config: dict[str, Any]) -> list[Tool]:
    """Raises UnknownTool for a tool that is not there."""
    chosen = str(config.get("selectedTool") or config.get("customToolName") or name)
    own = step.tools.get(name) or step.tools.get(chosen)
    if own is not None:
        return [_custom(step, own)]
    if name in METHODS:
        return [request_tool(step, name, config)]
    if name in BUILTIN:
        return [BUILTIN[name](step, config)]
    if name == SEARXNG:
        return [searxng_tool(step, config)]
    if name == MCP:
        return await mcp_tools(step, config)
    if name in FLOW_TOOLS:
        return [await flow_tool(step, name, config)]
    known = ", ".join(sorted({*BUILTIN, *METHODS, *FLOW_TOOLS, MCP, SEARXNG, *step.tools}))
    raise UnknownTool(
        f"`{step.label}` uses the tool `{chosen}`, which this server does not have. It has: {known}. Define a tool of "
        "that name in the flow's settings (`tools`), or remove it."
    )


async def call_tool(step: Step, name: str, config: dict[str, Any], given: dict[str, Any]) -> str:
    """For a Tool node, with arguments from templates."""
    tools = await tools_named(step, name, config)
    return await tools[0].call(given, "tool")


def _custom(step: Step, own: CustomTool) -> Tool:
    schema = own.schema or {"type": "object", "properties": {}}
    if isinstance(own, LiveTool):
        return Tool(name=function_name(own.name), description=own.description, schema=schema, call=own.call)

    async def call(given: dict[str, Any], place: str) -> str:
        properties = schema.get("properties")
        names = [*(properties if isinstance(properties, dict) else ()), *given]
        bound = {"$" + key: given.get(key) for key in names}
        known = {"$flow": step.scope.flow(), "$vars": step.scope.known, "$args": given}
        value = await step.sandbox.call(own.code, bound | known)
        return _short(value if isinstance(value, str) else _json(value))

    return Tool(name=function_name(own.name), description=own.description or own.name, schema=schema, call=call)


def store_tool(step: Step, store: str, name: str, description: str, found: list[Passage]) -> Tool:
    """Searches one store for a model; what it finds is added to `found`."""
    shown = name or store.rpartition(":")[2] or store

    async def call(given: dict[str, Any], place: str) -> str:
        passages = await search(step, store, str(given.get("query", "")))
        found.extend(passages)
        return _short(told(passages, sources=True) or "Nothing was found.")

    schema = {
        "type": "object",
        "properties": {"query": {"type": "string", "description": "What to look for"}},
        "required": ["query"],
        "additionalProperties": False,
    }
    return Tool(
        name=function_name(f"search_{shown}"),
        description=description or f"Searches the knowledge store {shown}.",
        schema=schema,
        call=call,
    )


async def search(step: Step, store: str, query: str) -> list[Passage]:
    """The best passages. Raises MissingStore."""
    try:
        if step.kit.retriever is not None:
            return await step.kit.retriever.search(store, query, limit=_PASSAGES)
    except NotFound:
        pass
    log.warning("a flow's knowledge store is not here", extra={"store": store, "node_id": step.node.id})
    raise MissingStore(f"`{step.label}` searches the knowledge store `{store}`, which is not here.")


def told(passages: list[Passage], *, sources: bool) -> str:
    """Passages as one text, with their sources where they are wanted."""
    return "\n\n".join(
        f"{one.text}\n(source: {one.source})" if sources and one.source else one.text for one in passages
    )


def function_name(text: str) -> str:
    """As the wire allows: letters, digits, `_` and `-`, 64 at most."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_")[:64] or "tool"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _short(text: str) -> str:
    return text if len(text) <= _MAX_RESULT else text[:_MAX_RESULT] + " …"
