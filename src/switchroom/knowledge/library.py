"""The documents, durable in the store, by collection: what every process's index is made from and follows.

Each change takes the collection's next number, in one script, so that an index knows what it has not seen yet.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
import uuid
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from switchroom.errors import BadInput, Fault, NotFound
from switchroom.knowledge.chunks import VERSION as CHUNKS_VERSION
from switchroom.store import Script, Store, keys

MAX_TEXT_CHARS = 2_000_000
MAX_KEY_CHARS = 2_000
MAX_NAME_CHARS = 200
MAX_GONE = 10_000
"""Removals that an index may lag behind before it has to be made anew."""
_DIGEST_BYTES = 16
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

_PUT = Script("""
local meta, docs, changes, gone, vectors = unpack(KEYS)
local now, gen = ARGV[1], ARGV[2]
if redis.call('HSETNX', meta, 'gen', gen) == 1 then redis.call('HSET', meta, 'created', now) end
local changed = 0
for i = 3, #ARGV, 2 do
  local key, record = ARGV[i], ARGV[i + 1]
  local held = redis.call('HGET', docs, key)
  if not held or string.sub(held, 1, 16) ~= string.sub(record, 1, 16) then
    redis.call('HSET', docs, key, record)
    redis.call('HDEL', vectors, key)
    redis.call('ZADD', changes, redis.call('HINCRBY', meta, 'seq', 1), key)
    redis.call('ZREM', gone, key)
    changed = changed + 1
  end
end
if changed > 0 then redis.call('HSET', meta, 'changed', now) end
return changed
""")

_REMOVE = Script("""
local meta, docs, changes, gone, vectors = unpack(KEYS)
local now, most = ARGV[1], tonumber(ARGV[2])
local removed = 0
for i = 3, #ARGV do
  if redis.call('HDEL', docs, ARGV[i]) == 1 then
    local seq = redis.call('HINCRBY', meta, 'seq', 1)
    redis.call('HDEL', vectors, ARGV[i])
    redis.call('ZREM', changes, ARGV[i])
    redis.call('ZADD', gone, seq, ARGV[i])
    removed = removed + 1
  end
end
while redis.call('ZCARD', gone) > most do
  local oldest = redis.call('ZPOPMIN', gone)
  redis.call('HSET', meta, 'floor', oldest[2])
end
if removed > 0 then redis.call('HSET', meta, 'changed', now) end
return removed
""")

_VECTORS = Script("""
local meta, docs, changes, vectors = unpack(KEYS)
local key, digest, packed = unpack(ARGV)
local held = redis.call('HGET', docs, key)
if not held or string.sub(held, 1, 16) ~= digest then return 0 end
redis.call('HSET', vectors, key, packed)
redis.call('ZADD', changes, redis.call('HINCRBY', meta, 'seq', 1), key)
return 1
""")


class Document(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A text of a collection. `key` tells it from the others (a page's URL); `url` is where a reader finds it, `text`
    Markdown, `language` Snowball's name of one where it is known, `metadata` what the writer wants back with it."""

    key: str
    text: str
    title: str = ""
    url: str = ""
    language: str = ""
    changed_ms: int = 0
    metadata: dict[str, Any] = {}


class Vectors(msgspec.Struct, frozen=True, kw_only=True):
    """The chunks of one document as a model sees them: `rows` of `size` half floats each, little-endian, in order."""

    model: str
    chunks: int
    size: int
    rows: bytes


class Collection(msgspec.Struct, frozen=True, kw_only=True):
    """What a list shows of a collection. Times are Unix milliseconds."""

    id: str
    name: str
    documents: int
    created_ms: int
    changed_ms: int


class Position(msgspec.Struct, frozen=True):
    """How far a collection has come. Another `gen` is another collection by the same name; an index older than `floor`
    cannot catch up."""

    gen: str
    seq: int
    floor: int


class Held(msgspec.Struct, frozen=True):
    """A document as it is held, the digest of what it says, and its vectors where there are some of just that."""

    digest: bytes
    document: Document
    vectors: Vectors | None


class Changes(msgspec.Struct, frozen=True):
    """Some changes after a number, oldest first: documents as they are now, keys that are gone, and up to which number
    they go."""

    documents: list[Held]
    gone: list[str]
    seq: int


class Library:
    """The collections in one store. Writers need nothing else; readers go through `Knowledge`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def put(self, name: str, document: Document) -> bool:
        """Add or replace a document; False where it is there already as it is. Makes the collection where it is new.

        Raises `BadInput` for a name, key or text that cannot be kept.
        """
        return await self.put_many(name, [document]) == 1

    async def put_many(self, name: str, documents: Sequence[Document]) -> int:
        """As `put`, all or none; returns how many changed."""
        check_name(name)
        faults = [fault for place, document in enumerate(documents) for fault in _faults(document, place)]
        if faults:
            raise BadInput("The documents cannot be kept.", faults=faults)
        if not documents:
            return 0
        now = _now_ms()
        identity = collection_id(name)
        parts = ("meta", "docs", "changes", "gone", "vectors")
        words: list[str | bytes | int] = [now, uuid.uuid4().hex]
        for document in documents:
            words += [document.key, _packed(document, now)]
        _, changed = await asyncio.gather(
            self._store.call("HSETNX", keys.knowledge_names(), identity, name.strip()),
            self._store.run(_PUT, [keys.knowledge(identity, part) for part in parts], words),
        )
        return int(changed)

    async def remove(self, name: str, document_keys: Sequence[str]) -> int:
        """Take documents out; returns how many were there."""
        if not document_keys:
            return 0
        parts = ("meta", "docs", "changes", "gone", "vectors")
        names = [keys.knowledge(collection_id(name), part) for part in parts]
        return int(await self._store.run(_REMOVE, names, [_now_ms(), MAX_GONE, *document_keys]))

    async def drop(self, name: str) -> bool:
        """Remove a whole collection; False where there was none."""
        identity = collection_id(name)
        was = bool(await self._store.call("HDEL", keys.knowledge_names(), identity))
        parts = ("meta", "docs", "changes", "gone", "vectors")
        await self._store.call("DEL", *(keys.knowledge(identity, part) for part in parts))
        return was

    async def collections(self) -> list[Collection]:
        """All collections by name."""
        raw = await self._store.call("HGETALL", keys.knowledge_names())
        names = {raw[i].decode(): raw[i + 1].decode() for i in range(0, len(raw), 2)}
        found = [await self._described(identity, name) for identity, name in names.items()]
        return sorted(found, key=lambda one: one.name.casefold())

    async def collection(self, name: str) -> Collection:
        """One collection; `NotFound` where there is none by that name."""
        identity = collection_id(name)
        spelled = await self._store.call("HGET", keys.knowledge_names(), identity)
        if spelled is None:
            raise NotFound(f"There is no knowledge collection {name!r}.", code="collection_not_found")
        return await self._described(identity, spelled.decode())

    async def _described(self, identity: str, name: str) -> Collection:
        created, changed = await self._store.call("HMGET", keys.knowledge(identity, "meta"), "created", "changed")
        documents = int(await self._store.call("HLEN", keys.knowledge(identity, "docs")))
        return Collection(
            id=identity,
            name=name,
            documents=documents,
            created_ms=int(created or 0),
            changed_ms=int(changed or 0),
        )

    async def document(self, name: str, key: str) -> Document:
        """One document; `NotFound` where it is not there."""
        raw = await self._store.call("HGET", keys.knowledge(collection_id(name), "docs"), key)
        if raw is None:
            raise NotFound("There is no such document in this collection.", code="document_not_found")
        return _unpacked(raw)

    async def documents(self, name: str, offset: int, limit: int) -> tuple[list[Document], int]:
        """Documents by their last change, newest first, and how many there are in all."""
        identity = collection_id(name)
        changes = keys.knowledge(identity, "changes")
        found = await self._store.call("ZRANGE", changes, offset, offset + limit - 1, "REV")
        raw = await self._store.call("HMGET", keys.knowledge(identity, "docs"), *found) if found else []
        return [_unpacked(one) for one in raw if one is not None], int(await self._store.call("ZCARD", changes))

    # --- for indexes -------------------------------------------------------------------------------------------------

    async def position(self, identity: str) -> Position | None:
        """How far the collection of this ID is; None where there is none."""
        names = ("gen", "seq", "floor")
        gen, seq, floor = await self._store.call("HMGET", keys.knowledge(identity, "meta"), *names)
        return None if gen is None else Position(gen.decode(), int(seq or 0), int(floor or 0))

    async def changes(self, identity: str, after: int, limit: int) -> Changes:
        """What changed after the number `after`, at most `limit` keys of each kind."""
        since = f"({after}"
        span = ("+inf", "LIMIT", 0, limit, "WITHSCORES")
        changed = await self._store.call("ZRANGEBYSCORE", keys.knowledge(identity, "changes"), since, *span)
        gone = await self._store.call("ZRANGEBYSCORE", keys.knowledge(identity, "gone"), since, *span)
        ends = [int(rows[-1]) for rows in (changed, gone) if len(rows) == 2 * limit]
        end = min(ends) if ends else max((int(rows[-1]) for rows in (changed, gone) if rows), default=after)
        names = [changed[i] for i in range(0, len(changed), 2) if int(changed[i + 1]) <= end]
        removed = [gone[i].decode() for i in range(0, len(gone), 2) if int(gone[i + 1]) <= end]
        found: list[Held] = []
        if names:
            docs = await self._store.call("HMGET", keys.knowledge(identity, "docs"), *names)
            packed = await self._store.call("HMGET", keys.knowledge(identity, "vectors"), *names)
            found = [
                Held(raw[:_DIGEST_BYTES], _unpacked(raw), _vectors(raw[:_DIGEST_BYTES], vectors))
                for raw, vectors in zip(docs, packed, strict=True)
                if raw is not None
            ]
        return Changes(found, removed, end)

    async def keep_vectors(self, identity: str, held: Held, vectors: Vectors) -> bool:
        """Keep the vectors of a document; False where it has changed since."""
        parts = ("meta", "docs", "changes", "vectors")
        packed = _vectors_head(held.digest) + msgspec.msgpack.encode(vectors)
        names = [keys.knowledge(identity, part) for part in parts]
        return bool(await self._store.run(_VECTORS, names, [held.document.key, held.digest, packed]))


def collection_id(name: str) -> str:
    """The ID of a collection: its name without regard to case, as a word that fits in a key and a file name."""
    return hashlib.blake2b(name.strip().casefold().encode(), digest_size=10).hexdigest()


def check_name(name: str) -> None:
    """Raises `BadInput` for what is no name of a collection."""
    if not 0 < len(name.strip()) <= MAX_NAME_CHARS or _CONTROL.search(name):
        what = f"must be 1 to {MAX_NAME_CHARS} characters, without control characters"
        raise BadInput(f"A collection's name {what}.", faults=[Fault(what, "/collection")])


def _faults(document: Document, place: int) -> Iterator[Fault]:
    if not 0 < len(document.key) <= MAX_KEY_CHARS:
        yield Fault(f"must be 1 to {MAX_KEY_CHARS} characters", f"/{place}/key")
    if len(document.text) > MAX_TEXT_CHARS:
        yield Fault(f"must be at most {MAX_TEXT_CHARS} characters", f"/{place}/text")


def _packed(document: Document, now_ms: int) -> bytes:
    """The digest of what the document says (not of when), then the document itself, compressed."""
    told = [document.title, document.url, document.language, document.metadata, document.text]
    digest = hashlib.blake2b(msgspec.msgpack.encode(told), digest_size=_DIGEST_BYTES).digest()
    plain = msgspec.msgpack.encode(msgspec.structs.replace(document, changed_ms=document.changed_ms or now_ms))
    return digest + zlib.compress(plain, 1)


def _unpacked(raw: bytes) -> Document:
    return msgspec.msgpack.decode(zlib.decompress(raw[_DIGEST_BYTES:]), type=Document)


def _vectors_head(digest: bytes) -> bytes:
    return digest + bytes([CHUNKS_VERSION])


def _vectors(digest: bytes, packed: bytes | None) -> Vectors | None:
    head = _vectors_head(digest)
    if packed is None or not packed.startswith(head):
        return None
    return msgspec.msgpack.decode(packed[len(head) :], type=Vectors)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
