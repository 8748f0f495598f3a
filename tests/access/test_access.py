"""Keys on the real store: who is let in, who is not, and how soon a revoked key stops."""

from __future__ import annotations

import time

import pytest
from multidict import CIMultiDict
from pydantic import SecretStr

from switchroom.access import Access, Scope, access, presented_key
from switchroom.errors import Forbidden, NotFound, Unauthorized
from switchroom.store import Store, keys

SETTINGS_KEYS = [SecretStr("first-key-from-settings"), SecretStr("drugi-ključ")]


async def test_a_settings_key_may_do_everything(store: Store) -> None:
    checker = Access(store, SETTINGS_KEYS)
    for number, key in enumerate(SETTINGS_KEYS, 1):
        for _ in range(2):  # the second comes from the cache
            principal = await checker.check(key.get_secret_value(), Scope.RECORDS_WRITE)
            assert principal.key_id == f"settings-{number}"


@pytest.mark.parametrize(
    "wrong", [None, "", "first-key-from-setting", "first-key-from-settings ", "x" * 100_000, "\udcff"]
)
async def test_no_or_a_wrong_key_is_401(store: Store, wrong: str | None) -> None:
    with pytest.raises(Unauthorized) as caught:
        await Access(store, SETTINGS_KEYS).check(wrong, Scope.RUN)
    assert "first-key" not in caught.value.detail


async def test_a_stored_key_lives_until_it_is_revoked(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "CACHE_S", 0.05)
    here, elsewhere = Access(store), Access(store)
    key, record = await here.create("crm", [Scope.QUEUE_WRITE, Scope.QUEUE_READ])
    principal = await elsewhere.check(key, Scope.QUEUE_WRITE)
    assert (principal.key_id, principal.name) == (record.id, "crm")
    with pytest.raises(Forbidden) as caught:
        await elsewhere.check(key, Scope.RECORDS_READ)
    assert caught.value.extra == {"scope": "records:read"}
    forged = f"swr_{record.id}_{'A' * 43}"
    assert await elsewhere.identify(forged) is None

    await here.revoke(record.id)
    assert await here.identify(key) is None, "at once in the process that revoked it"
    deadline = time.monotonic() + 10
    while await elsewhere.identify(key) is not None:
        assert time.monotonic() < deadline
    with pytest.raises(NotFound):
        await here.revoke(record.id)


async def test_the_store_never_holds_a_key(store: Store) -> None:
    checker = Access(store, SETTINGS_KEYS)
    key, record = await checker.create("crm")
    await checker.check(key, Scope.RUN)
    (stored,) = await store.call("HVALS", keys.access_keys())
    assert key.encode() not in stored and key.rsplit("_", 1)[1].encode() not in stored
    assert await checker.stored() == [record]


async def test_open_only_while_no_key_exists(store: Store) -> None:
    opened = Access(store, allow_open=True)
    assert (await opened.check(None, Scope.FLOWS_WRITE)).key_id == "open"
    with pytest.raises(Unauthorized):
        await Access(store).check(None, Scope.FLOWS_WRITE)
    with pytest.raises(Unauthorized):
        await Access(store, SETTINGS_KEYS, allow_open=True).check(None, Scope.FLOWS_WRITE)
    key, _ = await opened.create("first")
    with pytest.raises(Unauthorized):
        await opened.check(None, Scope.FLOWS_WRITE)
    assert (await opened.check(key, Scope.FLOWS_WRITE)).name == "first"


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({"authorization": "Bearer abc"}, "abc"),
        ({"Authorization": "bearer  abc "}, "abc"),
        ({"x-api-key": "abc"}, "abc"),
        ({"X-API-KEY": " abc "}, "abc"),
        ({"Authorization": "Basic Zm9v", "X-API-Key": "abc"}, "abc"),
        ({"Authorization": "Bearer one", "X-API-Key": "two"}, "one"),
        ({"Authorization": "Bearer"}, None),
        ({}, None),
    ],
)
def test_where_a_key_is_read(headers: dict[str, str], key: str | None) -> None:
    assert presented_key(CIMultiDict(headers)) == key
