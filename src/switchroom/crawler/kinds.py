"""What an answer is, whatever its server says: by its first bytes where they tell, else by its media type. Pure."""

from __future__ import annotations

from typing import Literal

Kind = Literal["html", "pdf", "text", "other"]

_HTML = frozenset({"text/html", "application/xhtml+xml", ""})
_TEXT = frozenset({"text/plain", "text/markdown", "text/x-markdown"})
# Types that servers give to whatever they know nothing of.
_UNSURE = frozenset({"", "text/plain", "application/octet-stream", "binary/octet-stream", "application/x-unknown"})
# PNG, JPEG, GIF, RIFF (WebP), ZIP (also office files), gzip, 7-Zip, RAR, MPEG, Ogg, programs, icons, fonts.
_BINARY = (
    b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"ID3", b"OggS",
    b"\x7fELF", b"MZ\x90", b"\x00\x00\x01\x00", b"wOFF", b"wOF2", b"\x00\x00\x00",
)  # fmt: skip
_MARKUP = (b"<!doctype html", b"<html", b"<head", b"<body")


def kind_of(media_type: str, body: bytes) -> Kind:
    """What the body is (WHATWG MIME Sniffing, as far as a crawler needs it).

    A PDF and well-known binary formats are known by their signature, HTML by its first tag where the type says nothing
    in particular; a NUL byte at the beginning of a text means that it is none.
    """
    if "/" not in media_type:
        media_type = ""
    head = body[:512]
    # Readers take a PDF whose header comes late (ISO 32000-1, Annex H.3.4.1).
    if head.startswith(b"%PDF-") or (media_type == "application/pdf" and b"%PDF-" in body[:1024]):
        return "pdf"
    if head.startswith(_BINARY):
        return "other"
    if media_type in _UNSURE and head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_MARKUP):
        return "html"
    if b"\x00" in head and not head.startswith((b"\xff\xfe", b"\xfe\xff")) and not _utf16(head):
        return "other"
    if media_type in _HTML:
        return "html"
    return "text" if media_type in _TEXT else "other"


def _utf16(head: bytes) -> bool:
    """Whether every other byte is NUL, as in UTF-16 without a mark."""
    half = len(head) // 2
    return half > 0 and max(head[0::2].count(0), head[1::2].count(0)) > 0.8 * half
