"""Handing calls with a `ccBaseUrl` to the Unity client there: a signed offer by POST, in every API process, no leader.

All processes claim for one holder, so that a refused call is left alone by all of them; the fencing token tells
attempts apart. What a client may answer, and when, stands in docs/decisions/queue-unity.md.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from redis.exceptions import ResponseError
from yarl import URL

from switchroom.engine import FlowStore
from switchroom.errors import SwitchroomError
from switchroom.net import Fetched, GuardedClient, OutboundError
from switchroom.queue import UNITY, EndReason, Held, LeaseLost, Queue
from switchroom.realtime.handover import LEASE_MS, PING_EVERY_S, UNITY_OWNER, context_id, handed_state
from switchroom.store import Store, keys
from switchroom.webhooks import Endpoints, signing

log = logging.getLogger(__name__)

OFFER_MS = 20_000
"""How long a client may take to answer."""
AT_ONCE = 64
"""Offers of this process that wait for their answers, of all flows together (a few more where flows race)."""
ANSWER_BYTES = 16 << 10
_MARGIN_S = 0.5
_AGAIN_S = 1.0
_MOST_AGAIN_S = 4.0
_WAIT_S = 30.0
_BLOCK_MS = 10_000
_PAUSE_S = 0.5
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_STORE_ERRORS = (SwitchroomError, ResponseError)
_HOPELESS = frozenset({"bad_url", "address_refused"})

_encode = msgspec.json.Encoder().encode
Verdict = Literal["accepted", "refused", "rings", "again"]


class Dispatcher:
    """Offers the calls of every flow that ever had one with a `ccBaseUrl`. `offer_ms` and `lease_ms` are the deadlines
    of an offer and of a live call without a ping."""

    def __init__(
        self,
        store: Store,
        queue: Queue,
        flows: FlowStore,
        endpoints: Endpoints,
        client: GuardedClient,
        *,
        offer_ms: int = OFFER_MS,
        lease_ms: int = LEASE_MS,
    ) -> None:
        self._store = store
        self._queue = queue
        self._flows = flows
        self._endpoints = endpoints
        self._client = client
        self._offer_ms = offer_ms
        self._lease_ms = lease_ms
        self._served: set[str] = set()
        self._offers: set[asyncio.Task[None]] = set()
        self.base_url = ""
        """Where clients reach our API; offers name addresses below it."""

    async def run(self) -> None:
        """Until cancelled; then offers without an answer go back to their places. May be run again."""
        self._served.clear()
        try:
            async with asyncio.TaskGroup() as group:
                await self._follow_news(group)
        finally:
            for task in self._offers:
                task.cancel()
            await asyncio.gather(*self._offers, return_exceptions=True)

    async def _follow_news(self, group: asyncio.TaskGroup) -> None:
        """Serves each flow from its first call with a `ccBaseUrl` on."""
        while True:
            try:
                # The news is read before the set, so that nothing falls in between.
                last = await self._store.call("XREVRANGE", keys.unity_news(), "+", "-", "COUNT", 1)
                for name in await self._store.call("SMEMBERS", keys.unity_flows()):
                    flow_id = name.decode()
                    if flow_id not in self._served:
                        self._served.add(flow_id)
                        group.create_task(self._serve(flow_id), name=f"dispatch-{flow_id}")
                after = last[0][0].decode() if last else "0-0"
                await self._store.blocking(
                    "XREAD", "COUNT", 1, "BLOCK", _BLOCK_MS, "STREAMS", keys.unity_news(), after,
                    timeout_s=_BLOCK_MS / 1000 + 5,
                )  # fmt: skip
            except _STORE_ERRORS as error:
                log.warning("dispatch waits for the store", extra={"detail": str(error)})
                await asyncio.sleep(_PAUSE_S)

    async def _serve(self, flow_id: str) -> None:
        while True:
            while len(self._offers) >= AT_ONCE:
                await asyncio.wait(self._offers, return_when=asyncio.FIRST_COMPLETED)
            try:
                for held in await self._queue.wait_claim(
                    UNITY_OWNER,
                    flow_id,
                    skills=(UNITY,),
                    limit=AT_ONCE - len(self._offers),
                    lease_ms=self._lease_ms,
                    offer_ms=self._offer_ms,
                    timeout_s=_WAIT_S,
                ):
                    task = asyncio.create_task(self._hand(held), name=f"offer-{held.task_id}")
                    self._offers.add(task)
                    task.add_done_callback(self._offers.discard)
            except _STORE_ERRORS as error:
                log.warning("dispatch waits for the store", extra={"flow_id": flow_id, "detail": str(error)})
                await asyncio.sleep(_PAUSE_S)

    async def _hand(self, held: Held) -> None:
        try:
            await self._offer(held)
        except asyncio.CancelledError:
            await asyncio.shield(self._give_back(held))
            raise
        except LeaseLost as error:
            log.info("an offered call was gone", extra={"task_id": held.task_id, "state": error.state})
        except _STORE_ERRORS as error:
            # Without the store nothing can be written: the offer's deadline brings the call back.
            log.warning("an offer failed", extra={"task_id": held.task_id, "detail": str(error)})
        except Exception:
            log.exception("an offer failed", extra={"task_id": held.task_id})

    async def _give_back(self, held: Held) -> None:
        try:
            await self._queue.release(held, "handed_back")
        except _STORE_ERRORS as error:
            log.info("an offer could not be given back", extra={"task_id": held.task_id, "detail": str(error)})

    async def _offer(self, held: Held) -> None:
        """Asks until there is an answer or no time left; then the offer's own deadline brings the call back."""
        deadline = time.monotonic() + self._offer_ms / 1000 - _MARGIN_S
        url = str(URL(held.call.cc_base_url or "") / "offer")
        body = await self._body(held)
        pause_s = _AGAIN_S
        while (left_s := deadline - time.monotonic()) > 0:
            try:
                verdict, cause = _verdict(await self._post(held, url, body, left_s))
            except OutboundError as error:
                if error.cause in _HOPELESS:
                    await self._queue.hang_up(held, EndReason.REJECTED, f"ccBaseUrl: {error.detail}")
                    return None
                verdict, cause = "again", error.cause
            log.info("offered to Unity", extra={"task_id": held.task_id, "verdict": verdict, "cause": cause})
            match verdict:
                case "accepted":
                    return await self._queue.answer(held)
                case "refused":
                    return await self._queue.refuse(held, cause)
                case "rings":
                    return None  # it accepts or refuses by itself, within the deadline
            await asyncio.sleep(min(pause_s, max(0.0, deadline - time.monotonic())))
            pause_s = min(pause_s * 2, _MOST_AGAIN_S)
        return None

    async def _post(self, held: Held, url: str, body: bytes, timeout_s: float) -> Fetched:
        endpoint = await self._endpoints.callback(held.flow_id)
        secrets = await self._endpoints.secrets(endpoint)
        # The ID stays the same over tries: a client that took the first one knows the second.
        signed = signing.headers(secrets, f"offer_{held.task_id}_{held.attempt}", int(time.time()), body)
        return await self._client.fetch(
            url,
            method="POST",
            headers={"Content-Type": "application/json", **signed},
            body=body,
            max_bytes=ANSWER_BYTES,
            timeout_s=timeout_s,
            follow=False,
        )

    async def _body(self, held: Held) -> bytes:
        call = held.call
        flow = await self._flows.get(call.flow_id)
        queue = f"{self.base_url}/api/v1/openai-realtime/{call.flow_id}/queue"
        offered_ms = call.offered_at_ms or time.time_ns() // 1_000_000
        data: dict[str, Any] = {
            "taskId": call.task_id,
            "flowId": call.flow_id,
            "ID": call.caller_id,
            "form": call.form,
            "state": handed_state(call, flow.graph if flow else None),
            "sessionContext": {"sessionId": context_id(call)},
            "priority": call.priority,
            "attempt": held.attempt,
            "token": held.token,
            "answerBy": _rfc3339(offered_ms + self._offer_ms),
            "pingEverySeconds": PING_EVERY_S,
            "leaseSeconds": self._lease_ms // 1000,
            "acceptUrl": f"{queue}/accept",
            "refuseUrl": f"{queue}/refuse",
            "pingUrl": f"{queue}/ping",
            "completeUrl": f"{queue}/complete",
        }
        return _encode({"type": "call.offer", "timestamp": _rfc3339(offered_ms), "data": data})


def _verdict(answer: Fetched) -> tuple[Verdict, str]:
    """What a client's answer means: see docs/decisions/queue-unity.md."""
    if answer.status in _TRY_AGAIN:
        return "again", f"answered {answer.status}"
    if answer.status == 202:
        return "rings", ""
    if not 200 <= answer.status < 300:
        return "refused", f"answered {answer.status}"
    try:
        said = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = None
    if not isinstance(said, dict) or not isinstance(said.get("accepted"), bool):
        return "refused", "its answer does not say whether it accepted"
    if said["accepted"]:
        return "accepted", ""
    return "refused", str(said.get("reason") or "not accepted")[:200]


def _rfc3339(at_ms: int) -> str:
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ms % 1000:03}Z"
