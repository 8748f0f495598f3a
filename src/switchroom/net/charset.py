"""Bytes to text, in the order that browsers use (WHATWG Encoding and HTML standards), with a detector at the end."""

from __future__ import annotations

import codecs
import re

from charset_normalizer import from_bytes

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_META = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9_.:-]{2,40})""", re.IGNORECASE)
_XML = re.compile(rb"""^\s*<\?xml[^>]{0,100}?encoding\s*=\s*["']([A-Za-z0-9_.:-]{2,40})["']""", re.IGNORECASE)
_HEADER = re.compile(r"""charset\s*=\s*["']?\s*([A-Za-z0-9_.:-]{2,40})""", re.IGNORECASE)
_HEAD_BYTES = 2048
_SAMPLE_BYTES = 32_768
_MIN_SAMPLE_BYTES = 32
_NEVER_GUESSED = ["utf_7", "utf_16", "utf_16_be", "utf_16_le", "utf_32", "utf_32_be", "utf_32_le"]

# Labels that mean a superset on the web.
_WEB_LABELS = {"iso8859-1": "cp1252", "ascii": "cp1252", "iso8859-9": "cp1254", "gb2312": "gb18030", "gbk": "gb18030"}


def decode_text(body: bytes, content_type: str = "") -> str:
    """`body` as text. Order: byte order mark, declared charset (header, `<meta>`, XML declaration), UTF-8, detection.

    Bytes that are valid multi-byte UTF-8 are taken as UTF-8 whatever was declared: by chance that does not happen.
    """
    for bom, name in _BOMS:
        if body.startswith(bom):
            return body[len(bom) :].decode(name, "replace")
    try:
        return (
            body.decode("utf-8") if not _declares_stateful(body, content_type) else _decode_declared(body, content_type)
        )
    except UnicodeDecodeError:
        return _decode_declared(body, content_type)


def _declares_stateful(body: bytes, content_type: str) -> bool:
    """Encodings whose bytes are all ASCII and so pass for UTF-8: ISO-2022 and the two UTF-16 without a mark."""
    declared = _declared(body, content_type)
    return declared is not None and declared.startswith(("iso2022", "utf-16"))


def _decode_declared(body: bytes, content_type: str) -> str:
    declared = _declared(body, content_type)
    if declared is not None:
        text = body.decode(declared, "replace")
        if text.count("\ufffd") <= max(3, len(text) // 200):
            return text
    sample = body[:_SAMPLE_BYTES]
    # In a few bytes a detector sees whatever it likes; the web's default is right more often.
    best = from_bytes(sample, cp_exclusion=_NEVER_GUESSED).best() if len(sample) >= _MIN_SAMPLE_BYTES else None
    return body.decode(best.encoding if best is not None else "cp1252", "replace")


def _declared(body: bytes, content_type: str) -> str | None:
    head = body[:_HEAD_BYTES]
    labels: list[str] = []
    if found := _HEADER.search(content_type):
        labels.append(found[1])
    labels += [m[1].decode("ascii") for m in (_META.search(head), _XML.match(head)) if m]
    for label in labels:
        try:
            name = codecs.lookup(label).name
        except LookupError:
            continue
        return _WEB_LABELS.get(name, name)
    return None
