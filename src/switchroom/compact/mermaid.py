"""A compact graph as a Mermaid flowchart (https://mermaid.js.org/syntax/flowchart.html)."""

from __future__ import annotations

import re

from switchroom.compact.model import CompactGraph, Node
from switchroom.compact.palette import BY_NAME

__all__ = ["to_mermaid"]

_SHAPES = {"start": ("([", "])"), "condition": ("{", "}"), "conditionAgent": ("{", "}"), "loop": ("[/", "/]")}


def to_mermaid(graph: CompactGraph) -> str:
    """Text of a `flowchart TD`; loops are dotted arrows, iterations are subgraphs."""
    names = {node.id: f"n{index}" for index, node in enumerate(graph.nodes)}
    lines = ["flowchart TD"]
    inside: dict[str | None, list[Node]] = {}
    for node in graph.nodes:
        inside.setdefault(node.parent if node.parent in names else None, []).append(node)
    for node in inside.get(None, []):
        if node.id in inside:
            lines.append(f"  subgraph {names[node.id]}[{_title(node)}]")
            lines += [f"    {_box(child, names)}" for child in inside[node.id]]
            lines.append("  end")
        else:
            lines.append(f"  {_box(node, names)}")
    for source, port, target in graph.edges:
        kind = BY_NAME.get(graph.by_id[source].kind)
        word = f"|{port}|" if kind is None or kind.ports in ("many", "two") else ""
        lines.append(f"  {names[source]} -->{word} {names[target]}")
    for node in graph.nodes:
        to = node.inputs.get("to")
        if node.kind == "loop" and isinstance(to, str) and to in names:
            limit = node.inputs.get("max")
            lines.append(f"  {names[node.id]} -.->{f'|max {limit}|' if limit else ''} {names[to]}")
    return "\n".join(lines) + "\n"


def _title(node: Node) -> str:
    kind = BY_NAME.get(node.kind)
    text = node.label or (kind.label if kind else node.kind)
    return '"' + re.sub(r'["<>\n]', " ", text).strip() + '"'


def _box(node: Node, names: dict[str, str]) -> str:
    left, right = _SHAPES.get(node.kind, ("[", "]"))
    return f"{names[node.id]}{left}{_title(node)}{right}"
