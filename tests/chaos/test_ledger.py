"""Half a minute of faults against the whole product: every accepted call is accounted for exactly once."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from driver import FLOW, Run, report, short_folder
from ledger import audit

from switchroom.queue import EndReason, NewCall, Queue, Rules
from switchroom.store import Store, keys


def test_nothing_is_lost_and_nothing_ends_twice() -> None:
    folder = short_folder()
    run = Run(folder, seed="suite", seconds=14)
    found = run.run()
    print("\n" + report(run, found))
    assert found.faults == []
    assert found.counts["calls accepted (202)"] > 50
    assert len(run.faults) >= 4
    shutil.rmtree(folder, ignore_errors=True)  # kept when something was found


async def test_the_ledger_sees_what_it_is_for(store: Store, server_url: str, tmp_path: Path) -> None:
    """A call that vanished, one that nobody ended, one that two holders ended, a late write that was taken."""
    queue = Queue(store)
    rules = Rules(lines=10)
    await queue.configure(FLOW, rules)
    tasks = []
    for name in ("whole", "gone", "waiting"):
        tasks.append((await queue.enqueue(FLOW, NewCall(form={"ID": name}), rules)).task_id)
    (held,) = await queue.claim(FLOW, "one", limit=1, answered=True)
    await queue.finish(held, EndReason.COMPLETED, outcome=f"one:{held.token}")
    await store.call("DEL", keys.flow(FLOW) + keys.CALL + tasks[1])
    told = [{"what": "accepted", "key": key, "task": task} for key, task in zip("abc", tasks, strict=True)]
    mine = {"task": held.task_id, "owner": "one", "token": held.token}
    holds = [{"what": what, **mine} for what in ("held", "finishing", "finished")]
    other = {"what": "finished", "task": held.task_id, "owner": "two", "token": held.token + 1}
    late = {"what": "late accepted", "verb": "finish", **mine}
    events = [
        {
            "task": event.task_id,
            "from": event.previous,
            "to": event.state,
            "cause": event.cause,
            "attempt": event.attempt,
        }
        for event in await queue.events(FLOW)
    ]
    for name, lines in (("enqueue-1", told), ("hold-1", [*holds, other, late]), ("events", [*events[:-1]])):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / f"{name}.jsonl").write_text(text)
    found = await asyncio.to_thread(audit, tmp_path, server_url, FLOW)
    wrong = {name for name, count in found.counts.items() if name.startswith("!") and count}
    assert wrong == {
        "! accepted, and lost",
        "! accepted, and not ended",
        "! another caller's data",
        "! ended not exactly once",
        "! a story with a gap",
        "! a late write accepted",
        "! two holders told that they finished",
    }
    assert len(found.faults) == len(wrong)
