from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import ResponseError

from switchroom.errors import Unavailable
from switchroom.store import Library, Script, Store


async def test_replies_come_as_resp2(store: Store) -> None:
    assert await store.call("SET", "k", b"\x00\xff") == b"OK"
    assert await store.call("GET", "k") == b"\x00\xff"
    assert await store.call("GET", "none") is None
    assert await store.call("INCRBY", "n", 3) == 3
    assert await store.call("RPUSH", "l", "a", "b") == 2
    assert await store.call("LRANGE", "l", 0, -1) == [b"a", b"b"]


async def test_calls_of_one_tick_share_one_write_and_keep_their_order(store: Store) -> None:
    await store.call("PING")
    before = await store.call("INFO", "stats")
    replies = await asyncio.gather(*(store.call("INCR", "n") for _ in range(500)))
    after = await store.call("INFO", "stats")
    assert replies == list(range(1, 501))

    def reads(info: bytes) -> int:
        line = next(line for line in info.splitlines() if line.startswith(b"total_reads_processed"))
        return int(line.split(b":")[1])

    assert reads(after) - reads(before) < 50


async def test_a_server_error_reaches_its_own_call_only(store: Store) -> None:
    await store.call("SET", "text", "x")
    bad, good = await asyncio.gather(store.call("INCR", "text"), store.call("INCR", "n"), return_exceptions=True)
    assert isinstance(bad, ResponseError)
    assert good == 1


async def test_script_runs_by_its_hash_and_is_loaded_when_unknown(store: Store) -> None:
    script = Script("return {KEYS[1], ARGV[1]}")
    await store.call("SCRIPT", "FLUSH")
    assert await store.run(script, ["k"], ["v"]) == [b"k", b"v"]
    assert (await store.call("SCRIPT", "EXISTS", script.sha)) == [1]
    await store.call("SCRIPT", "FLUSH")
    replies = await asyncio.gather(*(store.run(script, ["k"], [n]) for n in range(20)))
    assert [reply[1] for reply in replies] == [str(n).encode() for n in range(20)]


async def test_a_library_sets_up_once_and_is_loaded_again_where_it_is_missing(store: Store) -> None:
    counting = Library("counting", "local times = 0\nreturn function(keys, args) times = times + 1 return times end")
    other = Library("counting", "return function(keys, args) return args[1] end")
    assert [await store.run_function(counting, ["{x}a"], []) for _ in range(3)] == [1, 2, 3]
    assert await store.run_function(other, ["{x}a"], ["hello"]) == b"hello"  # another version beside it
    assert await store.run_function(counting, ["{x}a"], []) == 4
    await store.call("FUNCTION", "FLUSH")
    replies = await asyncio.gather(*(store.run_function(counting, ["{x}a"], []) for _ in range(5)))
    assert sorted(replies) == [1, 2, 3, 4, 5]


async def test_a_lost_connection_fails_what_was_under_way_and_heals(store: Store) -> None:
    await store.call("PING")
    killer = await Store.connect(store.url)
    ours = await store.call("CLIENT", "ID")
    waiting = asyncio.ensure_future(store.call("BLPOP", "nothing", 5))
    await asyncio.sleep(0.05)
    await killer.call("CLIENT", "KILL", "ID", ours)
    with pytest.raises(Unavailable, match="lost"):
        await waiting
    assert await store.call("PING") == b"PONG"
    await killer.close()


async def test_no_server_is_a_clear_error(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("switchroom.store.store.CONNECT_PATIENCE_S", 0.3)
    store = Store(f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(Unavailable, match="does not answer"):
        await store.call("PING")
    await store.close()


async def test_a_silent_server_hits_the_deadline(store: Store) -> None:
    impatient = Store(store.url, timeout_s=0.2)
    await impatient.call("PING")
    with pytest.raises(Unavailable):
        await impatient.call("BLPOP", "nothing", 5)
    await impatient.close()


async def test_blocking_call_wakes_and_has_our_deadline(store: Store) -> None:
    waiting = asyncio.ensure_future(store.blocking("BLPOP", "list", 5, timeout_s=6))
    await asyncio.sleep(0.05)
    await store.call("RPUSH", "list", "x")
    assert await waiting == [b"list", b"x"]
    with pytest.raises(Unavailable):
        await store.blocking("BLPOP", "list", 5, timeout_s=0.2)
