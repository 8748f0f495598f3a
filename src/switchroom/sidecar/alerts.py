"""Tells a job's webhook that a login is needed: signed as the queue's webhooks are, and until it is heard.

One message for each time that a job comes to wait. Any process of the crawl host may send it; a lease in the store has
one do it at a time, and what was tried stands in the store, so that a message outlives its sender.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import Any

import msgspec
from redis.exceptions import ResponseError

from switchroom.crawler.frontier import MAX_EVENTS
from switchroom.crawler.job import Job, JobState
from switchroom.errors import SwitchroomError
from switchroom.net import GuardedClient, OutboundError
from switchroom.store import SealBroken, Sealer, Store, keys
from switchroom.webhooks import retries, signing

log = logging.getLogger(__name__)

TYPE = "crawl.login_needed"
TIMEOUT_S = 15.0
_LEASE_MS = 20_000
_ANSWER_BYTES = 1024
_MAGIC = b"SRCH1\n"


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """How far the message of one wait has come. `revision` is the job's at that time; times are Unix milliseconds."""

    revision: int
    tries: int = 0
    next_ms: int = 0
    over: bool = False


class Alerts:
    """One a process. `look(job)` for each job that waits; `secret` signs where a job has none of its own."""

    def __init__(self, store: Store, client: GuardedClient, *, key: str | None, secret: str | None) -> None:
        self._store = store
        self._client = client
        self._sealer = Sealer(key, _MAGIC)
        self._secret = secret
        self._sending: dict[str, asyncio.Task[None]] = {}

    async def close(self) -> None:
        """Give up what is under way; the next process goes on with it."""
        tasks = list(self._sending.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def keep_secret(self, job_id: str, secret: str | None) -> str | None:
        """Remember the secret that signs a job's messages. Without one the setting's holds; where that is missing too,
        a new one is made and returned, to be shown once."""
        made = None
        if secret is None and self._secret is None:
            secret = made = signing.new_secret()
        if secret is not None:
            sealed = await asyncio.to_thread(self._sealer.seal, secret.encode())
            await self._store.call("SET", keys.crawl(job_id, "secret"), sealed)
        return made

    def look(self, job: Job) -> None:
        """Send the job's message, where one is due."""
        if job.state != JobState.WAITING_LOGIN or not job.spec.webhook or job.id in self._sending:
            return
        task = asyncio.create_task(self._tell(job), name=f"crawl alert {job.id}")
        self._sending[job.id] = task
        task.add_done_callback(lambda _, job_id=job.id: self._sending.pop(job_id, None))  # type: ignore[misc]

    async def _tell(self, job: Job) -> None:
        try:
            told = await self._told(job)
            if told.over or told.next_ms > _now_ms():
                return
            leased = await self._store.call("SET", keys.crawl(job.id, "alerting"), "1", "NX", "PX", _LEASE_MS)
            if leased is None:
                return
            told = await self._told(job)
            if not told.over and told.next_ms <= _now_ms():
                await self._send(job, told)
            await self._store.call("DEL", keys.crawl(job.id, "alerting"))
        except (SwitchroomError, ResponseError, SealBroken) as error:
            log.warning("a login alert waits", extra={"job_id": job.id, "cause": str(error)})

    async def _told(self, job: Job) -> Told:
        raw = await self._store.call("GET", keys.crawl(job.id, "alert"))
        told = None if raw is None else msgspec.json.decode(raw, type=Told)
        return told if told is not None and told.revision == job.revision else Told(revision=job.revision)

    async def _send(self, job: Job, told: Told) -> None:
        body = msgspec.json.encode(message(job))
        message_id = f"msg_{job.id.replace('-', '')}_{job.revision}"
        asked_s, status, cause = 0.0, 0, ""
        try:
            headers = signing.headers([await self._key_of(job.id)], message_id, int(time.time()), body)
            got = await self._client.fetch(
                job.spec.webhook,
                method="POST",
                headers={"Content-Type": "application/json", "Accept": "*/*", **headers},
                body=body,
                max_bytes=_ANSWER_BYTES,
                cut=True,
                timeout_s=TIMEOUT_S,
                follow=False,
            )
            status, asked_s = got.status, retries.asked_s(got.headers)
        except OutboundError as error:
            cause = error.cause
        heard = 200 <= status < 300
        delay_s = None if heard or status == 410 else retries.next_delay_s(told.tries + 1, asked_s)
        after = Told(
            revision=told.revision,
            tries=told.tries + 1,
            next_ms=0 if delay_s is None else _now_ms() + int(delay_s * 1000),
            over=delay_s is None,
        )
        await self._store.call("SET", keys.crawl(job.id, "alert"), msgspec.json.encode(after))
        event: dict[str, Any] = {"event": "webhook", "type": TYPE, "delivered": heard, "tries": after.tries}
        event |= {"status": status} if status else {"cause": cause}
        data = msgspec.json.encode(event)
        await self._store.call("XADD", keys.crawl(job.id, "events"), "MAXLEN", "~", MAX_EVENTS, "*", "data", data)
        log.info("login alert tried", extra={"job_id": job.id, "delivered": heard, "status": status, "cause": cause})

    async def _key_of(self, job_id: str) -> str:
        sealed = await self._store.call("GET", keys.crawl(job_id, "secret"))
        if sealed is None:
            if self._secret is None:
                raise SealBroken("the job has no signing secret of its own and none is set any more")
            return self._secret
        return (await asyncio.to_thread(self._sealer.open, sealed)).decode()


def message(job: Job) -> dict[str, Any]:
    """What the webhook is told: which domain needs a login, where that showed, and if a session was lost."""
    waiting = job.waiting
    assert waiting is not None
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "type": TYPE,
        "timestamp": at,
        "data": {
            "job": job.id,
            "state": str(job.state),
            "domain": waiting.domain,
            "url": waiting.url,
            "sign": waiting.sign,
            "sessionLost": waiting.session_lost,
            "note": job.note,
        },
    }


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
