"""What differs between two compact graphs: by node (its ID is what templates name it by), by input, by edge."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from switchroom.compact.model import CompactGraph, Edge, Node
from switchroom.compact.palette import BY_NAME

__all__ = ["Change", "compare", "to_text"]


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One difference. `field` is where in a changed node (`messages[0].content`), `from`/`to` its two values (absent
    where there is none); of an edge, `port` is the output that it leaves by."""

    change: Literal["added", "removed", "changed"]
    what: Literal["graph", "node", "edge"]
    id: str = ""
    title: str = ""
    field: str = ""
    port: int | str | None = None
    target: str = ""
    before: Any = msgspec.field(name="from", default=None)
    after: Any = msgspec.field(name="to", default=None)


def compare(old: CompactGraph, new: CompactGraph) -> list[Change]:
    """Every change from `old` to `new`; none if and only if their hashes are equal."""
    found = []
    if old.kind != new.kind:
        found.append(Change(change="changed", what="graph", field="kind", before=old.kind, after=new.kind))
    for node_id in sorted(old.by_id.keys() | new.by_id.keys()):
        before, after = old.by_id.get(node_id), new.by_id.get(node_id)
        if before is None or after is None:
            node = after or before
            assert node is not None
            found.append(Change(change="added" if after else "removed", what="node", id=node_id, title=_title(node)))
        elif msgspec.json.encode(before) != msgspec.json.encode(after):  # for Python, 1 and true are equal
            found += [
                Change(
                    change="changed", what="node", id=node_id, title=_title(after), field=field, before=one, after=other
                )
                for field, one, other in _fields(before, after)
            ]
    gone, come = set(old.edges) - set(new.edges), set(new.edges) - set(old.edges)
    return (
        found
        + [_edge("removed", edge) for edge in old.edges if edge in gone]
        + [_edge("added", edge) for edge in new.edges if edge in come]
    )


def to_text(changes: list[Change]) -> str:
    """The changes as lines: `+` added, `-` removed, `~` changed with what it was and is; texts of several lines as the
    lines that differ."""
    lines: list[str] = []
    seen = ""
    for one in changes:
        mark = {"added": "+", "removed": "-", "changed": "~"}[one.change]
        if one.what == "edge":
            port = "" if one.port in (0, None) else f" [{one.port}]"
            lines.append(f"{mark} edge {one.id}{port} -> {one.target}")
        elif one.what == "graph":
            lines.append(f"{mark} {one.field}: {one.before} -> {one.after}")
        elif one.change != "changed":
            lines.append(f"{mark} node {one.id} ({one.title})")
        else:
            if one.id != seen:
                lines.append(f"{mark} node {one.id} ({one.title})")
            seen = one.id
            lines += _changed(one)
    return "".join(line + "\n" for line in lines)


def _title(node: Node) -> str:
    kind = BY_NAME.get(node.kind)
    name = kind.label if kind else node.kind
    return f"{name}: {node.label}" if node.label else name


def _edge(change: Literal["added", "removed"], edge: Edge) -> Change:
    return Change(change=change, what="edge", id=edge[0], port=edge[1], target=edge[2])


def _fields(old: Node, new: Node) -> Iterator[tuple[str, Any, Any]]:
    for name in ("kind", "label", "version", "parent"):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            yield name, before, after
    yield from _values("", old.inputs, new.inputs)


def _values(at: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """The places where two values differ, as deep as both have the same shape."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _values(f"{at}.{key}" if at else key, old.get(key), new.get(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _values(f"{at}[{index}]", before, after)
    elif type(old) is not type(new) or old != new:
        yield at, old, new


def _changed(change: Change) -> Iterator[str]:
    before, after = _lines(change.before), _lines(change.after)
    if len(before) <= 1 and len(after) <= 1:
        yield f"    {change.field}: {before[0] if before else '(none)'} -> {after[0] if after else '(none)'}"
        return
    yield f"    {change.field}:"
    for line in list(difflib.unified_diff(before, after, lineterm="", n=1))[2:]:
        yield f"      {line}"


def _lines(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        return value.split("\n")
    if isinstance(value, (dict, list)):
        return msgspec.json.format(msgspec.json.encode(value), indent=2).decode().split("\n")
    return [msgspec.json.encode(value).decode()]
