"""What people put into the folders: a sitemap that makes a site, and PDF files."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp.test_utils import TestClient

from switchroom.knowledge import Library
from switchroom.store import Store

from .changing_site import ChangingSite

sys.path.insert(0, str(Path(__file__).parents[1] / "crawler"))
from difficult_site import pdf

Until = Callable[..., Awaitable[dict[str, Any]]]


async def test_a_folder_with_a_sitemap_becomes_a_site(
    sidecar: TestClient, until: Until, store: Store, data_dir: Path
) -> None:
    async with ChangingSite() as site:
        site.put("/a", "The first of two pages.", listed=False)
        site.put("/b", "The second of two pages.", listed=False)
        site.put("/c", "A page that nobody listed.", listed=False)
        site.links["/a"] = ["/c"]
        folder = data_dir / "sites" / site.host.replace(":", "_")
        rows = "".join(
            f"<url><loc>{url}</loc></url>" for url in (site.url("/a"), site.url("/b"), "https://other.example/")
        )

        def put() -> None:
            folder.mkdir(parents=True)
            (folder / "sitemap.xml").write_text(f"<urlset>{rows}</urlset>")
            (data_dir / "sites" / "broken.example").mkdir()
            (data_dir / "sites" / "broken.example" / "sitemap.xml").write_text("<html>no</html>")

        await asyncio.to_thread(put)
        made = (await (await sidecar.post("/crawl/sites/adopt")).json())["sites"]
        assert set(made) == {site.host}
        done = await until(sidecar, made[site.host], "completed", "failed")
        assert done["progress"]["kept"] == 2
        rows_kept, _ = await Library(store).documents(site.host, 0, 10)
        assert {row.url for row in rows_kept} == {site.url("/a"), site.url("/b")}
        assert (await (await sidecar.post("/crawl/sites/adopt")).json())["sites"] == {}
        shown = await (await sidecar.get(f"/crawl/sites/{site.host}")).json()
        assert (shown["pages"], shown["alwaysFresh"]) == (2, True)


async def test_pdf_files_of_the_reserved_folder_are_knowledge(
    sidecar: TestClient, store: Store, data_dir: Path
) -> None:
    folder = data_dir / "sites" / "Local_PDF"

    async def look() -> dict[str, Any]:
        return await (await sidecar.post("/crawl/sites/local_pdf/look")).json()  # type: ignore[no-any-return]

    def put() -> None:
        (folder / "manuals").mkdir(parents=True)
        (folder / "manuals" / "Radio 7.pdf").write_bytes(pdf("The radio", "Press the green key to listen."))
        (folder / "torn.pdf").write_bytes(b"%PDF-1.7 torn")
        (data_dir / "secret.pdf").write_bytes(pdf("A secret", "Not to be read."))
        (folder / "link.pdf").symlink_to(data_dir / "secret.pdf")

    await asyncio.to_thread(put)
    looked = await look()
    assert (looked["read"], looked["failed"]) == (1, {"torn.pdf": "pdf_broken"})
    rows, _ = await Library(store).documents("Local_PDF", 0, 10)
    (row,) = rows
    assert row.url == "local-pdf:///manuals/Radio%207.pdf"
    assert "Press the green key to listen." in row.text
    assert (await look())["unchanged"] == 1
    marks = [{"url": row.url, "mark": "ignore"}]
    assert (await sidecar.patch("/crawl/sites/local_pdf/pages", json=marks)).status == 200
    assert (await Library(store).documents("Local_PDF", 0, 10))[1] == 0
    marks[0]["mark"] = "use"
    await sidecar.patch("/crawl/sites/local_pdf/pages", json=marks)
    assert (await Library(store).documents("Local_PDF", 0, 10))[1] == 1
    assert (await (await sidecar.post("/crawl/fresh/runs")).json())["sites"] == {}
    assert (await sidecar.post("/crawl/fresh/runs", json={"hosts": ["local_pdf"]})).status == 400
    (folder / "manuals" / "Radio 7.pdf").unlink()
    assert (await look())["removed"] == 1
    assert (await sidecar.delete("/crawl/sites/local_pdf")).status == 200
    assert (folder / "torn.pdf").is_file()
