"""Another flow as a tool: the canvas's `agentAsTool` and `ChatflowTool`."""

from __future__ import annotations

import re
from typing import Any

from switchroom.engine.nodes.base import NodeFault, Step
from switchroom.engine.responder import Tool

__all__ = ["FLOW_TOOLS", "flow_tool"]

FLOW_TOOLS = {
    "agentAsTool": "selectedAgentflow",
    "ChatflowTool": "selectedChatflow",
    "chatflowTool": "selectedChatflow",
}
"""By the canvas's names: the setting that names the flow."""


async def flow_tool(step: Step, kind: str, config: dict[str, Any]) -> Tool:
    """The flow runs in the conversation's own session and state, heard by nobody; its last output is the result. A
    person who is asked inside of it is waited for. Raises NodeFault for a flow that is not there."""
    flow_id = step.render(str(config.get(FLOW_TOOLS[kind]) or ""))
    flow = await step.flows.get(flow_id)
    if flow is None:
        raise NodeFault(
            f"`{step.label}` has the flow `{flow_id}` as a tool, which does not exist.", code="unknown_flow"
        )

    async def call(given: dict[str, Any], place: str) -> str:
        return await step.called(flow, str(given.get("input", "")), place)

    name = re.sub(r"[^A-Za-z0-9_-]+", "_", str(config.get("name") or flow.name)).strip("_")[:64] or "flow"
    schema = {
        "type": "object",
        "properties": {"input": {"type": "string", "description": "What to ask it"}},
        "required": ["input"],
        "additionalProperties": False,
    }
    description = str(config.get("description") or f"Asks the flow {flow.name}.")
    return Tool(name=name, description=description, schema=schema, call=call)
