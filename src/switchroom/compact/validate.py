"""Finds what is wrong with a canvas: every fault with its place and a sentence on the mend."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from switchroom.compact import expressions, sandbox, templates
from switchroom.compact.fields import Field
from switchroom.compact.kinds import OPERATIONS
from switchroom.compact.model import CompactGraph, Node
from switchroom.compact.palette import BY_NAME
from switchroom.compact.reader import Reading, open_canvas, read
from switchroom.errors import Fault, Unprocessable

__all__ = ["Finding", "compact_canvas", "sound", "validate"]

_PLACES = frozenset(
    {"$form", "$flow", "$state", "$vars", "$webhook", "$iteration", "$slot", "$slots", "$intent", "$question"}
)
_WORDS = frozenset(
    {
        "question",
        "chat_history",
        "runtime_messages_length",
        "loop_count",
        "current_date_time",
        "file_attachment",
        "output",
        "now",
    }
)
_STATE = re.compile(r"\$(?:flow\.)?state\.([A-Za-z0-9_$]+)")
_FUNCTION_NAMES = ("$flow", "$vars", "$form", "$state", "$question")
_NEEDED = {
    "conditionAgent": ("scenarios", "has no scenario to choose from: describe them"),
    "customFunction": ("code", "has no function: write one"),
    "directReply": ("message", "has nothing to say: write its message"),
    "http": ("url", "has no URL: write one"),
    "iteration": ("input", "has no list to go through: give it one"),
    "retriever": ("stores", "names no store to search: choose one"),
    "tool": ("tool", "names no tool: choose one"),
}
"""The one input without which a node of the kind does nothing, and the words for that."""


_OVERRIDES = {"vars", "tenantVariables", "startState", "sessionId"}
"""What an Execute Flow may set of the other flow; the session is the same in any case."""


class Finding(NamedTuple):
    """One fault. `pointer` is a JSON Pointer into the canvas; `node_id` the node it is about."""

    severity: Literal["error", "warning"]
    detail: str
    pointer: str
    node_id: str | None = None

    @property
    def fault(self) -> Fault:
        return Fault(self.detail, self.pointer)


def compact_canvas(body: object, *, kind: Literal["text", "realtime"] | None = None) -> CompactGraph:
    """The compact graph of a canvas without errors (warnings may stand).

    Raises BadInput if it is no canvas at all, Unprocessable with every error as a fault otherwise."""
    reading = read(open_canvas(body), kind=kind)
    _refuse(_findings(reading))
    return reading.graph


def sound(graph: CompactGraph) -> CompactGraph:
    """The graph itself. Raises Unprocessable where it has errors, with pointers into its `n` and `e`."""
    _refuse(validate(graph))
    return graph


def _refuse(findings: list[Finding]) -> None:
    errors = [finding.fault for finding in findings if finding.severity == "error"]
    if errors:
        count = "one error" if len(errors) == 1 else f"{len(errors)} errors"
        raise Unprocessable(f"The canvas has {count}: {errors[0].detail}", faults=errors, code="invalid_canvas")


def validate(canvas: object) -> list[Finding]:
    """Every fault of a canvas, or of a CompactGraph (pointers are then into its `n` and `e`). Raises BadInput if it is
    no canvas at all."""
    if isinstance(canvas, CompactGraph):
        node_at = {node.id: f"/n/{index}" for index, node in enumerate(canvas.nodes)}
        edge_at = {edge: f"/e/{index}" for index, edge in enumerate(canvas.edges)}
        return _findings(Reading(canvas, node_at, edge_at, []))
    return _findings(read(open_canvas(canvas)))


def _findings(reading: Reading) -> list[Finding]:
    found = [Finding("error" if severity == "error" else "warning", *fault) for severity, fault in reading.faults]
    graph = reading.graph
    found += _starts(reading)
    found += _parents(reading)
    found += _circles(reading)
    found += _unreached(reading)
    declared = _declared_state(graph)
    for node in graph.nodes:
        at = reading.node_at[node.id]
        label = node.label or node.id
        if node.kind not in BY_NAME:
            text = f"The node `{label}` is of a kind that is not known (`{node.kind}`): it is kept, but cannot run."
            found.append(Finding("warning", text, at, node.id))
            continue
        found += [Finding(severity, text, at, node.id) for severity, text in _node(node, graph, declared)]
    return found


def _starts(reading: Reading) -> Iterator[Finding]:
    starts = reading.graph.starts
    if not starts:
        text = "The canvas has no Start node: add one and connect it to the first step."
        if reading.older:
            text = (
                "The canvas is a chatflow, of the node kinds before Agentflow V2, which do not run here: draw it with "
                "Agentflow V2 nodes, from a Start node on."
            )
        yield Finding("error", text, "/nodes")
    for node in reading.graph.nodes:
        if node.kind == "start" and node.parent is not None:
            text = (
                f"The Start `{node.label or node.id}` stands in an Iteration, where the first step begins: remove it."
            )
            yield Finding("error", text, reading.node_at[node.id], node.id)
    for edge in reading.graph.edges:
        if edge[2] in {start.id for start in starts}:
            text = f"An edge leads from `{edge[0]}` into Start, which runs once: remove it, or use a Loop to go back."
            yield Finding("warning", text, reading.edge_at[edge])
    for extra in starts[1:]:
        text = f"The canvas has more than one Start node: remove `{extra.id}` or `{starts[0].id}`."
        yield Finding("error", text, reading.node_at[extra.id], extra.id)


def _parents(reading: Reading) -> Iterator[Finding]:
    graph = reading.graph
    for node in graph.nodes:
        if node.parent is None:
            continue
        holder = graph.by_id.get(node.parent)
        if holder is None or holder.kind != "iteration":
            text = f"The node `{node.label or node.id}` stands in `{node.parent}`, which is no Iteration: move it out."
            yield Finding("error", text, reading.node_at[node.id] + "/parentNode", node.id)
        elif _stands_in_itself(node, graph):
            text = f"The Iteration `{node.label or node.id}` stands inside of itself: move it out."
            yield Finding("error", text, reading.node_at[node.id] + "/parentNode", node.id)
    for edge in graph.edges:
        source, target = graph.by_id.get(edge[0]), graph.by_id.get(edge[2])
        if source is None or target is None:
            text = f"The edge from `{edge[0]}` to `{edge[2]}` has an end that is no node: remove it."
            yield Finding("error", text, reading.edge_at[edge])
        elif source.parent != target.parent:
            text = (
                f"This edge crosses the border of an Iteration (`{source.id}` to `{target.id}`): connect inside of it."
            )
            yield Finding("error", text, reading.edge_at[edge])


def _stands_in_itself(node: Node, graph: CompactGraph) -> bool:
    seen: set[str] = set()
    up = node.parent
    while up is not None and up != node.id and up not in seen:
        seen.add(up)
        holder = graph.by_id.get(up)
        up = holder.parent if holder is not None else None
    return up == node.id


def _circles(reading: Reading) -> Iterator[Finding]:
    """Edges that close a circle (found by peeling off nodes that nothing leads to)."""
    graph = reading.graph
    waiting = dict.fromkeys(graph.by_id, 0)
    for _, _, target in graph.edges:
        if target in waiting:
            waiting[target] += 1
    ready = [node_id for node_id, count in waiting.items() if count == 0]
    while ready:
        for _, _, target in graph.ways_on.get(ready.pop(), ()):
            waiting[target] -= 1
            if waiting[target] == 0:
                ready.append(target)
    stuck = {node_id for node_id, count in waiting.items() if count > 0}
    inside = [edge for edge in graph.edges if edge[0] in stuck and edge[2] in stuck]
    if inside:
        edge = inside[0]
        names = ", ".join(f"`{node_id}`" for node_id in sorted(stuck)[:6])
        text = f"The edges run in a circle through {names}: use a Loop node to go back."
        yield Finding("error", text, reading.edge_at[edge], edge[0])


def _unreached(reading: Reading) -> Iterator[Finding]:
    graph = reading.graph
    reached: set[str] = set()
    todo = [node.id for node in graph.starts]
    children: dict[str, list[str]] = {}
    entered = {edge[2] for edge in graph.edges}
    for node in graph.nodes:
        if node.parent is not None and node.id not in entered:
            children.setdefault(node.parent, []).append(node.id)
    while todo:
        node_id = todo.pop()
        if node_id in reached or node_id not in graph.by_id:
            continue
        reached.add(node_id)
        todo += [edge[2] for edge in graph.ways_on.get(node_id, ())]
        todo += children.get(node_id, [])
        to = graph.by_id[node_id].inputs.get("to")
        if graph.by_id[node_id].kind == "loop" and isinstance(to, str):
            todo.append(to)
    if not graph.starts:
        return
    for node in graph.nodes:
        if node.id not in reached and node.kind != "start":
            text = f"Nothing leads to the node `{node.label or node.id}`: connect it or remove it."
            yield Finding("warning", text, reading.node_at[node.id], node.id)


def _declared_state(graph: CompactGraph) -> set[str]:
    return {str(row.get("key", "")).split(".", 1)[0] for node in graph.starts for row in node.rows("state")}


def _node(node: Node, graph: CompactGraph, declared: set[str]) -> Iterator[tuple[Literal["error", "warning"], str]]:
    label = node.label or node.id
    if node.kind == "loop":
        yield from _loop(node, graph, label)
    elif node.kind == "condition":
        yield from _condition(node, graph, label)
    elif node.kind in ("executeFlow", "loadRealtimeAgent") and not node.inputs.get("flow"):
        # Shared canvases leave the choice to whoever imports them; but no caller shall be the first to hear of it.
        severity: Literal["error", "warning"] = "error" if graph.kind == "realtime" else "warning"
        yield severity, f"`{label}` names no flow to run: choose one."
    elif node.kind == "executeFlow" and isinstance(override := node.inputs.get("override"), dict):
        for name in sorted(override.keys() - _OVERRIDES):
            yield (
                "warning",
                f"`{label}` overrides `{name}` of another flow, in vain: pass it by `vars` or `startState`.",
            )
    elif node.kind == "customFunction" and isinstance(node.inputs.get("code"), str):
        names = tuple("$" + str(row["name"]).lstrip("$") for row in node.rows("variables") if row.get("name"))
        fault = sandbox.syntax_fault(node.inputs["code"], tuple(dict.fromkeys((*_FUNCTION_NAMES, *names))))
        if modules := sandbox.modules_of(node.inputs["code"]):
            what = ", ".join(f"`{name}`" for name in modules)
            yield (
                "warning",
                f"The function of `{label}` asks for {what}, which no sandbox has: use an HTTP node or a tool instead.",
            )
        if fault:
            yield "error", f"The function of `{label}` does not parse ({fault}): correct it."
    elif node.kind in _NEEDED and not node.inputs.get(_NEEDED[node.kind][0]):
        yield "warning", f"`{label}` {_NEEDED[node.kind][1]}."
    if BY_NAME[node.kind].ports in ("many", "two"):
        yield from _ports(node, graph, label)
    for what in _misshapen(node.inputs, BY_NAME[node.kind].fields):
        yield "error" if BY_NAME[node.kind].realtime else "warning", f"In `{label}`, {what}: set it again."
    for text in dict.fromkeys(_texts(node.inputs)):
        for part in templates.parse(text) if "{{" in text else ():
            if isinstance(part, templates.Ref):
                yield from _reference(part, node, graph, label)
        for key in dict.fromkeys(_STATE.findall(text)):
            if key not in declared:
                yield (
                    "warning",
                    f"`{label}` reads the state key `{key}`, which Start does not declare: declare it there.",
                )
    for row in node.rows("updateState"):
        key = str(row.get("key", "")).split(".", 1)[0]
        if key and key not in declared:
            yield "warning", f"`{label}` updates the state key `{key}`, which Start does not declare: declare it there."


def _loop(node: Node, graph: CompactGraph, label: str) -> Iterator[tuple[Literal["error", "warning"], str]]:
    to, limit = node.inputs.get("to"), node.inputs.get("max")
    if not isinstance(to, str) or not to:
        yield "error", f"The Loop `{label}` has no target: choose the node that it goes back to."
    elif to not in graph.by_id:
        yield "error", f"The Loop `{label}` goes back to `{to}`, which is not a node of the canvas: choose another."
    elif graph.by_id[to].parent != node.parent:
        yield (
            "error",
            f"The Loop `{label}` goes back to `{to}` across the border of an Iteration: choose one beside it.",
        )
    if limit is None:
        yield "warning", f"The Loop `{label}` has no limit: a default holds; set how often it may go back."
    elif not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        yield "error", f"The Loop `{label}` has the limit `{limit}`: give a whole number from 1."


def _condition(node: Node, graph: CompactGraph, label: str) -> Iterator[tuple[Literal["error", "warning"], str]]:
    rows = node.rows("conditions")
    sources = [node.inputs.get("expression"), *(row.get("expression") for row in rows)]
    for source in sources:
        fault = expressions.fault_of(source) if isinstance(source, str) else None
        if fault:
            yield "error", f"The expression of `{label}` does not parse ({fault}): correct it."
    if not rows and not isinstance(node.inputs.get("expression"), str):
        yield "warning", f"The Condition `{label}` has no condition: it always takes its last output."
    for row in rows:
        operation = row.get("operation", "equal")
        if operation not in OPERATIONS:
            yield "error", f"The Condition `{label}` has the unknown operation `{operation}`: choose another."


def _ports(node: Node, graph: CompactGraph, label: str) -> Iterator[tuple[Literal["error", "warning"], str]]:
    """Edges by an output that a node with branches has not."""
    branches = {"condition": "conditions", "conditionAgent": "scenarios"}.get(node.kind)
    last = max(1, len(node.rows(branches))) if branches else 1
    for _, port, _ in graph.ways_on.get(node.id, ()):
        if not isinstance(port, int) or port > last:
            yield "error", f"An edge leaves `{label}` by output {port}, but its last is {last}: connect it again."


def _reference(
    ref: templates.Ref, node: Node, graph: CompactGraph, label: str
) -> Iterator[tuple[Literal["error", "warning"], str]]:
    for name in ref.filters:
        if name not in templates.FILTERS:
            yield "warning", f"`{label}` uses the filter `{name}` in `{ref.text}`, which is not known: remove it."
    if not ref.path:
        yield "warning", f"`{label}` has `{ref.text}`, which is not a path to a value: correct it."
        return
    head = ref.path[0]
    if head in _PLACES or head in _WORDS or head in graph.by_id:
        return
    text = f"`{label}` has the template `{ref.text}`, but nothing is called `{head}`: correct the name."
    # A lone word may be meant for a model's own prompt format; a path with a node's look is a broken reference.
    yield "warning", text


def _misshapen(inputs: dict[str, Any], fields: tuple[Field, ...]) -> Iterator[str]:
    """What is of another shape than its declaration says."""
    for field in fields:
        value = inputs.get(field.name)
        if value is None or field.free or field.type == "json":
            continue
        if field.type == "array":
            rows = value if isinstance(value, list) else None
            if rows is None or not all(isinstance(row, dict if field.items else str) for row in rows):
                yield f"`{field.wire}` is not a list of {'objects' if field.items else 'texts'}"
                continue
            for row in rows if field.items else ():
                yield from _misshapen(row, field.items)
        elif field.type == "number":
            template = isinstance(value, str) and "{{" in value
            if not template and (isinstance(value, bool) or not isinstance(value, (int, float))):
                yield f"`{field.wire}` is not a number"
        elif not isinstance(value, bool if field.type == "boolean" else str):
            yield f"`{field.wire}` is not {'true or false' if field.type == 'boolean' else 'a text'}"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
