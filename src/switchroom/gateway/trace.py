"""A record's nodes as Flowise's `agentFlowExecutedData`, which its clients draw: names, token counts, times."""

from __future__ import annotations

from typing import Any

from switchroom.compact.palette import BY_NAME
from switchroom.records import Execution

__all__ = ["executed_data", "status_of", "usage_metadata"]


def executed_data(execution: Execution) -> list[dict[str, Any]]:
    """The trace, with the branch taken, the duration and the usage beside what Flowise has."""
    items: list[dict[str, Any]] = []
    for node in execution.nodes:
        kind = BY_NAME.get(node["node_kind"])
        data = {"id": node["node_id"], "name": kind.wire if kind else node["node_kind"]}
        data |= {"input": node.get("input"), "output": _output(node), "state": node.get("state")}
        if error := node.get("error"):
            data["error"] = error
        if (holder := node.get("inside")) is not None:
            data["parentNodeId"] = holder
        if (item := node.get("item")) is not None:
            data["iterationIndex"] = item
        previous = node.get("previous")
        if previous is None:  # it went on where an earlier turn had left off
            previous = [items[-1]["nodeId"]] if items else []
        items.append(
            {
                "nodeId": node["node_id"],
                "nodeLabel": node["label"],
                "data": data,
                "previousNodeIds": previous,
                "status": status_of(node.get("error"), node.get("waits")),
                "branch": node.get("branch"),
                "durationMs": node.get("duration_ms"),
                "usage": node.get("usage") or {},
            }
        )
    return items


def status_of(error: str | None, waits: bool | None) -> str:
    """Of a node in a trace, in the records' words; `STOPPED`: it waits for a person, a time or the caller's words."""
    return "ERROR" if error else "STOPPED" if waits else "FINISHED"


def usage_metadata(usage: dict[str, Any]) -> dict[str, Any]:
    """What a model counted, as Flowise's streams and traces name it (LangChain's `UsageMetadata`), and the model."""
    names = {"inputTokens": "input_tokens", "outputTokens": "output_tokens", "totalTokens": "total_tokens"}
    return {names.get(name, name): value for name, value in usage.items()}


def _output(node: dict[str, Any]) -> Any:
    """A node's output with the two members that clients show beside it, where it is an object as Flowise's are."""
    output = node.get("output")
    if not isinstance(output, dict):
        return output
    more: dict[str, Any] = {}
    if (took := node.get("duration_ms")) is not None:
        end, delta = node.get("at_ms") or 0, round(took)
        more["timeMetadata"] = {"start": end - delta, "end": end, "delta": delta}
    if usage := node.get("usage"):
        more["usageMetadata"] = usage_metadata(usage)
    # Clients show a form instead of the question where there is one, an empty one, too.
    shown = {name: value for name, value in output.items() if name != "form" or value != {}}
    return more | shown
