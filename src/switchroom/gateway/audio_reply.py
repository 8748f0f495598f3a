"""A recording as an HTTP answer: whole or a range of it (RFC 9110 §14), opened on the way where it is sealed."""

from __future__ import annotations

import asyncio

from aiohttp import hdrs, web

from switchroom.errors import NotFound, Unavailable
from switchroom.records import Recording
from switchroom.records.audio_files import AudioFiles, AudioReader, AudioUnreadable

_PIECE = 64 << 10
_TYPES = {"ogg": "audio/ogg", "wav": "audio/wav"}


async def audio_reply(
    request: web.Request, files: AudioFiles, recording: Recording, file_name: str
) -> web.StreamResponse:
    """200, 206 or 416. Raises `NotFound` when the file is gone, `Unavailable` when it is sealed and stays so."""
    media_type = _TYPES.get(recording.format, "application/octet-stream")
    headers: dict[str, str] = {
        hdrs.CONTENT_DISPOSITION: f'inline; filename="{file_name}"',
        hdrs.CACHE_CONTROL: "private",
    }
    try:
        path = await asyncio.to_thread(files.plain_path, recording.blob)
        if path is not None:
            reply = web.FileResponse(path, headers=headers)
            reply.content_type = media_type
            return reply
        reader = await asyncio.to_thread(files.open, recording.blob)
    except FileNotFoundError:
        raise NotFound("The recording of this record is gone.", code="no_recording") from None
    except AudioUnreadable as error:
        raise _unreadable(error) from error
    try:
        return await _opened(request, reader, f'"{recording.blob}-{reader.size}"', media_type, headers)
    finally:
        await asyncio.to_thread(reader.close)


async def _opened(
    request: web.Request, reader: AudioReader, tag: str, media_type: str, headers: dict[str, str]
) -> web.StreamResponse:
    headers |= {hdrs.ACCEPT_RANGES: "bytes", hdrs.ETAG: tag}
    size = reader.size
    start, end, status = 0, size, 200
    if request.headers.get(hdrs.IF_RANGE, tag) == tag and hdrs.RANGE in request.headers:
        try:
            asked = request.http_range
            start, end, _ = asked.indices(size)
            status = 206
        except ValueError:
            start = end = size
        if start >= end:
            return web.Response(status=416, headers={**headers, hdrs.CONTENT_RANGE: f"bytes */{size}"})
        headers[hdrs.CONTENT_RANGE] = f"bytes {start}-{end - 1}/{size}"
    reply = web.StreamResponse(status=status, headers=headers)
    reply.content_type = media_type
    reply.content_length = end - start
    try:
        piece = await asyncio.to_thread(reader.read, start, min(_PIECE, end - start))
        await reply.prepare(request)
        if request.method == hdrs.METH_HEAD:
            return reply
        while piece:
            await reply.write(piece)
            start += len(piece)
            piece = await asyncio.to_thread(reader.read, start, min(_PIECE, end - start))
    except AudioUnreadable as error:
        if reply.prepared:  # the length that was promised is not kept: the client sees a broken body
            raise ConnectionResetError("the recording is damaged") from error
        raise _unreadable(error) from error
    await reply.write_eof()
    return reply


def _unreadable(error: AudioUnreadable) -> Unavailable:
    return Unavailable(f"The recording cannot be opened: {error}.", code="recording_sealed")
