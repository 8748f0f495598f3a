"""What the processes were told, against what the store holds and what its event stream said."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from switchroom.queue import Call, Queue, State
from switchroom.store import Store


@dataclass
class Audit:
    """`counts` is the table; `faults` what must not be, each with an example."""

    counts: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def fault(self, what: str, found: list[Any]) -> None:
        self.counts[what] = len(found)
        if found:
            self.faults.append(f"{what}: {len(found)}, e.g. {found[:3]}")

    def table(self) -> str:
        width = max(len(name) for name in self.counts)
        return "\n".join(f"{name:<{width}}  {count:>8,}" for name, count in self.counts.items())


def read(folder: Path, pattern: str) -> list[dict[str, Any]]:
    """The lines of the ledgers of a kind. A writer that was killed may have left half a line: it had not gone on."""
    lines = []
    for path in sorted(folder.glob(pattern)):
        whole, _, _ = path.read_bytes().rpartition(b"\n")
        lines += [json.loads(line) for line in whole.splitlines()]
    return lines


async def stored(store_url: str, flow: str, tasks: list[str]) -> dict[str, Call | None]:
    store = Store(store_url)
    queue = Queue(store)
    calls: dict[str, Call | None] = {}
    for first in range(0, len(tasks), 500):
        some = tasks[first : first + 500]
        calls |= dict(zip(some, await asyncio.gather(*(queue.get(flow, task) for task in some)), strict=True))
    await store.close()
    return calls


def audit(folder: Path, store_url: str, flow: str) -> Audit:
    """Compares everything. Call it once all is drained."""
    said = read(folder, "enqueue-*.jsonl")
    holders = read(folder, "hold-*.jsonl")
    events = read(folder, "events.jsonl")
    result = Audit()
    result.counts["enqueue requests with no answer, sent again"] = sum(line["what"] == "no answer" for line in said)
    result.counts["enqueue requests answered 5xx or 429, sent again"] = sum(line["what"] == "refused" for line in said)

    by_key: dict[str, set[str]] = defaultdict(set)
    for line in said:
        if line["what"] == "accepted":
            by_key[line["key"]].add(line["task"])
    accepted = {next(iter(tasks)): key for key, tasks in by_key.items()}
    result.counts["calls accepted (202)"] = len(by_key)
    result.fault("! one key, two calls", [key for key, tasks in by_key.items() if len(tasks) > 1])
    result.fault("! one call, two keys", [key for key in by_key if len(accepted) != len(by_key)])

    calls = asyncio.run(stored(store_url, flow, list(accepted)))
    result.fault("! accepted, and lost", [task for task, call in calls.items() if call is None])
    result.fault(
        "! accepted, and not ended",
        [(task, call.state) for task, call in calls.items() if call is not None and call.state is not State.ENDED],
    )
    result.fault(
        "! another caller's data",
        [task for task, call in calls.items() if call is not None and call.form.get("ID") != accepted[task]],
    )
    ends = Counter(str(call.end_reason) for call in calls.values() if call is not None)
    for reason, count in sorted(ends.items()):
        result.counts[f"ended: {reason}"] = count

    _events(result, events, accepted)
    _holders(result, holders, calls)
    return result


def _events(result: Audit, events: list[dict[str, Any]], accepted: dict[str, str]) -> None:
    result.counts["events"] = len(events)
    by_task: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        by_task[event["task"]].append(event)
    result.fault("! accepted, and no event of it", [task for task in accepted if task not in by_task])
    # Each key was asked for until it was accepted: a call beside those is one that came twice.
    result.fault("! in the queue, and nobody was told 202", [task for task in by_task if task not in accepted])
    result.fault(
        "! begun not exactly once",
        [task for task, story in by_task.items() if sum(event["from"] is None for event in story) != 1],
    )
    result.fault(
        "! ended not exactly once",
        [task for task, story in by_task.items() if sum(event["to"] == "ended" for event in story) != 1],
    )
    broken = []
    for task, story in by_task.items():
        states = [None, *(event["to"] for event in story)]
        attempts = [event["attempt"] for event in story]
        if [event["from"] for event in story] != states[:-1] or states[-1] != "ended" or attempts != sorted(attempts):
            broken.append((task, [(event["from"], event["cause"], event["to"]) for event in story]))
    result.fault("! a story with a gap", broken)
    result.counts["taken back from a holder"] = sum(event["cause"] == "lease_expired" for event in events)
    result.counts["record closed by the clock"] = sum(event["cause"] == "wrapup_over" for event in events)


def _holders(result: Audit, lines: list[dict[str, Any]], calls: dict[str, Call | None]) -> None:
    kinds = Counter(line["what"] for line in lines)
    for what in ("held", "finished", "lost", "unsure", "late refused"):
        result.counts[f"holders: {what}"] = kinds[what]
    result.fault("! a late write accepted", [line for line in lines if line["what"] == "late accepted"])
    holds = Counter((line["task"], line["token"]) for line in lines if line["what"] == "held")
    result.fault("! two holds of a call with one token", [hold for hold, count in holds.items() if count > 1])
    owners = defaultdict(set)  # one claim may take several calls with one token, and is one owner's
    for line in lines:
        if line["what"] == "held":
            owners[line["token"]].add(line["owner"])
    result.fault("! two owners with one token", [token for token, names in owners.items() if len(names) > 1])
    told = defaultdict(list)
    for line in lines:
        if line["what"] == "finished":
            told[line["task"]].append(f"{line['owner']}:{line['token']}")
    result.fault("! two holders told that they finished", [task for task, names in told.items() if len(names) > 1])
    result.fault(
        "! finished, and the store says another did",
        [(task, names) for task, names in told.items() if (call := calls.get(task)) and call.outcome not in names],
    )
    tried = {f"{line['owner']}:{line['token']}" for line in lines if line["what"] == "finishing"}
    result.fault(
        "! finished by nobody who said so",
        [task for task, call in calls.items() if call is not None and call.outcome and call.outcome not in tried],
    )
    result.counts["finished, and the holder died before it was told"] = sum(
        1 for task, call in calls.items() if call is not None and call.outcome and task not in told
    )
