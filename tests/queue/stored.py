"""Changes a call where it is stored: the clock of the server-side function is not to be moved, a call's times are."""

from __future__ import annotations

from struct import pack
from typing import Any

import msgspec

from switchroom.queue.codec import Own, Record, Standing, decode_record
from switchroom.store import Store


async def rewrite(store: Store, key: str, **fields: Any) -> None:
    """Sets places of the standing, or of what is the call's own, in the record at `key`."""
    record = decode_record(await store.call("GET", key))
    own = {name: value for name, value in fields.items() if name in Own.__struct_fields__}
    standing = {name: value for name, value in fields.items() if name in Standing.__struct_fields__}
    assert len(own) + len(standing) == len(fields)
    changed = Record(
        msgspec.structs.replace(record.standing, **standing), msgspec.structs.replace(record.own, **own), record.past
    )
    await store.call("SET", key, _encoded(changed))


def _encoded(record: Record) -> bytes:
    standing, own = msgspec.msgpack.encode(record.standing), record.own
    caller, told = own.caller.encode(), own.told.encode()
    head = pack("<I", len(standing)) + standing + pack("<QQI", own.since, own.expires, len(caller)) + caller
    return head + pack("<QQI", own.sequence, own.enqueued, len(told)) + told + record.past
