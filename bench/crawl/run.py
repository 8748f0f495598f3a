"""What a crawl costs, ours beside the peers, in one run on one site: CPU, pages a second, memory, coverage.

    python bench/crawl/run.py --peers PYTHON [--pages 2000] [--rendered 100] [--repeats 3] [--only NAME ...]

PYTHON is an interpreter with the peers, in a virtual environment of their own:

    python -m venv /tmp/peers
    /tmp/peers/bin/pip install scrapy scrapy-playwright "crawlee[parsel,playwright]"
    python bench/crawl/run.py --peers /tmp/peers/bin/python

The rendering ones start the same Chromium as ours (`apt-get install chromium-headless-shell`). Without `--peers` ours
and the floor run alone. CPU is that of the crawler's whole process tree (driver, browser and store too; the
store stands apart as well), without its start: each runs once for one page, and that is subtracted. Ours writes clean
Markdown, keeps a durable frontier with fsync on every batch, and applies its guard; the peers keep a title. `foreign`
is what other processes took of the machine meanwhile, in cores: with much of it CPU figures are too high for all.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
console = Console(width=150)


@dataclass
class Tree:
    """Samples a process and its descendants: CPU seconds by program, most memory (RSS without what is shared twice)."""

    root: int
    spent: dict[int, tuple[str, float]] = field(default_factory=dict)
    peak_mb: float = 0.0

    def look(self) -> None:
        above: dict[int, int] = {}
        now: dict[int, tuple[str, float]] = {}
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                try:
                    text = Path(entry.path, "stat").read_text()
                except OSError:
                    continue
                rest = text.rpartition(")")[2].split()
                above[int(entry.name)] = int(rest[1])
                now[int(entry.name)] = (
                    text[text.index("(") + 1 : text.rindex(")")],
                    (int(rest[11]) + int(rest[12])) * TICK_S,
                )
        memory = 0.0
        for pid in above:
            up = pid
            while up not in (0, 1, self.root):
                up = above.get(up, 0)
            if up == self.root:
                self.spent[pid] = now[pid]
                memory += _pss_mb(pid)
        self.peak_mb = max(self.peak_mb, memory)

    def cpu_s(self, *programs: str) -> float:
        return sum(spent for name, spent in self.spent.values() if not programs or name.startswith(programs))


def _pss_mb(pid: int) -> float:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def machine_busy_s() -> float:
    words = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(words) - words[3] - words[4]) * TICK_S


@dataclass(frozen=True)
class Run:
    cpu_s: float
    store_s: float
    wall_s: float
    peak_mb: float
    pages: int
    requests: int
    foreign: float
    said: str


def run_one(command: Sequence[str], base: str) -> Run:
    seen(base)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    tree = Tree(process.pid)
    begun, busy, own = time.monotonic(), machine_busy_s(), time.process_time()
    lines: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()))
    reader.start()
    while process.poll() is None:
        tree.look()
        time.sleep(0.1)
    reader.join()
    wall = time.monotonic() - begun
    said = next((line.strip() for line in lines if line.startswith("done")), "failed")
    found = seen(base)
    spent = tree.cpu_s()
    foreign = max(0.0, machine_busy_s() - busy - spent - (time.process_time() - own)) / wall
    return Run(spent, tree.cpu_s("valkey"), wall, tree.peak_mb, found["pages"], found["requests"], foreign, said)


def seen(base: str) -> dict[str, int]:
    with urllib.request.urlopen(base + "/_seen") as answer:
        return dict(json.load(answer))


def tools(peers: str | None) -> dict[str, tuple[str, list[str]]]:
    """Name -> the kind of page it reads, and its command without URL and count."""
    ours = [sys.executable, str(HERE / "ours.py"), "URL", "PAGES"]
    known = {
        "floor: aiohttp + lexbor": ("p", [sys.executable, str(HERE / "floor.py"), "URL", "PAGES"]),
        "Switchroom (durable, Markdown)": ("p", [*ours, "never"]),
        "Switchroom, rendered": ("js", [*ours, "auto"]),
    }
    if not peers:
        console.print("without the peers; `--help` tells how to install them", style="yellow")
    else:
        missing = subprocess.run([peers, "-c", "import scrapy, scrapy_playwright, crawlee, parsel"], check=False)
        if missing.returncode:
            raise SystemExit(f"{peers} lacks a peer; `--help` tells how to install them")
        scrapy = [peers, str(HERE / "peers" / "scrapy_peer.py"), "URL", "PAGES"]
        crawlee = [peers, str(HERE / "peers" / "crawlee_peer.py"), "URL", "PAGES"]
        known |= {
            "Scrapy (durable)": ("p", scrapy),
            "Crawlee Parsel (durable)": ("p", [*crawlee, "file"]),
            "Crawlee Parsel (memory)": ("p", [*crawlee, "memory"]),
            "scrapy-playwright": ("js", [*scrapy, "js"]),
            "Crawlee Playwright": ("js", [*crawlee, "js"]),
        }
    return known


def main(arguments: argparse.Namespace) -> None:
    rows: dict[str, list[tuple[float, ...]]] = {}
    sizes = {"p": arguments.pages, "js": arguments.rendered}
    chosen = {
        name: found
        for name, found in tools(arguments.peers).items()
        if not arguments.only or any(word.lower() in name.lower() for word in arguments.only)
    }
    for kind, size in sizes.items():
        site = subprocess.Popen(
            [sys.executable, str(HERE / "site.py"), "--pages", str(size)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert site.stdout is not None
            base = f"http://127.0.0.1:{site.stdout.readline().split()[1]}"
            for _ in range(arguments.repeats):
                for name, (reads, command) in chosen.items():
                    if reads != kind:
                        continue
                    filled = [{"URL": f"{base}/{kind}/0"}.get(word, word) for word in command]
                    start = run_one([{"PAGES": "1"}.get(word, word) for word in filled], base)
                    got = run_one([{"PAGES": str(size)}.get(word, word) for word in filled], base)
                    if not got.said.startswith("done"):
                        console.print(f"[red]{name} failed")
                        continue
                    more = max(got.pages - start.pages, 1)
                    cpu = (got.cpu_s - start.cpu_s) / more * 1000
                    store = (got.store_s - start.store_s) / more * 1000
                    rate = more / max(got.wall_s - start.wall_s, 0.01)
                    figures = (
                        cpu,
                        store,
                        rate,
                        got.peak_mb,
                        got.pages / size * 100,
                        got.requests / got.pages,
                        got.foreign,
                    )
                    rows.setdefault(name, []).append(figures)
                    console.print(
                        f"{name}: {cpu:.2f} CPU s/1k, foreign {got.foreign:.2f} ({got.said})", highlight=False
                    )
        finally:
            site.terminate()
            site.wait()
    show(rows, sizes)


def show(rows: dict[str, list[tuple[float, ...]]], sizes: dict[str, int]) -> None:
    titles = ("CPU s / 1,000 pages", "of it the store", "pages/s", "peak MB", "coverage %", "requests/page", "foreign")
    table = Table(
        "crawler", *titles, title=f"{sizes['p']} pages over HTTP, {sizes['js']} rendered; medians (least-most)"
    )
    for name, samples in rows.items():
        cells = []
        for index, digits in enumerate((2, 2, 0, 0, 1, 2, 2)):
            values = [sample[index] for sample in samples]
            cell = f"{statistics.median(values):.{digits}f}"
            cells.append(cell + (f" ({min(values):.{digits}f}-{max(values):.{digits}f})" if index == 0 else ""))
        table.add_row(name, *cells)
    console.print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="a Python interpreter with the peers installed")
    parser.add_argument("--pages", type=int, default=2000)
    parser.add_argument("--rendered", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[])
    main(parser.parse_args())
