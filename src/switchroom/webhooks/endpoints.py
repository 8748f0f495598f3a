"""A flow's endpoints and their secrets. A secret leaves this file twice: once for its owner, and to sign."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Sequence

import msgspec

from switchroom.errors import Conflict, NotFound
from switchroom.store import Sealer, Store, keys
from switchroom.webhooks import scripts, signing
from switchroom.webhooks.model import CALLBACK, Endpoint, Secret

ROTATION_MS = 24 * 3_600_000
"""How long an old secret signs along."""
_SEAL = b"SRWH1\n"
_OPENED = 4_096
_RACES = 20

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Endpoint).decode


class Endpoints:
    """The endpoints of all flows. `secrets_key`, where set, encrypts secrets in the store."""

    def __init__(self, store: Store, secrets_key: str | None = None) -> None:
        self._store = store
        self._sealer = Sealer(secrets_key, _SEAL)
        self._opened: dict[bytes, str] = {}

    async def all(self, flow_id: str) -> list[Endpoint]:
        """Oldest first; the callbacks' own is among them once it was used."""
        rows = await self._store.call("HVALS", keys.webhooks(flow_id) + keys.WH_ENDPOINTS)
        return sorted((_decode(row) for row in rows), key=lambda endpoint: (endpoint.created_ms, endpoint.id))

    async def get(self, flow_id: str, endpoint_id: str) -> Endpoint:
        """Raises `NotFound`."""
        return _decode(await self._read(flow_id, endpoint_id))

    async def create(
        self, flow_id: str, url: str, *, types: Sequence[str] = (), description: str = "", enabled: bool = True
    ) -> tuple[Endpoint, str]:
        """A new endpoint and its secret, which is not shown again. Raises `Conflict` where the flow has too many."""
        return await self._create(flow_id, str(uuid.uuid4()), url, tuple(types), description, enabled)

    async def callback(self, flow_id: str) -> Endpoint:
        """The endpoint that stands for the flow's callback URLs; made, with its secret, where it is not there."""
        for _ in range(_RACES):
            try:
                return await self.get(flow_id, CALLBACK)
            except NotFound:
                made = await self._make_callback(flow_id)
                if made is not None:
                    return made[0]
        raise _Raced(flow_id)

    async def update(
        self,
        flow_id: str,
        endpoint_id: str,
        *,
        url: str | None = None,
        types: Sequence[str] | None = None,
        description: str | None = None,
        enabled: bool | None = None,
        reason: str = "asked",
    ) -> Endpoint:
        """Changes what is given. Raises `NotFound`."""

        def change(endpoint: Endpoint) -> Endpoint:
            on = endpoint.enabled if enabled is None else enabled
            return msgspec.structs.replace(
                endpoint,
                url=endpoint.url if url is None else url,
                types=endpoint.types if types is None else tuple(types),
                description=endpoint.description if description is None else description,
                enabled=on,
                disabled_reason="" if on else (endpoint.disabled_reason or reason),
                updated_ms=_now_ms(),
            )

        return await self._change(flow_id, endpoint_id, change)

    async def rotate(self, flow_id: str, endpoint_id: str) -> tuple[Endpoint, str]:
        """A new secret; the one before signs along for a day. Raises `NotFound`, but makes the callbacks' endpoint."""
        if endpoint_id == CALLBACK:
            made = await self._make_callback(flow_id)
            if made is not None:
                return made
        secret = signing.new_secret()
        sealed = await self._seal(secret)

        def change(endpoint: Endpoint) -> Endpoint:
            now = _now_ms()
            old = [
                msgspec.structs.replace(one, until_ms=one.until_ms or now + ROTATION_MS)
                for one in endpoint.secrets
                if not one.until_ms or one.until_ms > now
            ]
            # A receiver tries each signature: more than a few would be somebody pressing the button for ever.
            return msgspec.structs.replace(endpoint, secrets=(Secret(value=sealed), *old[:3]), updated_ms=now)

        return await self._change(flow_id, endpoint_id, change), secret

    async def delete(self, flow_id: str, endpoint_id: str) -> None:
        """Its messages that are still on their way are given up. Raises `NotFound`."""
        for _ in range(_RACES):
            before = await self._read(flow_id, endpoint_id)
            if await self._write(flow_id, endpoint_id, before, b"", listens=False) == 1:
                return
        raise _Raced(endpoint_id)

    async def forget(self, flow_id: str) -> None:
        """Removes all of a flow that is deleted, with their secrets."""
        for endpoint in await self.all(flow_id):
            with contextlib.suppress(NotFound):
                await self.delete(flow_id, endpoint.id)

    async def secrets(self, endpoint: Endpoint) -> list[str]:
        """The secrets that sign now, the present one first. Raises `SealBroken`."""
        now = _now_ms()
        return [await self._open(one.value) for one in endpoint.secrets if not one.until_ms or one.until_ms > now]

    async def _make_callback(self, flow_id: str) -> tuple[Endpoint, str] | None:
        """None where it is there already."""
        try:
            return await self._create(flow_id, CALLBACK, "", (), "callbackUrl of calls", True)
        except _Raced:
            return None

    async def _create(
        self, flow_id: str, endpoint_id: str, url: str, types: tuple[str, ...], description: str, enabled: bool
    ) -> tuple[Endpoint, str]:
        secret, now = signing.new_secret(), _now_ms()
        endpoint = Endpoint(
            id=endpoint_id,
            url=url,
            types=types,
            description=description,
            enabled=enabled,
            disabled_reason="" if enabled else "asked",
            secrets=(Secret(value=await self._seal(secret)),),
            created_ms=now,
            updated_ms=now,
        )
        written = await self._write(flow_id, endpoint_id, b"", _encode(endpoint), listens=_listens(endpoint))
        if written < 0:
            raise Conflict(
                f"This flow has {scripts.MOST_ENDPOINTS} webhook endpoints: remove one first.",
                code="too_many_endpoints",
            )
        if written == 0:
            raise _Raced(endpoint_id)
        return endpoint, secret

    async def _change(self, flow_id: str, endpoint_id: str, change: Callable[[Endpoint], Endpoint]) -> Endpoint:
        for _ in range(_RACES):
            before = await self._read(flow_id, endpoint_id)
            after = change(_decode(before))
            if await self._write(flow_id, endpoint_id, before, _encode(after), listens=_listens(after)) == 1:
                return after
        raise _Raced(endpoint_id)

    async def _read(self, flow_id: str, endpoint_id: str) -> bytes:
        row: bytes | None = await self._store.call("HGET", keys.webhooks(flow_id) + keys.WH_ENDPOINTS, endpoint_id)
        if row is None:
            raise NotFound(f"This flow has no webhook endpoint {endpoint_id!r}.", code="unknown_endpoint")
        return row

    async def _write(self, flow_id: str, endpoint_id: str, before: bytes, after: bytes, *, listens: bool) -> int:
        written: int = await self._store.run(
            scripts.ENDPOINT,
            [keys.webhooks(flow_id), keys.queue_config(flow_id)],
            [endpoint_id, before, after, "1" if listens else ""],
        )
        return written

    async def _seal(self, secret: str) -> bytes:
        return await asyncio.to_thread(self._sealer.seal, secret.encode())

    async def _open(self, sealed: bytes) -> str:
        known = self._opened.get(sealed)
        if known is None:
            known = (await asyncio.to_thread(self._sealer.open, sealed)).decode()
            if len(self._opened) >= _OPENED:
                self._opened.clear()
            self._opened[sealed] = known
        return known


class _Raced(Conflict):
    """Somebody else changed it in between, again and again."""

    code = "changed_meanwhile"

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is being changed by others: try again.")


def _listens(endpoint: Endpoint) -> bool:
    return endpoint.enabled and endpoint.id != CALLBACK


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
