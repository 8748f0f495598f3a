"""What a caller means who was asked to agree: yes, no, or neither."""

from __future__ import annotations

import re

from switchroom.engine.events import HumanAnswer
from switchroom.engine.session import Session

__all__ = ["ask_again", "hear_verdict", "verdict_of"]

_MOST_ASKED = 3
_FIRM_YES = re.compile(r"\b(go ahead|no problem|not a problem|why not|don't mind|do not mind|by all means|of course)\b")
_NO = re.compile(
    r"\b(no|nope|nah|not|never|don't|do not|doesn't|cancel|stop|reject|refuse|decline|deny|wait|wrong|forget it)\b"
)
_YES = re.compile(
    r"\b(yes|yeah|yep|yup|sure|okay|ok|alright|all right|right|correct|agreed?|proceed|approved?|confirm(?:ed)?|accept|"
    r"continue|please do|do it|do that|do so|fine|absolutely|definitely|certainly|exactly|sounds good|that's good)\b"
)


def verdict_of(text: str) -> bool | None:
    """Whether the words agree; None where they say neither."""
    said = text.casefold().replace("’", "'")
    if _FIRM_YES.search(said) and not re.search(r"\b(no|don't|do not|not) go ahead\b|\bof course not\b", said):
        return True
    if _NO.search(said):
        return False
    return True if _YES.search(said) else None


def hear_verdict(session: Session, text: str) -> HumanAnswer | None:
    """The caller's answer to the first stop of the session. Who was asked in vain several times does not agree."""
    assert session.paused is not None
    agrees = verdict_of(text)
    place = session.stops[0].position
    if agrees is None and session.paused.asked + 1 < _MOST_ASKED:
        return None
    return HumanAnswer(type="proceed" if agrees else "reject", node_id=place, feedback=text.strip())


def ask_again(session: Session) -> str:
    """The question once more; the session counts it."""
    assert session.paused is not None
    session.paused.asked += 1
    return f"Please say yes or no. {session.stops[0].question}"
