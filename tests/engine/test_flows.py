"""Stored flows: versions seen across processes, settings, bad input."""

from __future__ import annotations

import pytest

from switchroom.engine import FlowSettings, FlowStore
from switchroom.errors import BadInput, Unprocessable
from switchroom.store import Store

from .conftest import draw

CANVAS = draw({"s": ("startRealtime", {}), "a": ("agentRealtime", {})}, [("s", "a")])
TEXT = draw({"s": ("startAgentflow", {}), "a": ("llmAgentflow", {})}, [("s", "a")])


async def test_a_flow_comes_back_as_it_was_imported(flows: FlowStore) -> None:
    saved = await flows.save(CANVAS, name="Line", settings={"lines": 2})
    other = FlowStore(flows._store)
    found = await other.get(saved.id)
    assert found == saved
    assert found.canvas == CANVAS
    assert (found.kind, found.name, found.settings.lines) == ("realtime", "Line", 2)
    assert found.hash == found.graph.hash


async def test_another_process_sees_a_new_version(flows: FlowStore, store: Store) -> None:
    other = FlowStore(store)
    first = await flows.save(CANVAS, flow_id="f", name="One", settings={"duplicates": "reject"})
    assert await other.get("f") == first
    second = await flows.save(TEXT, flow_id="f")
    found = await other.get("f")
    assert found == second
    assert found.hash != first.hash
    assert (found.name, found.settings.duplicates, found.created_ms) == ("One", "reject", first.created_ms)


async def test_get_is_one_small_read_while_nothing_changes(flows: FlowStore, store: Store) -> None:
    saved = await flows.save(CANVAS, flow_id="f")
    await store.call("CONFIG", "RESETSTAT")
    assert await flows.get("f") is saved
    stats = (await store.call("INFO", "commandstats")).decode()
    calls = {line.split(":")[0] for line in stats.splitlines() if line.startswith("cmdstat_")}
    assert calls - {"cmdstat_config|resetstat"} == {"cmdstat_hget"}


async def test_list_and_delete(flows: FlowStore) -> None:
    for index in range(3):
        await flows.save(CANVAS, flow_id=f"f{index}")
    page, total = await flows.list(0, 2)
    assert (len(page), total) == (2, 3)
    assert await flows.delete("f1")
    assert not await flows.delete("f1")
    assert await flows.get("f1") is None
    assert (await flows.list())[1] == 2


@pytest.mark.parametrize("flow_id", ["", "a/b", "x" * 65, "{a}", "a b", "é"])
async def test_a_bad_id(flows: FlowStore, flow_id: str) -> None:
    with pytest.raises(BadInput):
        await flows.save(CANVAS, flow_id=flow_id)
    assert await flows.get(flow_id) is None


@pytest.mark.parametrize(
    "settings", [{"lines": 0}, {"lines": "many"}, {"duplicates": "maybe"}, {"unknown": 1}, {"max_attempts": -1}]
)
async def test_bad_settings(flows: FlowStore, settings: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        await flows.save(CANVAS, flow_id="f", settings=settings)
    assert await flows.get("f") is None


async def test_a_canvas_with_errors_is_not_saved(flows: FlowStore) -> None:
    with pytest.raises(Unprocessable):
        await flows.save(draw({"a": ("agentRealtime", {})}, []), flow_id="f")
    assert await flows.get("f") is None


async def test_configure(flows: FlowStore) -> None:
    saved = await flows.save(CANVAS, flow_id="f")
    changed = await flows.configure(saved, {"protected": True})
    assert changed.settings == FlowSettings(protected=True)
    assert await flows.get("f") == changed


async def test_a_number_that_is_too_big_for_64_bits(flows: FlowStore, store: Store) -> None:
    canvas = draw({"s": ("startRealtime", {"odd": 2**70}), "a": ("agentRealtime", {})}, [("s", "a")])
    saved = await flows.save(canvas, flow_id="f")
    found = await FlowStore(store).get("f")
    assert found is not None
    assert (found.graph, found.hash) == (saved.graph, saved.hash)
