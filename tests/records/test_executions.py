"""Records on the real store: rows with their indexes, ends that stay, lists, deletes with audio, lost calls."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from switchroom.records import (
    Execution,
    ExecutionFilter,
    Executions,
    ExecutionState,
    Recording,
    TurnTiming,
    Utterance,
    is_final,
    state_of_end,
)
from switchroom.store import Blobs, Store, keys


@pytest.fixture
def blobs(data_dir: Path) -> Blobs:
    return Blobs(data_dir / "blobs")


@pytest.fixture
def executions(store: Store, blobs: Blobs) -> Executions:
    return Executions(store, blobs)


def row(**members: object) -> Execution:
    values: dict[str, object] = {"id": str(uuid.uuid4()), "flow_id": "flow-a", "session_id": "s1", "kind": "realtime"}
    return Execution(**{**values, **members})  # type: ignore[arg-type]


async def test_a_row_comes_back_as_it_was_written(executions: Executions) -> None:
    written = row(
        task_id="flowise-1",
        attempt=2,
        caller_id="+38641656457",
        form={"ID": "+38641656457", "n": [1, 2.5, None, {"č": "š"}]},
        memory={"crm": {"tier": "gold"}},
        nodes=[{"id": "agent_0", "output": {"text": "Hello"}}],
        transcript=[Utterance(role="caller", text="Živjo", start_ms=10, end_ms=900)],
        timings=[TurnTiming(turn=1, first_audio_ms=412.5)],
    )
    assert await executions.begin(written)
    read = await executions.get(written.id)
    assert read == written
    assert read is not None and read.created_ms == read.updated_ms > 0
    assert await executions.get(str(uuid.uuid4())) is None


async def test_an_ended_row_is_never_overwritten(executions: Executions) -> None:
    mine = row()
    await executions.begin(mine)
    theirs = await executions.get(mine.id)
    assert theirs is not None
    theirs.detail = "ended by the new holder"
    assert await executions.finish(theirs, ExecutionState.TIMEOUT)

    mine.detail = "late write of the old holder"
    assert not await executions.save(mine)
    assert not await executions.begin(mine)
    assert not await executions.finish(mine, ExecutionState.FINISHED)
    stored = await executions.get(mine.id)
    assert stored is not None
    assert (stored.state, stored.detail) == (ExecutionState.TIMEOUT, "ended by the new holder")
    assert stored.stopped_ms >= stored.created_ms


async def test_a_stopped_row_waits_and_goes_on(executions: Executions) -> None:
    waiting = row()
    await executions.begin(waiting)
    assert await executions.finish(waiting, ExecutionState.STOPPED)
    assert waiting.stopped_ms == 0
    assert await executions.finish(waiting, ExecutionState.FINISHED)
    found, total = await executions.search(ExecutionFilter(state=ExecutionState.STOPPED))
    assert (found, total) == ([], 0)


async def test_a_recording_goes_with_its_record(executions: Executions, blobs: Blobs) -> None:
    ended = row()
    await executions.begin(ended)
    name, path = await asyncio.to_thread(blobs.new, "wav")
    audio = Recording(blob=name, format="wav", sample_rate=16000, channels=2, duration_ms=10, bytes=684)
    ended.recording = audio
    assert await executions.finish(ended, ExecutionState.FINISHED)
    stored = await executions.get(ended.id)
    assert stored is not None and stored.recording == audio and stored.state is ExecutionState.FINISHED

    assert await executions.delete([ended.id]) == 1
    assert not path.exists()


async def test_delete_takes_row_indexes_and_hints(executions: Executions, store: Store) -> None:
    rows = [row(task_id=f"t{i}", session_id=f"s{i}") for i in range(3)]
    for one in rows:
        await executions.begin(one)
    assert await executions.delete([rows[0].id, rows[0].id, rows[1].id, str(uuid.uuid4())]) == 2
    left = {key.decode() for key in await store.call("KEYS", "sr:*")}
    assert left == {
        keys.execution("flow-a", rows[2].id),
        keys.execution_flow(rows[2].id),
        keys.execution_flows(),
        *(keys.execution_index("flow-a", *kind) for kind in (("all",), ("session", "s2"), ("task", "t2"))),
        keys.execution_index("flow-a", "state", "INPROGRESS"),
    }
    assert not await executions.save(rows[0]), "a deleted row is not brought back by its running call"
    assert await executions.get(rows[0].id) is None


async def test_lists_agree_with_a_plain_search(executions: Executions) -> None:
    """Random rows, random filters: page by page the store gives what a search of the list gives."""
    dice = random.Random(7)
    rows = []
    for i in range(300):
        one = row(
            flow_id=dice.choice(["flow-a", "flow-b", "flow-c"]),
            session_id=dice.choice(["s1", "s2", "s3", ""]),
            task_id=dice.choice(["t1", "t2", ""]),
            created_ms=1_700_000_000_000 + dice.randrange(150) + i // 300,
        )
        rows.append(one)
    await asyncio.gather(*(executions.begin(one) for one in rows))
    ended = [one for one in rows if dice.random() < 0.6]
    states = [dice.choice([ExecutionState.FINISHED, ExecutionState.ERROR]) for _ in ended]
    await asyncio.gather(*(executions.finish(one, state) for one, state in zip(ended, states, strict=True)))

    for _ in range(60):
        wanted = ExecutionFilter(
            flow_id=dice.choice([None, "flow-a", "flow-b", "nowhere"]),
            session_id=dice.choice([None, "s1", "s2"]),
            task_id=dice.choice([None, None, "t1"]),
            state=dice.choice([None, ExecutionState.FINISHED, ExecutionState.INPROGRESS, ExecutionState.TIMEOUT]),
            start_ms=dice.choice([None, 1_700_000_000_040]),
            end_ms=dice.choice([None, 1_700_000_000_100]),
        )
        expected = sorted(
            (one for one in rows if _plain(one, wanted)), key=lambda r: (r.created_ms, r.id), reverse=True
        )
        limit = dice.choice([1, 7, 50])
        page = dice.randrange(1, 4)
        found, total = await executions.search(wanted, page=page, limit=limit)
        assert total == len(expected)
        assert [one.id for one in found] == [one.id for one in expected[(page - 1) * limit : page * limit]]
        assert [one.id async for one in executions.export(wanted)] == [one.id for one in expected]


async def test_one_id_with_other_filters(executions: Executions) -> None:
    one = row(session_id="s9")
    await executions.begin(one)
    assert await executions.search(ExecutionFilter(id=one.id)) == ([one], 1)
    assert await executions.search(ExecutionFilter(id=one.id), page=2) == ([], 1)
    assert await executions.search(ExecutionFilter(id=one.id, session_id="other")) == ([], 0)
    assert [r async for r in executions.export(ExecutionFilter(id=one.id, flow_id="flow-a"))] == [one]


async def test_attempts_of_a_call_oldest_first(executions: Executions) -> None:
    attempts = [row(task_id="t", attempt=i, created_ms=1000 + i) for i in (1, 2, 3)]
    for one in reversed(attempts):
        await executions.begin(one)
    assert [one.attempt for one in await executions.find("flow-a", "t")] == [1, 2, 3]
    assert await executions.attempt_ids("flow-a", "t") == [one.id for one in attempts]
    assert await executions.find("flow-b", "t") == []


async def test_a_lost_call_is_closed_with_the_truth(executions: Executions) -> None:
    lost, other = row(task_id="t", attempt=1), row(task_id="t", attempt=2)
    await executions.begin(lost)
    await executions.begin(other)
    assert await executions.close_lost("flow-a", "t", 1, "failed", "the media process died") == 1
    stored = await executions.get(lost.id)
    assert stored is not None
    assert (stored.state, stored.end_reason, stored.detail) == (
        ExecutionState.ERROR,
        "failed",
        "the media process died",
    )
    assert stored.stopped_ms > 0
    assert not await executions.save(lost), "the lost holder comes back too late"
    assert await executions.close_lost("flow-a", "t", 1, "failed", "again") == 0
    untouched = await executions.get(other.id)
    assert untouched is not None and untouched.state is ExecutionState.INPROGRESS
    assert await executions.close_lost("flow-a", "t", 2, "timeout", "no ping for 60 s") == 1
    assert (await executions.find("flow-a", "t"))[1].state is ExecutionState.TIMEOUT


async def test_closing_a_lost_call_loses_no_write_of_its_holder(executions: Executions) -> None:
    """The holder saves while the row is closed: whichever order the server takes, the row ends with its last turn."""
    lost = row(task_id="t", attempt=1)
    await executions.begin(lost)
    saved = 0

    async def holder() -> None:
        nonlocal saved
        for turn in range(200):
            lost.nodes = [{"turn": turn}]
            if not await executions.save(lost):
                return
            saved = turn

    async def closer() -> int:
        await asyncio.sleep(0.005)
        return await executions.close_lost("flow-a", "t", 1, "failed", "lease expired")

    _, closed = await asyncio.gather(holder(), closer())
    stored = await executions.get(lost.id)
    assert closed == 1 and stored is not None
    assert stored.state is ExecutionState.ERROR
    assert stored.nodes == [{"turn": saved}]


async def test_turns_of_a_dead_process_are_closed(executions: Executions, store: Store) -> None:
    later = time.time_ns() // 1_000_000 + 60_000
    lost = row(kind="turn", created_ms=1000)
    others = [row(kind="turn", created_ms=later), row(created_ms=1000), row(kind="turn", created_ms=1500)]
    for one in (lost, *others):
        await executions.begin(one)
    await executions.finish(others[2], ExecutionState.FINISHED)
    # It began long ago, but goes on since just now: a person has answered.
    assert await executions.close_lost_turns(2000) == 0
    assert await executions.close_lost_turns(later) == 1
    assert await executions.close_lost_turns(later) == 0
    stored = await executions.get(lost.id)
    assert stored is not None and stored.state is ExecutionState.TIMEOUT and "died" in stored.detail
    # A run that waits for a person waits as long as its session is kept.
    waits = row(kind="turn", created_ms=1000)
    await executions.begin(waits)
    await executions.finish(waits, ExecutionState.STOPPED)
    place = keys.session(waits.flow_id, waits.session_id)
    await store.call("SET", place, "{}")
    assert await executions.close_lost_turns(later) == 0
    await store.call("DEL", place)
    assert await executions.close_lost_turns(later) == 1
    stored = await executions.get(waits.id)
    assert stored is not None and (stored.state, "Nobody" in stored.detail) == (ExecutionState.TIMEOUT, True)
    states = [found.state for one in others if (found := await executions.get(one.id)) is not None]
    assert states == [ExecutionState.INPROGRESS, ExecutionState.INPROGRESS, ExecutionState.FINISHED]


async def test_prune_keeps_what_is_young_or_runs(executions: Executions, blobs: Blobs) -> None:
    name, path = await asyncio.to_thread(blobs.new, "wav")
    old = [row(created_ms=1000 + i) for i in range(450)]
    old[3].recording = Recording(blob=name, format="wav", sample_rate=16000, channels=2, duration_ms=1, bytes=44)
    running = [row(created_ms=500), row(created_ms=1100)]
    young = row(created_ms=5000)
    await asyncio.gather(*(executions.begin(one) for one in (*old, *running, young)))
    await asyncio.gather(*(executions.finish(one, ExecutionState.FINISHED) for one in (*old, young)))
    assert await executions.prune(5000) == 450
    left, total = await executions.search(ExecutionFilter(), limit=50)
    assert ({one.id for one in left}, total) == ({one.id for one in (*running, young)}, 3)
    assert not path.exists()


async def test_audio_may_go_before_its_record(executions: Executions, blobs: Blobs) -> None:
    async def recorded(**members: Any) -> tuple[Execution, Path]:
        name, path = await asyncio.to_thread(blobs.new, "ogg")
        audio = Recording(blob=name, format="ogg", sample_rate=48000, channels=2, duration_ms=1, bytes=0)
        one = row(recording=audio, **members)
        await executions.begin(one)
        return one, path

    old, old_path = await recorded(created_ms=1000)
    _, running_path = await recorded(created_ms=1001)
    young, young_path = await recorded(created_ms=5000)
    silent = row(created_ms=1002)
    await executions.begin(silent)
    for one in (old, young, silent):
        await executions.finish(one, ExecutionState.FINISHED)
    assert await executions.drop_recordings(0, 5000) == 1
    assert await executions.drop_recordings(0, 5000) == 0
    assert (old_path.exists(), running_path.exists(), young_path.exists()) == (False, True, True)
    left = await executions.get(old.id)
    assert left is not None and left.recording is None and left.state is ExecutionState.FINISHED
    assert await executions.drop_recordings(5001, 9000) == 0  # what lies before is known to be silent


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        ("completed", "FINISHED"),
        ("cancelled", "TERMINATED"),
        ("timeout", "TIMEOUT"),
        ("failed", "ERROR"),
        ("?", "ERROR"),
    ],
)
def test_state_of_an_end(reason: str, state: str) -> None:
    assert state_of_end(reason) == state
    assert is_final(state_of_end(reason))


def _plain(one: Execution, wanted: ExecutionFilter) -> bool:
    return all(
        (
            wanted.flow_id in (None, one.flow_id),
            wanted.session_id in (None, one.session_id),
            wanted.task_id in (None, one.task_id),
            wanted.state in (None, one.state),
            wanted.start_ms is None or wanted.start_ms <= one.created_ms,
            wanted.end_ms is None or one.created_ms <= wanted.end_ms,
        )
    )
