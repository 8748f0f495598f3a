"""Endpoints and their secrets."""

from __future__ import annotations

import asyncio
import base64

import pytest
from receiving import FLOW, MakeWebhooks

from switchroom.errors import Conflict, NotFound
from switchroom.store import SealBroken, Store, keys
from switchroom.webhooks import CALLBACK, Webhooks, endpoints


async def hooks(store: Store) -> int:
    return int(await store.call("HGET", keys.queue_config(FLOW), "hooks") or 0)


async def test_create_change_and_remove(store: Store, webhooks: Webhooks) -> None:
    made, secret = await webhooks.endpoints.create(FLOW, "https://a.example/x", types=["call.ended"], description="CRM")
    assert secret.startswith("whsec_")
    assert await webhooks.endpoints.get(FLOW, made.id) == made
    assert await webhooks.endpoints.secrets(made) == [secret]
    assert (made.wants("call.ended"), made.wants("call.live")) == (True, False)
    assert await hooks(store) == 1, "the queue's scripts write the outbox from now on"
    off = await webhooks.endpoints.update(FLOW, made.id, url="https://b.example/", types=[], enabled=False)
    assert (off.url, off.types, off.enabled, off.disabled_reason) == ("https://b.example/", (), False, "asked")
    assert not off.wants("call.ended")
    assert await hooks(store) == 0
    on = await webhooks.endpoints.update(FLOW, made.id, enabled=True)
    assert (on.enabled, on.disabled_reason, await hooks(store)) == (True, "", 1)
    await webhooks.endpoints.delete(FLOW, made.id)
    assert (await webhooks.endpoints.all(FLOW), await hooks(store)) == ([], 0)
    for gone in (webhooks.endpoints.get, webhooks.endpoints.delete, webhooks.endpoints.rotate):
        with pytest.raises(NotFound):
            await gone(FLOW, made.id)


async def test_an_old_secret_signs_along_for_a_day(webhooks: Webhooks, monkeypatch: pytest.MonkeyPatch) -> None:
    made, first = await webhooks.endpoints.create(FLOW, "https://a.example/")
    rotated, second = await webhooks.endpoints.rotate(FLOW, made.id)
    assert await webhooks.endpoints.secrets(rotated) == [second, first]
    for _ in range(6):
        rotated, _ = await webhooks.endpoints.rotate(FLOW, made.id)
    assert len(await webhooks.endpoints.secrets(rotated)) == 4, "a header of signatures stays short"
    later = endpoints._now_ms() + endpoints.ROTATION_MS + 1
    monkeypatch.setattr(endpoints, "_now_ms", lambda: later)
    assert len(await webhooks.endpoints.secrets(rotated)) == 1
    rotated, _ = await webhooks.endpoints.rotate(FLOW, made.id)
    assert len(rotated.secrets) == 2, "those that ran out are forgotten"


async def test_secrets_are_encrypted_where_a_key_is_set(store: Store, make_webhooks: MakeWebhooks) -> None:
    plain = make_webhooks()
    clear, secret = await plain.endpoints.create(FLOW, "https://a.example/")
    keyed = make_webhooks(secrets_key="correct horse battery")
    sealed, hidden = await keyed.endpoints.create(FLOW, "https://b.example/")
    stored = b"".join(await store.call("HVALS", keys.webhooks(FLOW) + keys.WH_ENDPOINTS))
    assert base64.b64encode(secret.encode())[:40] in stored
    assert base64.b64encode(hidden.encode())[:40] not in stored
    assert hidden.encode() not in stored
    assert await keyed.endpoints.secrets(clear) == [secret], "those from before the key go on"
    # another process derives the key again
    assert await make_webhooks(secrets_key="correct horse battery").endpoints.secrets(sealed) == [hidden]
    for wrong in (None, "another key"):
        with pytest.raises(SealBroken):
            await make_webhooks(secrets_key=wrong).endpoints.secrets(sealed)
    # and a rotation mends an endpoint whose key was lost
    mended, new = await plain.endpoints.rotate(FLOW, sealed.id)
    assert mended.secrets[0].value == new.encode()


async def test_many_makers_of_the_callback_endpoint_make_one(store: Store, make_webhooks: MakeWebhooks) -> None:
    rooms = [make_webhooks() for _ in range(8)]
    made = await asyncio.gather(*(room.endpoints.callback(FLOW) for room in rooms))
    assert len({endpoint.secrets for endpoint in made}) == 1
    assert made[0].id == CALLBACK
    assert await hooks(store) == 0, "only calls that have a callback URL write the outbox"


async def test_the_first_rotation_of_callbacks_shows_the_first_secret(webhooks: Webhooks) -> None:
    made, secret = await webhooks.endpoints.rotate(FLOW, CALLBACK)
    assert await webhooks.endpoints.secrets(made) == [secret]
    again, newer = await webhooks.endpoints.rotate(FLOW, CALLBACK)
    assert await webhooks.endpoints.secrets(again) == [newer, secret]


async def test_changes_at_the_same_time_do_not_undo_each_other(make_webhooks: MakeWebhooks) -> None:
    rooms = [make_webhooks() for _ in range(4)]
    made, _ = await rooms[0].endpoints.create(FLOW, "https://a.example/")
    await asyncio.gather(
        rooms[0].endpoints.update(FLOW, made.id, url="https://b.example/"),
        rooms[1].endpoints.update(FLOW, made.id, description="words"),
        rooms[2].endpoints.update(FLOW, made.id, types=["call.live"]),
        rooms[3].endpoints.rotate(FLOW, made.id),
    )
    now = await rooms[0].endpoints.get(FLOW, made.id)
    assert (now.url, now.description, now.types, len(now.secrets)) == (
        "https://b.example/",
        "words",
        ("call.live",),
        2,
    )


async def test_endpoints_of_a_flow_are_bounded(webhooks: Webhooks) -> None:
    for number in range(50):
        await webhooks.endpoints.create(FLOW, f"https://{number}.example/")
    with pytest.raises(Conflict):
        await webhooks.endpoints.create(FLOW, "https://more.example/")
    await webhooks.endpoints.create("other", "https://more.example/")
