"""The compact graph's two claims: how small it is, and how fast a canvas becomes one.

    python bench/compact/run.py [FOLDER OF CANVASES]

Bytes: against the canvas as shipped, against its nodes and edges minified, and against a crude prune (ID, kind, label,
filled inputs, edge triples). Speed: canvases a second of this process's CPU time, canvases already parsed from JSON,
best of nine rounds; `read` gives the graph's bytes, `checked` finds every fault first. The growth table multiplies a
canvas's nodes.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from switchroom import compact

HERE = Path(__file__).resolve()
_ROUND_S = 0.06
CORPUS = HERE.parents[2] / "tests" / "compact" / "canvases"


def minified(canvas: dict[str, Any]) -> bytes:
    kept = {"nodes": canvas["nodes"], "edges": canvas["edges"]}
    return json.dumps(kept, separators=(",", ":"), ensure_ascii=False).encode()


def crude_prune(canvas: dict[str, Any]) -> bytes:
    nodes = [
        {
            "id": node["id"],
            "name": node["data"]["name"],
            "version": node["data"].get("version"),
            "label": node["data"].get("label"),
            "parent": node.get("parentNode"),
            "inputs": {key: value for key, value in node["data"]["inputs"].items() if value not in ("", None, [], {})},
        }
        for node in canvas["nodes"]
    ]
    edges = [[edge["source"], edge["sourceHandle"], edge["target"]] for edge in canvas["edges"]]
    return json.dumps({"nodes": nodes, "edges": edges}, separators=(",", ":"), ensure_ascii=False).encode()


def per_second(canvas: dict[str, Any], graph_of: Callable[[object], compact.CompactGraph]) -> float:
    best = 0.0
    for _ in range(9):
        count, started = 0, time.process_time()
        while (spent := time.process_time() - started) < _ROUND_S:
            compact.to_json(graph_of(canvas))
            count += 1
        best = max(best, count / spent)
    return best


def grown(canvas: dict[str, Any], nodes: int) -> dict[str, Any]:
    """A canvas of that many nodes: copies of the given one's body, one after another."""
    body = [node for node in canvas["nodes"] if node["data"]["type"] not in ("Start", "StickyNote", "Loop")]
    start = next(node for node in canvas["nodes"] if node["data"]["type"] == "Start")
    out, edges, last = [start], [], start["id"]
    for index in range(nodes - 1):
        node = body[index % len(body)]
        name = f"{node['id']}_{index}"
        out.append({**node, "id": name})
        edges.append({"source": last, "sourceHandle": f"{last}-output-0", "target": name, "targetHandle": name})
        last = name
    return {"nodes": out, "edges": edges}


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else CORPUS
    paths = sorted(folder.glob("*.json"))
    columns = (
        "shipped",
        "minified",
        "pruned",
        "compact",
        "msgpack",
        "of shipped",
        "of minified",
        "read/s",
        "checked/s",
    )
    table = Table("canvas", *(Column(name, justify="right") for name in columns))
    shares, prunes, shipped, ours, pruned = [], [], 0, 0, 0
    for path in paths:
        raw = path.read_bytes()
        canvas = json.loads(raw)
        graph = compact.compact_canvas(canvas)
        size, least, prune = len(compact.to_json(graph)), len(minified(canvas)), len(crude_prune(canvas))
        shipped, ours, pruned = shipped + len(raw), ours + size, pruned + prune
        shares.append(size / least)
        prunes.append(prune / least)
        cells = [len(raw), least, prune, size, len(compact.to_msgpack(graph))]
        speeds = (per_second(canvas, compact.read_canvas), per_second(canvas, compact.compact_canvas))
        rates = [f"{size / len(raw):.1%}", f"{size / least:.1%}", *(f"{speed:,.0f}" for speed in speeds)]
        table.add_row(path.stem, *(f"{cell:,}" for cell in cells), *rates)
    console = Console(width=140)
    console.print(table)
    console.print(f"total: compact {ours / shipped:.1%} of shipped (crude prune {pruned / shipped:.1%})")
    console.print(
        f"median: compact {statistics.median(shares):.1%} of minified (prune {statistics.median(prunes):.1%})"
    )
    columns = ("read ms", "us a node", "with validation ms", "us a node")
    growth = Table("nodes", *(Column(name, justify="right") for name in columns))
    source = json.loads(paths[0].read_bytes())
    for count in (10, 100, 1_000, 10_000):
        canvas = grown(source, count)
        started = time.process_time()
        compact.to_json(compact.read_canvas(canvas))
        read = time.process_time() - started
        started = time.process_time()
        compact.compact_canvas(canvas)
        whole = time.process_time() - started
        cells = [f"{spent * scale:.1f}" for spent in (read, whole) for scale in (1e3, 1e6 / count)]
        growth.add_row(f"{count:,}", *cells)
    console.print(growth)


if __name__ == "__main__":
    main()
