"""Sending to a real receiver: what it gets, and what becomes of each kind of answer."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from receiving import FLOW, MakeWebhooks, Receiver, post, until
from standardwebhooks.webhooks import Webhook

from switchroom.store import Store
from switchroom.webhooks import CALLBACK, Delivery, Outcome, Webhooks


async def ended(webhooks: Webhooks, endpoint_id: str, name: str) -> Delivery:
    async def probe() -> Delivery | None:
        found = await webhooks.deliveries.get(FLOW, endpoint_id, name)
        return found if found.outcome is not Outcome.WAITING else None

    found: Delivery = await until(probe)
    return found


async def tried(webhooks: Webhooks, endpoint_id: str, name: str, times: int = 1) -> Delivery:
    async def probe() -> Delivery | None:
        found = await webhooks.deliveries.get(FLOW, endpoint_id, name)
        return found if len(found.attempts) >= times else None

    found: Delivery = await until(probe)
    return found


async def test_a_message_arrives_signed_and_the_reference_library_verifies_it(
    store: Store, webhooks: Webhooks, receiver: Receiver
) -> None:
    endpoint, secret = await webhooks.endpoints.create(FLOW, receiver.url)
    name = await post(store, webhooks, endpoint.id)
    webhooks.sender.send(FLOW)
    done = await ended(webhooks, endpoint.id, name)
    (got,) = receiver.got
    assert Webhook(secret).verify(got.body, got.headers)["type"] == "call.live"
    assert (got.id, got.headers["content-type"], got.path) == (name, "application/json", "/hook")
    (attempt,) = done.attempts
    assert (done.outcome, attempt.status, attempt.error) == (Outcome.DELIVERED, 204, "")


async def test_both_secrets_sign_after_a_rotation(store: Store, webhooks: Webhooks, receiver: Receiver) -> None:
    endpoint, old = await webhooks.endpoints.create(FLOW, receiver.url)
    _, new = await webhooks.endpoints.rotate(FLOW, endpoint.id)
    name = await post(store, webhooks, endpoint.id)
    webhooks.sender.send(FLOW)
    await ended(webhooks, endpoint.id, name)
    (got,) = receiver.got
    assert Webhook(new).verify(got.body, got.headers)
    assert Webhook(old).verify(got.body, got.headers)


async def test_a_receiver_that_is_down_gets_it_when_it_is_up(
    store: Store, webhooks: Webhooks, receiver: Receiver
) -> None:
    endpoint, _ = await webhooks.endpoints.create(FLOW, receiver.url)
    await receiver.stop()
    name = await post(store, webhooks, endpoint.id)
    webhooks.sender.send(FLOW)
    down = await tried(webhooks, endpoint.id, name)
    assert (down.attempts[0].error, down.attempts[0].status) == ("connect", 0)
    await receiver.start()
    done = await ended(webhooks, endpoint.id, name)
    assert (done.outcome, len(done.attempts)) == (Outcome.DELIVERED, len(done.attempts))
    assert [got.id for got in receiver.got] == [name]


async def test_the_id_stays_the_same_over_retries(store: Store, webhooks: Webhooks, receiver: Receiver) -> None:
    receiver.answer = lambda got, number: web.Response(status=500, text="x" * 5_000) if number < 3 else 200
    endpoint, secret = await webhooks.endpoints.create(FLOW, receiver.url)
    name = await post(store, webhooks, endpoint.id)
    webhooks.sender.send(FLOW)
    done = await ended(webhooks, endpoint.id, name)
    assert {got.id for got in receiver.got} == {name}
    assert len({got.body for got in receiver.got}) == 1
    assert [one.status for one in done.attempts] == [500, 500, 200]
    assert [len(one.answer) for one in done.attempts] == [1024, 1024, 0], "a refusal's first kilobyte is kept"
    assert all(Webhook(secret).verify(got.body, got.headers) for got in receiver.got)


async def test_after_the_last_try_it_has_failed(store: Store, make_webhooks: MakeWebhooks, receiver: Receiver) -> None:
    webhooks = make_webhooks(first_retries_s=(0.01,) * 9)
    receiver.answer = lambda got, number: 503
    endpoint, _ = await webhooks.endpoints.create(FLOW, receiver.url)
    name = await post(store, webhooks, endpoint.id)
    webhooks.sender.send(FLOW)
    done = await ended(webhooks, endpoint.id, name)
    assert (done.outcome, len(done.attempts), len(receiver.got)) == (Outcome.FAILED, 10, 10)
    assert await webhooks.deliveries.counts(FLOW, endpoint.id) == (0, 0)
    # and can be sent again by hand
    receiver.answer = lambda got, number: 200
    await webhooks.deliveries.redeliver(FLOW, endpoint.id, name)
    webhooks.sender.send(FLOW)
    assert (await ended(webhooks, endpoint.id, name)).outcome is Outcome.DELIVERED


async def test_410_switches_an_endpoint_off(store: Store, webhooks: Webhooks, receiver: Receiver) -> None:
    receiver.answer = lambda got, number: 410
    endpoint, _ = await webhooks.endpoints.create(FLOW, receiver.url)
    name = await post(store, webhooks, endpoint.id)
    behind = await post(store, webhooks, endpoint.id)
    webhooks.sender.send(FLOW)
    assert (await ended(webhooks, endpoint.id, name)).outcome is Outcome.FAILED
    assert (await ended(webhooks, endpoint.id, behind)).outcome is Outcome.CANCELLED
    now = await webhooks.endpoints.get(FLOW, endpoint.id)
    assert (now.enabled, now.disabled_reason) == (False, "gone")
    assert len(receiver.got) == 1


async def test_410_of_a_callback_ends_that_message_alone(store: Store, webhooks: Webhooks, receiver: Receiver) -> None:
    receiver.answer = lambda got, number: 410 if got.path == "/gone" else 200
    gone = await post(store, webhooks, CALLBACK, url=receiver.url.replace("/hook", "/gone"))
    fine = await post(store, webhooks, CALLBACK, task_id="task-2", url=receiver.url)
    webhooks.sender.send(FLOW)
    assert (await ended(webhooks, CALLBACK, gone)).outcome is Outcome.FAILED
    assert (await ended(webhooks, CALLBACK, fine)).outcome is Outcome.DELIVERED
    assert (await webhooks.endpoints.get(FLOW, CALLBACK)).enabled


async def test_retry_after_is_honoured(store: Store, webhooks: Webhooks, receiver: Receiver) -> None:
    answers = iter([web.Response(status=429, headers={"Retry-After": "1"}), web.Response(status=200)])
    receiver.answer = lambda got, number: next(answers)
    endpoint, _ = await webhooks.endpoints.create(FLOW, receiver.url)
    name = await post(store, webhooks, endpoint.id)
    webhooks.sender.send(FLOW)
    assert (await ended(webhooks, endpoint.id, name)).outcome is Outcome.DELIVERED
    first, second = receiver.got
    assert 0.95 < second.at - first.at < 3, "the schedule alone would have asked after 0.2 s"


async def test_redirects_are_not_followed(store: Store, webhooks: Webhooks, receiver: Receiver) -> None:
    receiver.answer = lambda got, number: web.Response(status=307, headers={"Location": "/elsewhere"})
    endpoint, _ = await webhooks.endpoints.create(FLOW, receiver.url)
    name = await post(store, webhooks, endpoint.id)
    webhooks.sender.send(FLOW)
    assert (await tried(webhooks, endpoint.id, name)).attempts[0].status == 307
    assert {got.path for got in receiver.got} == {"/hook"}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
async def test_private_addresses_are_refused_when_it_is_sent(
    store: Store, make_webhooks: MakeWebhooks, receiver: Receiver, host: str
) -> None:
    webhooks = make_webhooks(allow=())
    endpoint, _ = await webhooks.endpoints.create(FLOW, f"http://{host}:{receiver.port}/")
    name = await post(store, webhooks, endpoint.id)
    webhooks.sender.send(FLOW)
    assert (await tried(webhooks, endpoint.id, name)).attempts[0].error == "address_refused"
    assert receiver.got == []


async def test_a_long_answer_is_a_success_all_the_same(store: Store, webhooks: Webhooks, receiver: Receiver) -> None:
    receiver.answer = lambda got, number: web.Response(body=b"x" * 3_000_000)
    endpoint, _ = await webhooks.endpoints.create(FLOW, receiver.url)
    name = await post(store, webhooks, endpoint.id)
    webhooks.sender.send(FLOW)
    assert (await ended(webhooks, endpoint.id, name)).outcome is Outcome.DELIVERED


async def test_a_receiver_that_does_not_answer_is_left_and_tried_again(
    store: Store, make_webhooks: MakeWebhooks, receiver: Receiver
) -> None:
    webhooks = make_webhooks(timeout_s=0.3)
    receiver.delay_s = 30
    endpoint, _ = await webhooks.endpoints.create(FLOW, receiver.url)
    name = await post(store, webhooks, endpoint.id)
    webhooks.sender.send(FLOW)
    (attempt, *_) = (await tried(webhooks, endpoint.id, name)).attempts
    assert attempt.error == "timeout"
    assert 250 < attempt.took_ms < 2_000
    receiver.delay_s = 0
    assert (await ended(webhooks, endpoint.id, name)).outcome is Outcome.DELIVERED


async def test_a_mended_url_counts_for_messages_on_the_way(
    store: Store, webhooks: Webhooks, receiver: Receiver
) -> None:
    endpoint, _ = await webhooks.endpoints.create(FLOW, "http://127.0.0.1:1/")
    name = await post(store, webhooks, endpoint.id)
    webhooks.sender.send(FLOW)
    await tried(webhooks, endpoint.id, name)
    await webhooks.endpoints.update(FLOW, endpoint.id, url=receiver.url)
    assert (await ended(webhooks, endpoint.id, name)).outcome is Outcome.DELIVERED


async def test_messages_of_an_endpoint_that_was_removed_are_given_up(
    store: Store, webhooks: Webhooks, receiver: Receiver
) -> None:
    endpoint, _ = await webhooks.endpoints.create(FLOW, receiver.url)
    names = [await post(store, webhooks, endpoint.id) for _ in range(3)]
    await webhooks.endpoints.delete(FLOW, endpoint.id)
    webhooks.sender.send(FLOW)
    for name in names:
        done = await ended(webhooks, endpoint.id, name)
        assert (done.outcome, done.attempts[-1].error) == (Outcome.CANCELLED, "endpoint_deleted")
    assert receiver.got == []


async def test_a_secret_that_cannot_be_read_is_said_and_tried_again(
    store: Store, make_webhooks: MakeWebhooks, receiver: Receiver
) -> None:
    endpoint, _ = await make_webhooks(secrets_key="one key").endpoints.create(FLOW, receiver.url)
    webhooks = make_webhooks(secrets_key="another key")
    name = await post(store, webhooks, endpoint.id)
    webhooks.sender.send(FLOW)
    assert (await tried(webhooks, endpoint.id, name)).attempts[0].error == "secret_unreadable"
    await webhooks.endpoints.rotate(FLOW, endpoint.id)
    assert receiver.got == []


async def test_order_holds_for_a_call_and_calls_go_side_by_side(
    store: Store, webhooks: Webhooks, receiver: Receiver
) -> None:
    receiver.delay_s = 0.05
    endpoint, _ = await webhooks.endpoints.create(FLOW, receiver.url)
    kinds = ["call.pending", "call.offered", "call.live", "call.wrapup", "call.ended"]
    for kind in kinds:
        for number in range(10):
            await post(store, webhooks, endpoint.id, task_id=f"task-{number}", kind=kind)
    webhooks.sender.send(FLOW)
    await until(lambda: len(receiver.got) == 50)
    for number in range(10):
        told = [got.json["type"] for got in receiver.got if got.json["data"]["taskId"] == f"task-{number}"]
        assert told == kinds
    assert 2 <= receiver.most_under_way <= 16


async def test_what_is_under_way_at_the_end_is_finished(
    store: Store, make_webhooks: MakeWebhooks, receiver: Receiver
) -> None:
    webhooks = make_webhooks()
    receiver.delay_s = 0.3
    endpoint, _ = await webhooks.endpoints.create(FLOW, receiver.url)
    name = await post(store, webhooks, endpoint.id)
    webhooks.sender.send(FLOW)
    await until(lambda: receiver.got)
    await webhooks.close()
    assert (await webhooks.deliveries.get(FLOW, endpoint.id, name)).outcome is Outcome.DELIVERED
    await asyncio.sleep(0)
