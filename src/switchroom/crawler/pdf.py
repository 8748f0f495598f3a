"""The text layer of a PDF as Markdown, read by PDFium in a process of its own.

A PDF comes from anywhere, and its reader is native code that may loop, swallow memory or fall: in a child with limits
that costs one page, not the crawler.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import sys

import msgspec

log = logging.getLogger(__name__)

TIMEOUT_S = 60.0
MAX_PAGES = 2000
MAX_CHARS = 5_000_000
_MEMORY_BYTES = 2_000_000_000
_PASSWORD_ERROR = 4  # FPDF_ERR_PASSWORD


class PdfText(msgspec.Struct, frozen=True):
    """A PDF's `title` and text, or why there is none: `pdf_broken`, `pdf_encrypted`, `pdf_without_text`, `timeout`."""

    title: str = ""
    markdown: str = ""
    cause: str = ""


async def read_pdf(body: bytes) -> PdfText:
    """The text of `body`, each page under a heading of its own where there are several."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-m",
        "switchroom.crawler.pdf",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            answer, _ = await child.communicate(body)
    except TimeoutError:
        return PdfText(cause="timeout")
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    try:
        return msgspec.json.decode(answer, type=PdfText)
    except msgspec.DecodeError:
        log.warning("the PDF reader fell", extra={"exit": child.returncode, "bytes": len(body)})
        return PdfText(cause="pdf_broken")


def extract_text(body: bytes) -> PdfText:
    """The same, in this process."""
    import pypdfium2  # in the child alone: it is native code

    try:
        document = pypdfium2.PdfDocument(body)
    except pypdfium2.PdfiumError as error:
        return PdfText(cause="pdf_encrypted" if error.err_code == _PASSWORD_ERROR else "pdf_broken")
    parts: list[str] = []
    chars = 0
    for number in range(min(len(document), MAX_PAGES)):
        try:
            raw = document[number].get_textpage().get_text_bounded()
        except pypdfium2.PdfiumError:
            continue  # one damaged page of many
        text = "\n".join(" ".join(line.split()) for line in raw.replace("\ufffe", "").splitlines()).strip()
        chars += len(text)
        if text:
            parts.append(f"## Page {number + 1}\n\n{text}" if len(document) > 1 else text)
        if chars > MAX_CHARS:
            break
    if not parts:
        return PdfText(cause="pdf_without_text")
    title = " ".join(document.get_metadata_value("Title").split())
    return PdfText(title=title, markdown="\n\n".join(parts))


def main() -> None:
    """The child: a PDF on standard input, `PdfText` as JSON on standard output."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (int(TIMEOUT_S), int(TIMEOUT_S) + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    found = extract_text(sys.stdin.buffer.read())
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    main()
