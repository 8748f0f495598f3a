"""Knowledge at `/api/v1/knowledge`: the collections that flows search, their documents, and the search itself."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from switchroom.access import Scope
from switchroom.errors import BadInput, Fault, NotFound
from switchroom.gateway.operation import operation
from switchroom.gateway.reply import as_shape, bad_parameter, json_reply, query_int, rfc3339
from switchroom.gateway.services import services
from switchroom.http_problems import read_json
from switchroom.knowledge import Collection, Document, Hit

BASE = "/api/v1/knowledge"
MAX_DOCUMENTS = 500
_KEY = (str, "The document's key, as the list shows it: a page's URL")


class CollectionView(msgspec.Struct, rename="camel"):
    name: str
    documents: int
    created_at: str | None
    changed_at: str | None


class DocumentBody(msgspec.Struct, rename="camel", omit_defaults=True):
    """A document to keep. `text` is Markdown or plain; `key` tells it from the others and is the `url` where it is left
    out; `language` is Snowball's name of one (`german`) and is found out where it is left out; `metadata` comes back
    with each hit."""

    text: str
    title: str = ""
    url: str = ""
    key: str = ""
    language: str = ""
    metadata: dict[str, Any] = {}


class DocumentView(msgspec.Struct, rename="camel", omit_defaults=True):
    """`text` is in the answer for one document only."""

    key: str
    title: str
    url: str
    chars: int
    changed_at: str | None
    language: str = ""
    metadata: dict[str, Any] = {}
    text: str | None = None


class DocumentPage(msgspec.Struct, rename="camel"):
    """Newest change first."""

    collection: CollectionView
    data: list[DocumentView]
    total: int


class HitView(msgspec.Struct, rename="camel"):
    """A chunk that answers. `snippet` are its sentences that answer best; `score` orders the hits of one answer;
    `coverage` is the share of the question's weight that the chunk speaks of, from 0 to 1."""

    key: str
    url: str
    title: str
    headings: list[str]
    text: str
    snippet: str
    score: float
    coverage: float
    changed_at: str | None
    metadata: dict[str, Any]


class Found(msgspec.Struct, rename="camel"):
    collection: str
    query: str
    hits: list[HitView]


class Kept(msgspec.Struct):
    """`changed` counts the documents that were new or said something else."""

    received: int
    changed: int


class Removed(msgspec.Struct):
    removed: int


def routes() -> list[web.RouteDef]:
    one = BASE + "/{collection}"
    return [
        web.get(BASE, list_collections),
        web.get(one, list_documents),
        web.delete(one, drop_collection),
        web.get(one + "/search", search),
        web.get(one + "/document", get_document),
        web.put(one + "/documents", put_documents),
        web.delete(one + "/documents", remove_document),
    ]


@operation(Scope.KNOWLEDGE_READ, "List the collections", tag="knowledge", replies={200: list[CollectionView]})
async def list_collections(request: web.Request) -> web.Response:
    return json_reply([_shown(one) for one in await services(request).knowledge.library.collections()])


@operation(
    Scope.KNOWLEDGE_READ,
    "A collection and its documents",
    tag="knowledge",
    replies={200: DocumentPage},
    query={"page": (int, "From 1"), "limit": (int, "Documents a page, at most 500 (50)")},
    errors=(400, 404),
)
async def list_documents(request: web.Request) -> web.Response:
    library = services(request).knowledge.library
    collection = await library.collection(request.match_info["collection"])
    page = query_int(request, "page", 1, lowest=1, highest=1_000_000)
    limit = query_int(request, "limit", 50, lowest=1, highest=MAX_DOCUMENTS)
    rows, total = await library.documents(collection.name, (page - 1) * limit, limit)
    return json_reply(DocumentPage(_shown(collection), [_document(row) for row in rows], total))


@operation(
    Scope.KNOWLEDGE_READ,
    "The chunks of a collection that answer a question best",
    tag="knowledge",
    replies={200: Found},
    query={"q": (str, "The question, or some words"), "limit": (int, "Hits at most, 1 to 50 (5)")},
    errors=(400, 404),
)
async def search(request: web.Request) -> web.Response:
    knowledge = services(request).knowledge
    query = request.query.get("q", "")
    if not query.strip():
        raise bad_parameter("q", "must hold the question")
    limit = query_int(request, "limit", 5, lowest=1, highest=50)
    name = await knowledge.resolve(request.match_info["collection"])
    hits = await knowledge.search(name, query, limit=limit)
    return json_reply(Found(name, query, [_hit(hit) for hit in hits]))


@operation(
    Scope.KNOWLEDGE_READ,
    "One document with its text",
    tag="knowledge",
    replies={200: DocumentView},
    query={"key": _KEY},
    errors=(400, 404),
)
async def get_document(request: web.Request) -> web.Response:
    library = services(request).knowledge.library
    document = await library.document(request.match_info["collection"], _key(request))
    view = _document(document)
    view.text = document.text
    return json_reply(view)


@operation(
    Scope.KNOWLEDGE_WRITE,
    "Add or replace documents, all or none; a collection that is not there is made",
    tag="knowledge",
    body=list[DocumentBody],
    replies={200: Kept},
    errors=(400, 413),
)
async def put_documents(request: web.Request) -> web.Response:
    parts = services(request)
    value = await read_json(request, parts.max_canvas_bytes)
    bodies = as_shape(value if isinstance(value, list) else [value], list[DocumentBody])
    if not 0 < len(bodies) <= MAX_DOCUMENTS:
        what = f"must hold 1 to {MAX_DOCUMENTS} documents"
        raise BadInput(f"The body {what}.", faults=[Fault(what, "")])
    for place, body in enumerate(bodies):
        if not (body.key or body.url).strip():
            raise BadInput("A document needs a `key` or a `url`.", faults=[Fault("is missing", f"/{place}/key")])
    documents = [
        Document(
            key=body.key or body.url,
            text=body.text,
            title=body.title,
            url=body.url,
            language=body.language,
            metadata=body.metadata,
        )
        for body in bodies
    ]
    changed = await parts.knowledge.library.put_many(request.match_info["collection"], documents)
    return json_reply(Kept(len(documents), changed))


@operation(
    Scope.KNOWLEDGE_WRITE,
    "Remove one document; a page that a crawl finds again comes back, unless it is marked `ignore` or `delete` there",
    tag="knowledge",
    replies={200: Removed},
    query={"key": _KEY},
    errors=(400, 404),
)
async def remove_document(request: web.Request) -> web.Response:
    library = services(request).knowledge.library
    removed = await library.remove(request.match_info["collection"], [_key(request)])
    if not removed:
        raise NotFound("There is no such document in this collection.", code="document_not_found")
    return json_reply(Removed(removed))


@operation(
    Scope.KNOWLEDGE_WRITE,
    "Remove a collection with its documents",
    tag="knowledge",
    replies={200: Removed},
    errors=(404,),
)
async def drop_collection(request: web.Request) -> web.Response:
    library = services(request).knowledge.library
    collection = await library.collection(request.match_info["collection"])
    await library.drop(collection.name)
    return json_reply(Removed(collection.documents))


def _key(request: web.Request) -> str:
    key = request.query.get("key", "")
    if not key:
        raise bad_parameter("key", "must name the document")
    return key


def _shown(collection: Collection) -> CollectionView:
    return CollectionView(
        collection.name, collection.documents, rfc3339(collection.created_ms), rfc3339(collection.changed_ms)
    )


def _document(row: Document) -> DocumentView:
    return DocumentView(
        key=row.key,
        title=row.title,
        url=row.url,
        chars=len(row.text),
        changed_at=rfc3339(row.changed_ms),
        language=row.language,
        metadata=row.metadata,
    )


def _hit(hit: Hit) -> HitView:
    return HitView(
        key=hit.key,
        url=hit.url,
        title=hit.title,
        headings=hit.headings,
        text=hit.text,
        snippet=hit.snippet,
        score=hit.score,
        coverage=hit.coverage,
        changed_at=rfc3339(hit.changed_ms),
        metadata=hit.metadata,
    )
