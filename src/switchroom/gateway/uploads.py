"""Files that come with a text turn: their text goes into the question, as Flowise does it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from collections.abc import AsyncGenerator
from typing import Any, Literal
from xml.sax.saxutils import escape, quoteattr

import msgspec
from aiohttp import BodyPartReader, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from charset_normalizer import from_bytes

from switchroom.engine.events import Media
from switchroom.errors import BadInput, Fault, SwitchroomError
from switchroom.http_problems import decoded_json, too_large

MAX_FILES = 16
_TEXT_TYPES = frozenset(
    {"application/json", "application/xml", "application/yaml", "application/x-yaml", "application/x-ndjson"}
)
_MEDIA_TYPES = ("image/", "audio/")
_MULTIPART_JSON = frozenset({"overrideConfig", "form", "uploads", "humanInput"})


class NotText(SwitchroomError):
    """A file of a kind that no part of a flow reads: 415."""

    code = "upload_not_supported"
    status = 415
    title = "Unsupported media type"


class Upload(msgspec.Struct, omit_defaults=True):
    """`data` is a data URL (`type: file` or `audio`), the text itself (`type: file:full`), or a picture's address
    (`type: url`)."""

    name: str
    type: Literal["file", "file:full", "file:rag", "url", "audio"]
    data: str | None = None
    mime: str | None = None


async def read_uploads(question: str, uploads: list[Upload]) -> tuple[str, list[Media]]:
    """The question with the text of its uploads before it; and the pictures and sounds among them, which go to the
    flow's models. Raises `NotText`, `BadInput`."""
    if len(uploads) > MAX_FILES:
        what = f"holds more than {MAX_FILES} files"
        raise BadInput(f"`uploads` {what}.", faults=[Fault(what, "/uploads")])
    media: list[Media] = []
    blocks: list[str] = []
    for number, upload in enumerate(uploads):
        pointer = f"/uploads/{number}"
        if (seen := _media(upload, pointer)) is not None:
            media.append(seen)
        else:
            blocks.append(f"<doc name={quoteattr(upload.name)}>{escape(await _text(upload, pointer))}</doc>")
    return ("\n".join([*blocks, question]) if blocks else question), media


class NotAForm(SwitchroomError):
    """A body that should be a multipart form: 415."""

    code = "not_a_form"
    status = 415
    title = "Unsupported media type"


async def form_parts(request: web.Request, max_bytes: int) -> AsyncGenerator[tuple[BodyPartReader, bytes], None]:
    """The parts of a multipart form, `max_bytes` in all. Raises `NotAForm`, `TooLarge`, `BadInput`."""
    if request.content_type != "multipart/form-data":
        raise NotAForm("The body must be a form: `multipart/form-data` with files.")
    left = max_bytes
    try:
        reader = await request.multipart()
        while (part := await reader.next()) is not None:
            if not isinstance(part, BodyPartReader):
                raise BadInput("A part of the form is a form itself.")
            data = bytearray()
            while chunk := await part.read_chunk(65_536):
                left -= len(chunk)
                if left < 0:
                    raise too_large(max_bytes)
                data += chunk
            yield part, bytes(data)
    except (ValueError, AssertionError, LookupError, RuntimeError, HttpProcessingError) as error:
        # All that aiohttp's reader raises over a form that is none.
        raise BadInput(f"The form cannot be read: {str(error) or type(error).__name__}.") from error


async def multipart_body(request: web.Request, max_bytes: int) -> dict[str, Any]:
    """A multipart form as the JSON body that it stands for: `files` become uploads. Raises as `form_parts`."""
    body: dict[str, Any] = {}
    uploads: list[dict[str, Any]] = []
    async with contextlib.aclosing(form_parts(request, max_bytes)) as parts:
        async for part, data in parts:
            name = part.name or ""
            if part.filename is not None:
                mime = media_type(part)
                if mime.startswith(_MEDIA_TYPES):
                    url = f"data:{mime};base64,{base64.b64encode(data).decode()}"
                    uploads.append({"name": part.filename, "type": "file", "data": url, "mime": mime})
                    continue
                text = await file_text(data, part.filename, mime, f"/files/{len(uploads)}")
                uploads.append({"name": part.filename, "type": "file:full", "data": text, "mime": mime})
            elif name in _MULTIPART_JSON:
                body[name] = decoded_json(data)
            else:
                body[name] = data.decode("utf-8", "replace")
    if uploads:
        given = body.get("uploads")
        body["uploads"] = [*(given if isinstance(given, list) else []), *uploads]
    return body


def media_type(part: BodyPartReader) -> str:
    """What a part says that it is, without parameters."""
    return part.headers.get(hdrs.CONTENT_TYPE, "application/octet-stream").partition(";")[0].strip().lower()


async def file_text(data: bytes, name: str, mime: str, pointer: str) -> str:
    """The text of a file. Raises `NotText` for one that is none."""
    if not (mime.startswith("text/") or mime in _TEXT_TYPES or mime.endswith(("+json", "+xml"))):
        what = f"is {mime or 'of no known type'}: only files of text are read"
        raise NotText(f"{name!r} {what}.", faults=[Fault(what, pointer)])
    try:
        return data.decode()
    except UnicodeDecodeError:
        best = await asyncio.to_thread(lambda: from_bytes(data).best())
        if best is None:
            what = "is not text, whatever its type says"
            raise NotText(f"{name!r} {what}.", faults=[Fault(what, pointer)]) from None
        return str(best)


def _media(upload: Upload, pointer: str) -> Media | None:
    """An upload that is a picture or a sound; None for any other."""
    given = upload.data or ""
    mime = (upload.mime or "").partition(";")[0].strip().lower()
    if upload.type == "url" and mime.startswith("image/") and given.startswith(("https://", "http://")):
        return Media(name=upload.name, mime=mime, url=given)
    head, comma, payload = given.partition(",")
    if upload.type not in ("file", "audio") or not (comma and head.startswith("data:")):
        return None
    mime = head.removeprefix("data:").partition(";")[0].strip().lower() or mime
    if not mime.startswith(_MEDIA_TYPES) or not head.endswith(";base64"):
        return None
    try:
        base64.b64decode(payload, validate=True)
    except binascii.Error as error:
        raise BadInput("An upload is not base64.", faults=[Fault("is not base64", f"{pointer}/data")]) from error
    return Media(name=upload.name, mime=mime, data=payload)


async def _text(upload: Upload, pointer: str) -> str:
    if upload.data is None:
        raise BadInput("An upload has no data.", faults=[Fault("is required", f"{pointer}/data")])
    if upload.type == "file:full":
        return upload.data
    head, comma, payload = upload.data.partition(",")
    if upload.type != "file" or not (comma and head.startswith("data:")):
        what = f"is of the type {upload.type}, which no node reads"
        raise NotText(f"{upload.name!r} {what}.", faults=[Fault(what, pointer)])
    mime, *options = head.removeprefix("data:").split(";")
    try:
        data = base64.b64decode(payload, validate=True) if "base64" in options else payload.encode()
    except binascii.Error as error:
        raise BadInput("An upload is not base64.", faults=[Fault("is not base64", f"{pointer}/data")]) from error
    return await file_text(data, upload.name, mime or upload.mime or "", pointer)
