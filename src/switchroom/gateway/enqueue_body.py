"""The body of an enqueue: what is right becomes a `NewCall`, what is wrong is named with its place."""

from __future__ import annotations

import hashlib
import re
import time
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, TypedDict
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from switchroom.errors import BadInput, Fault
from switchroom.net import Guard, address_in
from switchroom.queue import NewCall

MAX_ID = 256
MAX_PRIORITY = 1_000
MAX_ATTEMPTS = 100
MAX_SKILLS = 32
MAX_SKILL = 64
MAX_URL = 2_048
MAX_KEY = 255
IDEMPOTENCY_KEY = {
    "Idempotency-Key": (
        Annotated[str, Meta(min_length=1, max_length=MAX_KEY, pattern="^[\\x20-\\x7e]+$")],
        "Of this request: sent again, it gives the first one's task and queues nothing",
    )
}

_ID_NAMES = frozenset({"ID", "Id", "iD", "id"})
_canonical = msgspec.json.Encoder(order="deterministic").encode
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d):(\d\d)((?:\.\d+)?)(Z|[+-]\d\d:\d\d)", re.ASCII)

_ID_SCHEMA = {"anyOf": [{"type": "string", "pattern": r"\S", "maxLength": MAX_ID}, {"type": "integer"}]}
_Skill = Annotated[str, Meta(min_length=1, max_length=MAX_SKILL, pattern=r"^[^@\s]")]


class EnqueueBody(msgspec.Struct, rename="camel", omit_defaults=True):
    """For the API document; `parse` below reads it with an answer for each field.

    `form` holds `ID` (any case; a string or a number). Times are RFC 3339 with an offset.
    """

    form: Annotated[dict[str, Any], Meta(extra_json_schema={"required": ["ID"], "properties": {"ID": _ID_SCHEMA}})]
    state: dict[str, Any] | None = None
    cc_base_url: Annotated[str, Meta(max_length=MAX_URL, extra_json_schema={"format": "uri"})] | None = None
    priority: Annotated[int, Meta(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] = 0
    not_before: Annotated[str, Meta(extra_json_schema={"format": "date-time"})] | None = None
    expires_at: Annotated[str, Meta(extra_json_schema={"format": "date-time"})] | None = None
    max_attempts: Annotated[int, Meta(ge=1, le=MAX_ATTEMPTS)] | None = None
    skills: Annotated[list[_Skill], Meta(max_length=MAX_SKILLS)] | None = None
    callback_url: Annotated[str, Meta(max_length=MAX_URL, extra_json_schema={"format": "uri"})] | None = None


class _Terms(TypedDict, total=False):
    """How a call wants to be handled: members of `NewCall`."""

    priority: int
    not_before_ms: int | None
    expires_at_ms: int | None
    max_attempts: int | None
    skills: tuple[str, ...]
    cc_base_url: str | None
    callback_url: str | None


_CALLER = frozenset({"form", "state"})
"""Members that say who calls; most bodies have no others."""


def parse(body: object, idempotency_key: str | None, guard: Guard) -> NewCall:
    """A `NewCall` from a decoded body. Raises `BadInput` with every fault that was found."""
    if not isinstance(body, dict):
        raise BadInput("the body must be a JSON object", faults=[Fault("must be an object", "")])
    faults: list[Fault] = []
    form = _form(body.get("form"), faults)
    state = body.get("state")
    if state is None:
        state = {}
    elif not isinstance(state, dict):
        faults.append(Fault("must be an object", "/state"))
    terms = _Terms() if body.keys() <= _CALLER else _terms(body, guard, faults)
    if idempotency_key is not None and not (
        0 < len(idempotency_key) <= MAX_KEY and idempotency_key.isascii() and idempotency_key.isprintable()
    ):
        faults.append(Fault(f"must be 1 to {MAX_KEY} printable ASCII characters", "/header/Idempotency-Key"))
    refuse_faults(faults)
    digest = ""
    if idempotency_key is not None:
        digest = hashlib.sha256(_canonical({**body, "form": form})).hexdigest()
    return NewCall(form=form, state=state, idempotency_key=idempotency_key, payload_digest=digest, **terms)


def _terms(body: dict[str, Any], guard: Guard, faults: list[Fault]) -> _Terms:
    """What the body asks for beside the caller."""
    priority = _integer(body, "priority", -MAX_PRIORITY, MAX_PRIORITY, faults)
    attempts = _integer(body, "maxAttempts", 1, MAX_ATTEMPTS, faults)
    not_before = moment(body.get("notBefore"), "/notBefore", faults)
    expires = moment(body.get("expiresAt"), "/expiresAt", faults)
    if not_before and expires and expires <= not_before:
        faults.append(Fault("must be later than notBefore", "/expiresAt"))
    return _Terms(
        priority=priority or 0,
        not_before_ms=not_before if not_before and not_before > time.time() * 1000 else None,
        expires_at_ms=expires,
        max_attempts=attempts,
        skills=_skills(body.get("skills"), faults),
        cc_base_url=_url(body, "ccBaseUrl", guard, faults),
        callback_url=_url(body, "callbackUrl", guard, faults),
    )


def refuse_faults(faults: list[Fault]) -> None:
    """Raises `BadInput` with all that was found, if anything was."""
    if faults:
        raise BadInput("; ".join(f"{fault.pointer or 'body'} {fault.detail}" for fault in faults), faults=faults)


def _form(form: object, faults: list[Fault]) -> dict[str, Any]:
    """The form with its ID under the one spelling `ID`, first."""
    if not isinstance(form, dict):
        faults.append(Fault("is required and must be an object that holds ID", "/form"))
        return {}
    given = sorted(_ID_NAMES & form.keys())
    if not given:
        faults.append(Fault("is required: the caller's ID, such as a phone number", "/form/ID"))
        return {}
    rest = dict(form)
    values = set()
    for name in given:
        text = _id_text(rest.pop(name))
        if text is None:
            faults.append(Fault("must be a non-empty string or a number", f"/form/{name}"))
            return {}
        if len(text) > MAX_ID or not text.isprintable():
            faults.append(Fault(f"must be at most {MAX_ID} printable characters", f"/form/{name}"))
            return {}
        values.add(text)
    if len(values) > 1:
        faults.append(Fault(f"is given more than once with different values ({', '.join(given)})", "/form/ID"))
        return {}
    question = rest.get("question")
    if question is not None and not isinstance(question, str):
        faults.append(Fault("must be a string: the caller's first utterance", "/form/question"))
    return {"ID": values.pop(), **rest}


def _id_text(value: object) -> str | None:
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return str(value)
    if value == 0:  # also -0.0, which is no other number
        return "0"
    if isinstance(value, float):  # a whole number in exponent or point notation is the same number
        text = format(Decimal(repr(value)), "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    return None


def _integer(body: dict[str, Any], name: str, lowest: int, highest: int, faults: list[Fault]) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        faults.append(Fault(f"must be a whole number from {lowest} to {highest}", f"/{name}"))
        return None
    return value


def moment(value: object, pointer: str, faults: list[Fault]) -> int | None:
    """An RFC 3339 time in Unix milliseconds; None, with a fault unless it is None, for what is no such time."""
    if value is None:
        return None
    # Letters in either case (RFC 3339, 5.6); Python knows no leap second: it is the moment one second after :59.
    if isinstance(value, str) and (parts := _RFC3339.fullmatch(value.upper())):
        minute, second, fraction, offset = parts.groups()
        leap = second == "60"
        try:
            at = datetime.fromisoformat(f"{minute}:{'59' if leap else second}{fraction}{offset}")
            return max(1, int(at.timestamp() * 1000) + 1_000 * leap)
        except (ValueError, OverflowError):
            pass
    faults.append(Fault("must be an RFC 3339 time with an offset, such as 2026-11-21T10:00:00Z", pointer))
    return None


def _skills(value: object, faults: list[Fault]) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, list) and len(value) <= MAX_SKILLS and all(_is_skill(skill) for skill in value):
        return tuple(dict.fromkeys(skill.strip() for skill in value))
    faults.append(Fault(f"must be a list of at most {MAX_SKILLS} words of at most {MAX_SKILL} characters", "/skills"))
    return ()


def _is_skill(skill: object) -> bool:
    """A word that the queue does not keep for itself."""
    if not isinstance(skill, str) or not skill.isprintable():
        return False
    word = skill.strip()
    return 0 < len(word) <= MAX_SKILL and word[0] != "@"


def _url(body: dict[str, Any], name: str, guard: Guard, faults: list[Fault]) -> str | None:
    value = body.get(name)
    if value is None:
        return None
    fault = "must be an http or https URL" if not isinstance(value, str) else url_fault(value, guard)
    if fault:
        faults.append(Fault(fault, f"/{name}"))
        return None
    return str(value).strip()


def url_fault(text: str, guard: Guard) -> str | None:
    """What is wrong with a URL that we may call later; a name is looked up only then."""
    text = text.strip()
    try:
        url = urlsplit(text)
        host, _ = url.hostname, url.port
    except ValueError:
        return "must be an http or https URL"
    if url.scheme not in ("http", "https") or not host or len(text) > MAX_URL or not text.isprintable() or " " in text:
        return f"must be an http or https URL of at most {MAX_URL} characters"
    if url.username is not None or url.password is not None:
        return "must not carry credentials"
    address = address_in(host)
    if address is None and f".{host.rstrip('.')}".endswith(".localhost"):
        address = "127.0.0.1"
    if address is not None and not guard.permits(host, address):
        return "leads to an address that is not public; a setting can allow it by host or network"
    return None
