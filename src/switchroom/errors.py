"""The errors that every room raises; the gateway turns them into problem details (RFC 9457) in one middleware."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Fault(NamedTuple):
    """One thing that is wrong with an input: a sentence, and a JSON Pointer (RFC 6901) to the place."""

    detail: str
    pointer: str


class SwitchroomError(Exception):
    """Base of our errors.

    Attributes: `code` is a stable word for programs, `status` the HTTP status it becomes, `title` a short
    sentence for the class, `detail` the sentence for this case, `faults` the places that are wrong,
    `retry_after_s` seconds after which trying again makes sense, `extra` further members of the problem.
    """

    code = "internal"
    status = 500
    title = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        faults: Sequence[Fault] = (),
        code: str | None = None,
        retry_after_s: int | None = None,
        extra: dict[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.faults = tuple(faults)
        if code is not None:
            self.code = code
        self.retry_after_s = retry_after_s
        self.extra = extra or {}


class BadInput(SwitchroomError):
    """The request cannot be understood: 400."""

    code = "bad_input"
    status = 400
    title = "Bad request"


class Unauthorized(SwitchroomError):
    """No key, or one that we do not know: 401."""

    code = "unauthorized"
    status = 401
    title = "Unauthorized"


class Forbidden(SwitchroomError):
    """A known caller that may not do this: 403."""

    code = "forbidden"
    status = 403
    title = "Forbidden"


class NotFound(SwitchroomError):
    """Nothing by that name: 404."""

    code = "not_found"
    status = 404
    title = "Not found"


class Conflict(SwitchroomError):
    """It cannot be done in the present state: 409."""

    code = "conflict"
    status = 409
    title = "Conflict"


class PreconditionFailed(SwitchroomError):
    """What the request was about is not as it says (`If-Match`): 412."""

    code = "precondition_failed"
    status = 412
    title = "Precondition failed"


class TooLarge(SwitchroomError):
    """More bytes than the limit: 413."""

    code = "too_large"
    status = 413
    title = "Content too large"


class Unprocessable(SwitchroomError):
    """Understood, but its content is wrong: 422."""

    code = "unprocessable"
    status = 422
    title = "Unprocessable content"


class TooMany(SwitchroomError):
    """A limit or a full queue: 429."""

    code = "too_many"
    status = 429
    title = "Too many requests"


class Unavailable(SwitchroomError):
    """A part that this needs is not there now: 503."""

    code = "unavailable"
    status = 503
    title = "Service unavailable"


class TimedOut(SwitchroomError):
    """A deadline of ours passed: 504."""

    code = "timeout"
    status = 504
    title = "Timed out"
