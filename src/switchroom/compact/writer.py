"""A compact graph as a canvas again, in the shape that Agentflow V2 editors open: `read_canvas(expand(g)) == g`."""

from __future__ import annotations

from typing import Any

import msgspec

from switchroom.compact.fields import Field, Kind
from switchroom.compact.layout import Box, absolute, layout
from switchroom.compact.model import CompactGraph, Node
from switchroom.compact.palette import BY_NAME
from switchroom.compact.richtext import wrap

__all__ = ["expand", "input_params"]


def expand(graph: CompactGraph) -> dict[str, Any]:
    """`{nodes, edges}` with places by depth, colours, handles and each node's form schema."""
    boxes = layout(graph)
    spots = absolute(graph, boxes)
    canvas: dict[str, Any] = {
        "nodes": [_node(node, graph, boxes[node.id], spots[node.id]) for node in graph.nodes],
        "edges": [_edge(source, port, target, graph) for source, port, target in graph.edges],
    }
    if graph.kind == "realtime":
        canvas["type"] = "REALTIME"
    return canvas


def _node(node: Node, graph: CompactGraph, box: Box, spot: Box) -> dict[str, Any]:
    kind = BY_NAME.get(node.kind)
    name = kind.wire if kind else node.kind
    raw: dict[str, Any] = {
        "id": node.id,
        "type": kind.canvas_type if kind else "agentFlow",
        "position": {"x": box.x, "y": box.y},
        "positionAbsolute": {"x": spot.x, "y": spot.y},
        "width": box.width,
        "height": box.height,
        "selected": False,
        "dragging": False,
        "data": {
            "id": node.id,
            "label": node.label or (kind.label if kind else ""),
            "version": node.version if node.version is not None else kind.version if kind else None,
            "name": name,
            "type": kind.title if kind else node.kind,
            "color": kind.color if kind else "#CFCFCF",
            "baseClasses": [kind.title if kind else node.kind],
            "category": "Agent Flows",
            "description": kind.description if kind else "",
            "inputParams": input_params(kind, node.id) if kind else [],
            "inputAnchors": [],
            "inputs": _inputs(node, kind, graph),
            "outputAnchors": _anchors(node, kind, graph),
            "outputs": {},
        },
    }
    if kind and kind.name == "start":
        raw["data"]["hideInput"] = True
    if kind and kind.ports == "none":
        raw["data"]["hideOutput"] = True
    if node.parent is not None:
        raw |= {"parentNode": node.parent, "extent": "parent"}
    return raw


def _anchors(node: Node, kind: Kind | None, graph: CompactGraph) -> list[dict[str, Any]]:
    if kind is None or kind.ports == "none":
        return []
    if kind.ports == "one":
        return [{"id": f"{node.id}-output-{kind.wire}", "name": kind.wire, "label": kind.label}]
    count = 2
    for key in ("conditions", "scenarios"):
        rows = node.inputs.get(key)
        if isinstance(rows, list):
            count = len(rows) + (key == "conditions")
    used = [port for _, port, _ in graph.ways_on.get(node.id, ()) if isinstance(port, int)]
    count = max([count, *(port + 1 for port in used)])
    return [{"id": f"{node.id}-output-{index}", "name": kind.wire, "label": kind.label} for index in range(count)]


def _edge(source: str, port: int | str, target: str, graph: CompactGraph) -> dict[str, Any]:
    node = graph.by_id[source]
    kind, end = BY_NAME.get(node.kind), BY_NAME.get(graph.by_id[target].kind)
    branches = kind is None or kind.ports in ("many", "two")
    handle = f"{source}-output-{port if branches or kind is None else kind.wire}"
    data: dict[str, Any] = {
        "sourceColor": kind.color if kind else "#CFCFCF",
        "targetColor": end.color if end else "#CFCFCF",
        "isHumanInput": node.kind == "humanInput",
    }
    if branches:
        data["edgeLabel"] = (
            ("proceed", "reject")[int(port)] if node.kind == "humanInput" and port in (0, 1) else str(port)
        )
    return {
        "id": f"{source}-{handle}-{target}-{target}",
        "source": source,
        "sourceHandle": handle,
        "target": target,
        "targetHandle": target,
        "type": "agentFlow",
        "data": data,
    }


def _inputs(node: Node, kind: Kind | None, graph: CompactGraph) -> dict[str, Any]:
    if kind is None:
        return {key: _free(value) for key, value in node.inputs.items()}
    inputs = _spelled(node.inputs, kind.fields)
    to = node.inputs.get("to")
    if kind.name == "loop" and isinstance(to, str) and to in graph.by_id:
        target = graph.by_id[to]
        shown = BY_NAME.get(target.kind)
        inputs["loopBackToNode"] = f"{to}-{target.label or (shown.label if shown else '')}"
    return inputs


def _spelled(inputs: dict[str, Any], fields: tuple[Field, ...]) -> dict[str, Any]:
    named = {field.name: field for field in fields}
    configs = {field.name + "Config": field for field in fields if field.config}
    out: dict[str, Any] = {}
    for key, value in inputs.items():
        field = named.get(key)
        if field is not None:
            out[field.wire] = _written(value, field)
        elif key in configs:
            owner = configs[key]
            out[owner.wire + "Config"] = {**_free(value), owner.wire: inputs.get(owner.name, "")}
        else:
            out[key] = _free(value)
    return out


def _written(value: Any, field: Field) -> Any:
    if field.type == "json" and isinstance(value, (dict, list)):
        return msgspec.json.format(msgspec.json.encode(value), indent=4).decode()
    if isinstance(value, list) and field.items:
        return [_spelled(row, field.items) if isinstance(row, dict) else _free(row) for row in value]
    if field.type in ("code", "json") and isinstance(value, str):
        return value
    return _free(value)


def _free(value: Any) -> Any:
    if isinstance(value, str):
        return wrap(value)
    if isinstance(value, list):
        return [_free(item) for item in value]
    if isinstance(value, dict):
        return {key: _free(item) for key, item in value.items()}
    return value


def input_params(kind: Kind, node_id: str) -> list[dict[str, Any]]:
    """A kind's form schema (`data.inputParams`), made from its declaration."""
    return [
        {**_param(field), "id": f"{node_id}-input-{field.wire}-{_param_type(field)}", "display": True}
        for field in kind.fields
    ]


def _param_type(field: Field) -> str:
    return {"json": "code", "reference": "asyncOptions", "model": "asyncOptions", "node": "asyncOptions"}.get(
        field.type, field.type
    )


def _param(field: Field) -> dict[str, Any]:
    param: dict[str, Any] = {"label": field.label or field.name, "name": field.wire, "type": _param_type(field)}
    if field.default is not None:
        param["default"] = field.default
    if field.options:
        param["options"] = [{"label": option, "name": option} for option in field.options]
    if field.items:
        param["array"] = [_param(item) for item in field.items]
    if field.type == "string":
        param["acceptVariable"] = True
    if field.config:
        param["loadConfig"] = True
    return param
