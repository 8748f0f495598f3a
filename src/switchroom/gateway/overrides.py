"""`overrideConfig`: what of it a flow's owner lets take effect in one turn."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import msgspec

from switchroom.compact import CompactGraph, compact_canvas
from switchroom.compact.model import content_hash
from switchroom.errors import BadInput, Fault

if TYPE_CHECKING:
    from switchroom.engine import Flow

_ALWAYS = frozenset({"sessionId", "tenantVariables"})


class Overridden(msgspec.Struct, frozen=True):
    """What runs in this turn: the flow's graph or one with replaced inputs, its hash, the variables, what is merged
    into a new session's state, and the names that had no effect."""

    graph: CompactGraph
    hash: str
    variables: dict[str, Any]
    state: dict[str, Any]
    ignored: list[str]


async def override(flow: Flow, config: dict[str, Any]) -> Overridden:
    """Applies `config` to one turn of `flow`; later wins: the flow's variables, `vars`, `tenantVariables`.

    An input may be given for every node that has it (`{"llmUserMessage": "x"}`) or by node
    (`{"llmUserMessage": {"llmAgentflow_0": "x"}}`); members of an object replace those of the canvas's, items of a list
    are added to its items: as Flowise does it (`replaceInputsWithConfig` in its `packages/server/src/utils/index.ts`).
    Raises `BadInput` for a wrong shape, or for a key that has no effect where the flow rejects those.
    """
    chat = flow.settings.chat
    given = {name: _object(config, name) for name in ("tenantVariables", "vars", "startState") if name in config}
    allowed = {name: value for name, value in given.get("vars", {}).items() if name in chat.override_variables}
    ignored = [f"vars.{name}" for name in given.get("vars", {}) if name not in allowed]
    state: dict[str, Any] = {}
    if "startState" in given:
        if chat.override_state:
            state = given["startState"]
        else:
            ignored.append("startState")
    inputs = {name: value for name, value in config.items() if name not in _ALWAYS | {"vars", "startState"}}
    changes = {name: targets for name, value in inputs.items() if (targets := _targets(flow, name, value))}
    ignored += [name for name in inputs if name not in changes]
    if ignored and chat.unknown_overrides == "reject":
        what = "is not enabled for this flow"
        faults = [Fault(what, "/overrideConfig/" + name.replace(".", "/")) for name in ignored]
        raise BadInput("`overrideConfig` sets what the flow's owner has not enabled.", faults=faults)
    graph, digest = flow.graph, flow.hash
    if changes:
        graph = await asyncio.to_thread(_changed, flow, changes)
        digest = content_hash(graph)
    variables = {**allowed, **given.get("tenantVariables", {})}
    return Overridden(graph, digest, variables, state, sorted(ignored))


def _object(config: dict[str, Any], name: str) -> dict[str, Any]:
    value = config[name]
    if name == "startState" and isinstance(value, list):  # Flowise's rows
        value = {
            row["key"]: row.get("value") for row in value if isinstance(row, dict) and isinstance(row.get("key"), str)
        }
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadInput(f"`{name}` must be an object.", faults=[Fault("must be an object", f"/overrideConfig/{name}")])
    return value


def _targets(flow: Flow, name: str, value: Any) -> dict[str, Any]:
    """Node ID -> new value, of the nodes that have this input and whose owner enabled it."""
    found = {}
    for node in _nodes(flow.canvas):
        data = node["data"]
        overrides, inputs = flow.settings.chat.overrides, data.get("inputs") or {}
        here = name in overrides.get(data.get("label") or "", ()) or name in overrides.get(node["id"], ())
        if not here and not (name in overrides.get("*", ()) and name in inputs):
            continue
        if isinstance(value, dict) and value and all(key in _ids(flow.canvas) for key in value):
            if node["id"] in value:
                found[node["id"]] = value[node["id"]]
        else:
            found[node["id"]] = value
    return found


def _changed(flow: Flow, changes: dict[str, dict[str, Any]]) -> CompactGraph:
    nodes = []
    for node in flow.canvas["nodes"]:
        new = {name: targets[node["id"]] for name, targets in changes.items() if node.get("id") in targets}
        if new:
            data = node["data"]
            inputs = data.get("inputs") or {}
            merged = {name: _merged(inputs.get(name), value) for name, value in new.items()}
            node = {**node, "data": {**data, "inputs": {**inputs, **merged}}}
        nodes.append(node)
    return compact_canvas({**flow.canvas, "nodes": nodes}, kind=flow.kind)


def _merged(old: Any, new: Any) -> Any:
    if (
        isinstance(old, str) and isinstance(new, dict) and old.startswith("{")
    ):  # an object that the editor keeps as text
        with contextlib.suppress(msgspec.DecodeError):
            old = msgspec.json.decode(old)
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **new}
    if isinstance(old, list) and isinstance(new, list):
        return [*old, *(item for item in new if item not in old)]
    return new


def _nodes(canvas: dict[str, Any]) -> list[dict[str, Any]]:
    nodes = canvas.get("nodes")
    return [
        node
        for node in (nodes if isinstance(nodes, list) else ())
        if isinstance(node, dict) and isinstance(node.get("data"), dict) and isinstance(node.get("id"), str)
    ]


def _ids(canvas: dict[str, Any]) -> set[str]:
    return {node["id"] for node in _nodes(canvas)}
