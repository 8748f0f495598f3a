"""Reads a canvas (Flowise Agentflow V2, or the realtime palette in the same shape) into a `CompactGraph`."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec

from switchroom.compact.fields import Kind
from switchroom.compact.inputs import FORMS, opaque, scalar
from switchroom.compact.model import VERSION, CompactGraph, Edge, Node
from switchroom.compact.palette import BY_NAME, kind_of
from switchroom.errors import BadInput, Fault

__all__ = ["Canvas", "Reading", "open_canvas", "read", "read_canvas"]

_YES = frozenset({"0", "true", "proceed", "yes", "then", "if"})
_SHAPES = frozenset({"agentFlow", "customNode", "iteration"})
"""How an editor draws a node, which says nothing of its kind."""
_NO = frozenset({"1", "false", "reject", "no", "else"})


class Canvas(NamedTuple):
    """A canvas out of its wrapping. `realtime` is what the wrapping says of it, None if nothing."""

    nodes: list[Any]
    edges: list[Any]
    realtime: bool | None


class Reading(NamedTuple):
    """The graph, and where each of its parts stood in the canvas (JSON Pointers)."""

    graph: CompactGraph
    node_at: dict[str, str]
    edge_at: dict[Edge, str]
    faults: list[tuple[str, Fault]]
    """What could not be taken over: severity and fault."""
    older: bool = False
    """Its nodes are of the editor's chatflows, which came before Agentflow V2."""


def open_canvas(body: object, *, pointer: str = "") -> Canvas:
    """Unwraps `{nodes, edges}`, `{"flowData": {...}}` or flowData as a JSON string.

    Raises BadInput, with the pointer, if it is not a canvas."""
    realtime: bool | None = None
    while True:
        if isinstance(body, (str, bytes)):
            try:
                body = msgspec.json.decode(body)
            except (msgspec.DecodeError, UnicodeEncodeError) as error:
                raise _no_canvas(f"The canvas is a string that is not JSON: {error}.", pointer) from error
        if not isinstance(body, dict):
            raise _no_canvas("A canvas is a JSON object with nodes and edges.", pointer)
        kind = body.get("type")
        if isinstance(kind, str):
            realtime = True if kind.upper() == "REALTIME" else realtime
        if "flowData" not in body or "nodes" in body:
            break
        body, pointer = body["flowData"], pointer + "/flowData"
    nodes, edges = body.get("nodes"), body.get("edges")
    edges = [] if edges is None else edges
    if not isinstance(nodes, list):
        raise _no_canvas("A canvas has an array `nodes`.", pointer + "/nodes")
    if not isinstance(edges, list):
        raise _no_canvas("A canvas has an array `edges`.", pointer + "/edges")
    return Canvas(nodes, edges, realtime)


def _no_canvas(detail: str, pointer: str) -> BadInput:
    return BadInput(detail, faults=[Fault(detail, pointer)])


def read_canvas(body: object, *, kind: Literal["text", "realtime"] | None = None) -> CompactGraph:
    """The compact graph of a canvas, whatever faults it has (`compact_canvas` refuses those).

    `kind` overrides what the canvas says of itself. Raises BadInput if it is not a canvas at all."""
    return read(open_canvas(body), kind=kind).graph


def read(canvas: Canvas, *, kind: Literal["text", "realtime"] | None = None) -> Reading:
    """`read_canvas` with the places of everything. Raises BadInput for a canvas nested too deep."""
    try:
        return _read(canvas, kind)
    except RecursionError:
        raise _no_canvas("The canvas is nested too deep.", "/nodes") from None


def _read(canvas: Canvas, kind: Literal["text", "realtime"] | None) -> Reading:
    faults: list[tuple[str, Fault]] = []
    nodes: dict[str, Node] = {}
    node_at: dict[str, str] = {}
    outputs: dict[str, list[Any]] = {}
    dropped: set[str] = set()
    realtime = canvas.realtime
    for index, raw in enumerate(canvas.nodes):
        at = f"/nodes/{index}"
        if not isinstance(raw, dict) or not isinstance(raw.get("data", {}), dict):
            faults.append(
                ("error", Fault("A node is an object with an `id` and `data`: remove it or draw it again.", at))
            )
            continue
        data = raw.get("data", {})
        node_id = _id(raw.get("id")) or _id(data.get("id"))
        if not node_id:
            faults.append(("error", Fault("This node has no `id`: give it one.", at + "/id")))
            continue
        if ">" in node_id:
            # It stands between the parts of a position inside of nested flows.
            faults.append(("error", Fault(f"The ID `{node_id}` has a `>`: rename it.", at + "/id")))
        name, type_ = _word(data.get("name")), _word(data.get("type"))
        kind_name, of_realtime = kind_of(name, type_ or _word(raw.get("type")))
        realtime = True if of_realtime else realtime
        if kind_name == "stickyNote" or (not name and _word(raw.get("type")).lower() == "stickynote"):
            dropped.add(node_id)
            continue
        if node_id in nodes:
            text = f"Two nodes have the ID `{node_id}`: rename one."
            faults.append(("error", Fault(text, at + "/id")))
            continue
        shape = _word(raw.get("type"))
        spelled = name or type_ or ("" if shape in _SHAPES else shape)
        nodes[node_id] = _node(node_id, raw, data, BY_NAME.get(kind_name or ""), spelled)
        node_at[node_id] = at
        anchors = data.get("outputAnchors")
        outputs[node_id] = anchors if isinstance(anchors, list) else []
    edges = _edges(canvas, nodes, outputs, dropped, faults)
    _aim_loops(nodes, edges, faults)
    ordered = tuple(sorted(edges, key=lambda edge: (edge[0], str(edge[1]).zfill(8), edge[2])))
    graph = CompactGraph(
        v=VERSION,
        # The very literals: what is left out as a default is found by identity, and bytes and hash follow from that.
        kind="realtime" if (kind == "realtime" if kind else realtime) else "text",
        nodes=tuple(nodes[node_id] for node_id in sorted(nodes)),
        edges=ordered,
    )
    older = any(isinstance(raw, dict) and raw.get("type") == "customNode" for raw in canvas.nodes)
    return Reading(graph, node_at, edges, faults, older)


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""


def _id(value: object) -> str:
    """A node's ID: a text, or a number where somebody wrote the canvas by hand."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _word(value)


def _node(node_id: str, raw: dict[str, Any], data: dict[str, Any], kind: Kind | None, spelled: str) -> Node:
    label = _word(data.get("label"))
    version = scalar(data.get("version"))
    if (kind and version == kind.version) or not isinstance(version, (int, float, str)):
        version = None
    parent = _id(raw.get("parentNode")) or _id(raw.get("parentId"))
    inputs = data.get("inputs")
    inputs = inputs if isinstance(inputs, dict) else {}
    return Node(
        id=node_id,
        kind=kind.name if kind else spelled,
        label="" if not label or (kind and label == kind.label) else label,
        version=version,
        parent=parent or None,
        inputs=FORMS[kind.name].read(inputs) if kind else opaque(inputs),
    )


def _edges(
    canvas: Canvas,
    nodes: dict[str, Node],
    outputs: dict[str, list[Any]],
    dropped: set[str],
    faults: list[tuple[str, Fault]],
) -> dict[Edge, str]:
    found: dict[Edge, str] = {}
    for index, raw in enumerate(canvas.edges):
        at = f"/edges/{index}"
        if not isinstance(raw, dict):
            faults.append(("error", Fault("An edge is an object with `source` and `target`: draw it again.", at)))
            continue
        source, target = _id(raw.get("source")), _id(raw.get("target"))
        if source in dropped or target in dropped:
            continue
        missing = [key for key, end in (("source", source), ("target", target)) if end not in nodes]
        for key in missing:
            text = (
                f"This edge's {key} `{raw.get(key)}` is not a node of the canvas: remove the edge or connect it again."
            )
            faults.append(("error", Fault(text, f"{at}/{key}")))
        if missing:
            continue
        port = _port(raw, nodes[source], outputs[source])
        if port is None:
            label = nodes[source].label or source
            text = (
                f"This edge does not say which output of `{label}` it leaves by; its first is taken: connect it again."
            )
            faults.append(("warning", Fault(text, f"{at}/sourceHandle")))
        found.setdefault((source, port or 0, target), at)
    return found


def _port(raw: dict[str, Any], node: Node, anchors: list[Any]) -> int | str | None:
    """The output that an edge leaves from: its handle is `<nodeId>-output-<name or number>`, or the ID of one of the
    node's output anchors. None if it names no output of a node that has several."""
    kind = BY_NAME.get(node.kind)
    if kind is not None and kind.ports in ("one", "none"):
        return 0
    handle = _word(raw.get("sourceHandle"))
    tail = handle.removeprefix(node.id + "-output-") if handle else ""
    if tail == handle and "-output-" in handle:
        tail = handle.rsplit("-output-", 1)[1]
    data = raw.get("data")
    label = data.get("edgeLabel") if isinstance(data, dict) else None
    label = str(label) if label is not None else _word(raw.get("label"))
    for word in (tail, label.strip()):
        if word.isdecimal() and word.isascii() and len(word) < 9:
            return int(word)
        if word.lower() in _YES | _NO:
            return int(word.lower() in _NO)
    if kind is None:
        return tail or 0
    for number, anchor in enumerate(anchors):
        if isinstance(anchor, dict) and handle and anchor.get("id") == handle:
            return number
    return None


def _aim_loops(nodes: dict[str, Node], edges: dict[Edge, str], faults: list[tuple[str, Fault]]) -> None:
    """A Loop names its target as `<nodeId>-<label>`, or, in some hands, by an edge out of the Loop."""
    for node in [node for node in nodes.values() if node.kind == "loop"]:
        named = node.inputs.get("to")
        out = [edge for edge in edges if edge[0] == node.id]
        target: str | None = None
        if isinstance(named, str):
            target = named if named in nodes else None
            cut = len(named)
            while target is None and (cut := named.rfind("-", 0, cut)) > 0:
                target = named[:cut] if named[:cut] in nodes else None
            target = target or named
        elif out:
            target = min(edge[2] for edge in out)  # in whatever order they stand
            for edge in out:
                at = edges.pop(edge)
                if edge[2] != target:
                    label = node.label or node.id
                    text = (
                        f"More than one edge leaves the Loop `{label}`, which goes back to one node: remove this one."
                    )
                    faults.append(("error", Fault(text, at)))
        if target is not None:
            nodes[node.id] = msgspec.structs.replace(node, inputs={**node.inputs, "to": target})
