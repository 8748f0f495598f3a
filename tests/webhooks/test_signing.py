"""Signatures: the published vector, the reference library, and when a message is tried again."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from switchroom.webhooks import retries, signing

BODY = b'{"type":"conversation.message.created","timestamp":"2026-11-21T10:00:00Z","data":{"id":"msg_1"}}'


def test_the_vector() -> None:
    made = signing.signature("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3", "msg_test1", 1795255200, BODY)
    assert made == "v1,50g6J6NsZm5Jpg//zpa0qFmInZuHuwlO8De1jPvj+rY="


def test_the_reference_library_verifies_ours_and_refuses_a_changed_one() -> None:
    secret, other = signing.new_secret(), signing.new_secret()
    headers = signing.headers([secret], "msg_1", int(time.time()), BODY)
    assert Webhook(secret).verify(BODY, headers)["data"] == {"id": "msg_1"}
    for wrong_secret, wrong_body in ((other, BODY), (secret, BODY + b" ")):
        with pytest.raises(WebhookVerificationError):
            Webhook(wrong_secret).verify(wrong_body, headers)


def test_while_a_secret_rotates_both_verify() -> None:
    new, old = signing.new_secret(), signing.new_secret()
    headers = signing.headers([new, old], "msg_1", int(time.time()), BODY)
    assert headers["webhook-signature"].count("v1,") == 2
    assert Webhook(new).verify(BODY, headers)
    assert Webhook(old).verify(BODY, headers)


def test_secrets_are_256_random_bits() -> None:
    made = {signing.new_secret() for _ in range(100)}
    assert len(made) == 100
    assert {len(secret) for secret in made} == {6 + 44}


def test_the_schedule_is_the_standards_with_jitter() -> None:
    assert (
        tuple(
            timedelta(**one).total_seconds()
            for one in (
                {},
                {"seconds": 5},
                {"minutes": 5},
                {"minutes": 30},
                {"hours": 2},
                {"hours": 5},
                {"hours": 10},
                {"hours": 14},
                {"hours": 20},
                {"hours": 24},
            )
        )
        == retries.DELAYS_S
    )
    for tries in range(1, 10):
        drawn = {retries.next_delay_s(tries) for _ in range(50)}
        assert len(drawn) > 10
        assert all(0.9 <= delay / retries.DELAYS_S[tries] <= 1.1 for delay in drawn if delay)
    assert retries.next_delay_s(10) is None


def test_a_receiver_may_ask_for_more_time_but_not_for_less() -> None:
    assert retries.next_delay_s(1, 60) == 60
    assert (retries.next_delay_s(3, 60) or 0) > 1000
    assert retries.next_delay_s(1, 1e9) == retries.MOST_ASKED_S


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retries.asked_s({"Retry-After": "17"}) == 17
    later = datetime.now(UTC) + timedelta(seconds=90)
    assert 85 < retries.asked_s({"Retry-After": format_datetime(later, usegmt=True)}) < 91
    for text in ("", "soon", "-5", "1.5", "Thu, 99 Foo 2026", "²"):
        assert retries.asked_s({"Retry-After": text}) == 0, text
