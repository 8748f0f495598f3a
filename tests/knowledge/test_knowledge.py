"""Documents in the store and the search over them: real store, real index files, several processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from switchroom.errors import BadInput, NotFound, Unavailable
from switchroom.knowledge import Document, Embedding, Hit, Knowledge
from switchroom.knowledge.library import MAX_GONE, collection_id
from switchroom.store import Store

SITE = "docs.example.com"


def page(key: str, text: str, title: str = "", **more: object) -> Document:
    return Document(key=key, url=f"https://{SITE}{key}", text=text, title=title, **more)  # type: ignore[arg-type]


HOURS = "Monday to Friday we are open from 9 to 17.\n\nOn Saturday until noon."
RETURNS = (
    "Goods may be returned within 30 days. Keep the invoice.\n\n## Abroad\n\nReturns from other countries take 60 days."
)
INVOICES = "An invoice is sent by e-mail. Invoices can be paid by card or by bank transfer."
VERSAND = "Die Lieferung in das Ausland dauert fünf Tage und ist nicht kostenlos."
CAS = "Trgovina je odprta od ponedeljka do petka, ob sobotah pa smo na voljo po telefonu."
SHOP = tuple(
    page(key, f"# {title}\n\n{text}", title)
    for key, title, text in (
        ("/hours", "Opening hours", HOURS),
        ("/returns", "Returns", RETURNS),
        ("/invoice", "Invoices", INVOICES),
        ("/de", "Versand", VERSAND),
        ("/sl", "Odpiralni čas", CAS),
    )
)


@pytest.fixture
async def knowledge(store: Store, data_dir: Path) -> AsyncIterator[Knowledge]:
    held = Knowledge(store, data_dir / "knowledge")
    yield held
    await held.close()


async def stock(knowledge: Knowledge, documents: Sequence[Document] = SHOP) -> None:
    for document in documents:
        assert await knowledge.library.put(SITE, document)


async def first(knowledge: Knowledge, query: str) -> Hit:
    return (await knowledge.search(SITE, query))[0]


@pytest.mark.parametrize(
    ("query", "url", "says"),
    [
        ("When are you open on Fridays?", "/hours", "Monday to Friday we are open from 9 to 17."),
        ("opening hours", "/hours", "Monday to Friday we are open from 9 to 17."),
        ("how long do returns from another country take", "/returns", "Returns from other countries take 60 days."),
        ("Within how many days can goods be returned?", "/returns", "Goods may be returned within 30 days."),
        ("paying an invoice with a card", "/invoice", "Invoices can be paid by card or by bank transfer."),
        ("Wie lange dauert eine Lieferung?", "/de", "Die Lieferung in das Ausland dauert fünf Tage"),
        ("odpiralni cas trgovine", "/sl", "Trgovina je odprta od ponedeljka do petka"),
        ("ob kateri soboti ste na voljo po telefonih", "/sl", "ob sobotah pa smo na voljo po telefonu"),
        ("invoic", "/invoice", "invoice"),
    ],
)
async def test_a_question_finds_the_sentence_that_answers_it(
    knowledge: Knowledge, query: str, url: str, says: str
) -> None:
    await stock(knowledge)
    hit = await first(knowledge, query)
    assert hit.url == f"https://{SITE}{url}"
    assert says in hit.snippet
    assert hit.coverage >= 0.5


@pytest.mark.parametrize("query", ["", "   ", "?!", 'AND "', "NEAR(", "*", "xyzzy", "\x00", "x" * 5000])
async def test_what_asks_for_nothing_finds_nothing(knowledge: Knowledge, query: str) -> None:
    await stock(knowledge)
    assert await knowledge.search(SITE, query) == []


async def test_a_search_sees_every_change_before_it(knowledge: Knowledge, store: Store, data_dir: Path) -> None:
    other = Knowledge(store, data_dir / "elsewhere")  # another machine: it shares the store only
    await stock(knowledge)
    assert not await knowledge.library.put(SITE, SHOP[0])
    assert (await first(other, "open on Friday")).url.endswith("/hours")
    await knowledge.library.put(SITE, page("/hours", "We are open from 8 to 20.", "Opening hours"))
    for seen in (knowledge, other):
        assert (await first(seen, "when are you open")).snippet == "We are open from 8 to 20."
    assert await knowledge.library.remove(SITE, ["/hours", "/never"]) == 1
    for seen in (knowledge, other):
        assert all(hit.key != "/hours" for hit in await seen.search(SITE, "when are you open"))
    assert await other.library.drop(SITE)
    with pytest.raises(NotFound):
        await knowledge.search(SITE, "open")
    # The same name again is another collection: nothing of the old one is left in an index.
    await knowledge.library.put(SITE, page("/new", "A new shop that is never open."))
    for seen in (knowledge, other):
        assert [hit.key for hit in await seen.search(SITE, "open invoice")] == ["/new"]
    await other.close()


async def test_an_index_that_lags_too_far_is_made_anew(knowledge: Knowledge, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_GONE > 3
    monkeypatch.setattr("switchroom.knowledge.library.MAX_GONE", 2)
    await stock(knowledge)
    await knowledge.search(SITE, "open")
    await knowledge.library.remove(SITE, [document.key for document in SHOP[:4]])
    assert [hit.key for hit in await knowledge.search(SITE, "open friday odprta returned invoice")] == ["/sl"]


async def test_a_damaged_index_file_is_made_anew(knowledge: Knowledge, data_dir: Path) -> None:
    await stock(knowledge)
    await first(knowledge, "open")
    await knowledge.close()
    path = data_dir / "knowledge" / f"{collection_id(SITE)}.db"
    path.write_bytes(b"SQLite format 3\x00" + os.urandom(8192))
    assert (await first(knowledge, "open on Friday")).url.endswith("/hours")


async def test_the_file_of_a_dropped_collection_goes(knowledge: Knowledge, data_dir: Path) -> None:
    await stock(knowledge)
    await first(knowledge, "open")
    await knowledge.library.drop(SITE)
    following = asyncio.create_task(knowledge.follow())
    async with asyncio.timeout(30):
        while list((data_dir / "knowledge").glob("*.db*")):
            await asyncio.sleep(0.02)
    following.cancel()


@pytest.mark.parametrize(
    "spelled",
    [SITE, "DOCS.example.com", f"7:{SITE}", f"https://www.{SITE}/a/b?c", f"www.{SITE}", f"{SITE}:Documents"],
)
async def test_a_canvas_may_spell_a_collection_in_several_ways(knowledge: Knowledge, spelled: str) -> None:
    await stock(knowledge, SHOP[:1])
    assert await knowledge.resolve(spelled) == SITE
    with pytest.raises(NotFound):
        await knowledge.resolve("1:papers")


@pytest.mark.parametrize(
    ("name", "document"),
    [("", SHOP[0]), ("a\nb", SHOP[0]), ("x" * 201, SHOP[0]), ("x", page("", "text")), ("x", page("/" * 3000, "text"))],
)
async def test_what_cannot_be_kept_is_refused(knowledge: Knowledge, name: str, document: Document) -> None:
    with pytest.raises(BadInput):
        await knowledge.library.put(name, document)


async def test_a_reader_that_is_killed_while_it_indexes_leaves_a_whole_index(
    knowledge: Knowledge, store: Store, data_dir: Path
) -> None:
    words = " ".join(f"word{number}" for number in range(300))
    for number in range(240):
        await knowledge.library.put(SITE, page(f"/{number}", f"Page {number} of the shop. {words}", f"Page {number}"))
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from switchroom.knowledge import Knowledge\n"
        "from switchroom.store import Store\n"
        "async def main():\n"
        "    held = Knowledge(Store(sys.argv[1]), Path(sys.argv[2]))\n"
        "    print('begins', flush=True)\n"
        "    print(len(await held.search(sys.argv[3], 'page 17')), flush=True)\n"
        "asyncio.run(main())\n"
    )

    def start() -> subprocess.Popen[bytes]:
        words = [sys.executable, "-c", program, store.url, str(data_dir / "knowledge"), SITE]
        return subprocess.Popen(words, stdout=subprocess.PIPE)

    def begun(process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begins\n"

    killed = await asyncio.to_thread(start)
    await asyncio.to_thread(begun, killed)
    file = data_dir / "knowledge" / f"{collection_id(SITE)}.db-wal"
    async with asyncio.timeout(20):
        while not file.exists() or await asyncio.to_thread(lambda: file.stat().st_size) < 100_000:
            await asyncio.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    await asyncio.to_thread(killed.wait)
    hits, _ = await asyncio.gather(knowledge.search(SITE, "page 17"), asyncio.to_thread(_ends_well, start()))
    assert hits[0].key == "/17"
    assert len(await knowledge.search(SITE, "word7", limit=50)) == 50


def _ends_well(process: subprocess.Popen[bytes]) -> None:
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert int(out.split()[-1]) > 0


class Meanings:
    """An embedding service whose vectors know three meanings; `away` says that it does not answer."""

    model = "three-meanings"
    away = False
    asked = 0

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        if self.away:
            raise Unavailable("The embedding service is away.")
        self.asked += len(texts)
        kinds = (("invoice", "money", "bill"), ("open", "hours", "closing"), ("return", "send back"))
        return [[0.1, *(float(any(word in text.lower() for word in kind)) for kind in kinds)] for text in texts]


async def test_meaning_finds_what_words_do_not(store: Store, data_dir: Path) -> None:
    meanings = Meanings()
    knowledge = Knowledge(store, data_dir / "knowledge", embedder=meanings)
    await stock(knowledge)
    embedding = Embedding(store, meanings)
    assert await embedding.one(collection_id(SITE)) == len(SHOP)
    asked = meanings.asked
    assert await embedding.one(collection_id(SITE)) == 0
    assert (await first(knowledge, "the bill")).key == "/invoice"
    assert (await first(knowledge, "closing")).key == "/hours"
    await knowledge.library.put(SITE, page("/hours", "Please send back only what you do not want.", "Ways"))
    assert await embedding.one(collection_id(SITE)) == 1
    assert meanings.asked == asked + 2 + 1
    assert {hit.key for hit in (await knowledge.search(SITE, "send back", limit=2))} == {"/hours", "/returns"}
    meanings.away = True
    assert (await first(knowledge, "pay an invoice")).key == "/invoice"
    await knowledge.close()
