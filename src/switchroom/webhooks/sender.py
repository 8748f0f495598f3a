"""Sends what is due. Any number of processes share the work: a delivery is claimed under a lease, for one try."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from dataclasses import dataclass

from redis.exceptions import ResponseError

from switchroom.errors import NotFound, SwitchroomError
from switchroom.net import GuardedClient, OutboundError
from switchroom.store import SealBroken
from switchroom.webhooks import retries, signing
from switchroom.webhooks.deliveries import Deliveries
from switchroom.webhooks.endpoints import Endpoints
from switchroom.webhooks.model import CALLBACK, Attempt, Delivery, Endpoint, Outcome

log = logging.getLogger(__name__)

ANSWER_BYTES = 1_024
"""What is read, and for a refusal kept, of an answer's body."""
_IDLE_S = 5.0
"""How long a flow with nothing due is left alone: what another process put there is found by then."""
_CLOSE_S = 5.0
_PAUSE_S = 0.5
_STORE_ERRORS = (SwitchroomError, ResponseError)


@dataclass(frozen=True, kw_only=True)
class SenderSettings:
    """`concurrency` is of this process; `lease_s` must outlast `timeout_s`, or a slow answer is asked for twice."""

    timeout_s: float = 15.0
    lease_s: float = 20.0
    concurrency: int = 64
    first_retries_s: tuple[float, ...] = ()
    """For tests: delays in place of the schedule's first ones."""


class Sender:
    """One a process. `send(flow_id)` starts the work for a flow, or wakes it."""

    def __init__(
        self,
        endpoints: Endpoints,
        deliveries: Deliveries,
        client: GuardedClient,
        settings: SenderSettings | None = None,
    ) -> None:
        self._endpoints = endpoints
        self._deliveries = deliveries
        self._client = client
        self._settings = settings or SenderSettings()
        self._owner = uuid.uuid4().hex
        self._wake: dict[str, asyncio.Event] = {}
        self._loops: set[asyncio.Task[None]] = set()
        self._under_way: set[asyncio.Task[None]] = set()
        self._closed = False

    def send(self, flow_id: str) -> None:
        if self._closed:
            return
        wake = self._wake.get(flow_id)
        if wake is None:
            wake = self._wake[flow_id] = asyncio.Event()
            self._loops.add(asyncio.create_task(self._loop(flow_id, wake), name=f"webhooks-{flow_id}"))
        wake.set()

    async def close(self) -> None:
        """Lets requests under way end, for a few seconds; what is cut off another process takes when its lease ends."""
        self._closed = True
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=_CLOSE_S)
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _loop(self, flow_id: str, wake: asyncio.Event) -> None:
        while True:
            wake.clear()
            wait_s = _IDLE_S
            room = self._settings.concurrency - len(self._under_way)
            try:
                if room > 0:
                    claimed = await self._deliveries.claim(
                        flow_id, self._owner, lease_ms=int(self._settings.lease_s * 1000), limit=min(room, 32)
                    )
                    for delivery in claimed.deliveries:
                        self._start(delivery)
                    if claimed.deliveries:
                        continue
                    if claimed.wait_ms is not None:
                        # Nothing came although something is due: its target is full, and the end of a try wakes us.
                        wait_s = min(_IDLE_S, max(claimed.wait_ms / 1000, 0.01))
            except _STORE_ERRORS as error:
                log.warning("webhooks wait for the store", extra={"flow_id": flow_id, "detail": str(error)})
                wait_s = _PAUSE_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await wake.wait()

    def _start(self, delivery: Delivery) -> None:
        full = len(self._under_way) + 1 >= self._settings.concurrency
        task = asyncio.create_task(self._deliver(delivery), name=f"webhook-{delivery.id}")
        self._under_way.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._under_way.discard(task)
            if not task.cancelled() and task.exception() is not None:
                log.error("a delivery broke", extra={"delivery_id": delivery.id}, exc_info=task.exception())
            for flow_id in list(self._wake) if full else [delivery.flow_id]:
                self.send(flow_id)

        task.add_done_callback(done)

    async def _deliver(self, delivery: Delivery) -> None:
        """One try, from the endpoint as it is now to the stored outcome."""
        started_ms, clock = time.time_ns() // 1_000_000, time.monotonic()
        outcome, error, status, answer, asked_s = Outcome.WAITING, "", 0, "", 0.0
        try:
            endpoint = await self._endpoints.get(delivery.flow_id, delivery.endpoint_id)
            if not endpoint.enabled:
                outcome, error = Outcome.CANCELLED, "endpoint_disabled"
            else:
                status, answer, asked_s = await self._post(endpoint, delivery)
                if 200 <= status < 300:
                    outcome, answer = Outcome.DELIVERED, ""
                elif status == 410:
                    outcome, error = Outcome.FAILED, "status"
                    if endpoint.id != CALLBACK:
                        await self._endpoints.update(delivery.flow_id, endpoint.id, enabled=False, reason="gone")
                else:
                    error = "status"
        except NotFound:
            outcome, error = Outcome.CANCELLED, "endpoint_deleted"
        except SealBroken:
            error = "secret_unreadable"
        except OutboundError as failed:
            error = failed.cause
        retry_s = self._delay_s(delivery.tries + 1, asked_s)
        if outcome is Outcome.WAITING and retry_s is None:
            outcome = Outcome.FAILED
        attempt = Attempt(
            at_ms=started_ms,
            took_ms=round((time.monotonic() - clock) * 1000),
            status=status,
            error=error,
            answer=answer,
        )
        await self._finish(delivery, outcome, attempt, retry_in_ms=round((retry_s or 0) * 1000))

    async def _post(self, endpoint: Endpoint, delivery: Delivery) -> tuple[int, str, float]:
        """Status, the beginning of the answer, and the seconds that it asks us to wait."""
        secrets = await self._endpoints.secrets(endpoint)
        headers = signing.headers(secrets, delivery.id, int(time.time()), delivery.body)
        got = await self._client.fetch(
            delivery.url if endpoint.id == CALLBACK else endpoint.url,
            method="POST",
            headers={"Content-Type": "application/json", "Accept": "*/*", **headers},
            body=delivery.body,
            max_bytes=ANSWER_BYTES,
            cut=True,
            timeout_s=self._settings.timeout_s,
            follow=False,
        )
        return got.status, got.body.decode(errors="replace"), retries.asked_s(got.headers)

    def _delay_s(self, tries: int, asked_s: float) -> float | None:
        given = self._settings.first_retries_s
        if tries <= len(given):
            return max(given[tries - 1], min(asked_s, retries.MOST_ASKED_S))
        return retries.next_delay_s(tries, asked_s)

    async def _finish(self, delivery: Delivery, outcome: Outcome, attempt: Attempt, *, retry_in_ms: int) -> None:
        """Stores the outcome; a store that is away for a moment is waited for, as long as the lease may last."""
        ends = time.monotonic() + self._settings.lease_s
        while True:
            try:
                counted = await self._deliveries.finish(delivery, outcome, attempt, retry_in_ms=retry_in_ms)
            except _STORE_ERRORS:
                if time.monotonic() > ends:
                    raise
                await asyncio.sleep(_PAUSE_S)
                continue
            log.info(
                "webhook " + ("tried" if counted else "tried too late"),
                extra={
                    "delivery_id": delivery.id,
                    "task_id": delivery.task_id,
                    "outcome": str(outcome),
                    "status": attempt.status,
                    "error": attempt.error,
                    "took_ms": attempt.took_ms,
                },
            )
            return
