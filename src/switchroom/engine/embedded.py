"""The responder that needs no model: intents, slots and reply templates from the flow. It is deterministic and invents
nothing; its output says `"responder": "embedded"`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec

from switchroom.compact.templates import render, spell
from switchroom.engine.choosing import fitting, spoken_of
from switchroom.engine.consent import verdict_of
from switchroom.engine.match import HEARD, best, digits_in, find_slot
from switchroom.engine.responder import Answer, Ask, Choice, Intent, Row, Scenario, Understood, no_model_sees
from switchroom.engine.retriever import Passage, source_documents

__all__ = ["Embedded", "clauses"]

_CLAUSE = re.compile(r"[.!?;:,]+[\"'”’)]*\s+")
_QUOTED = re.compile(r"[\"“]([^\"“”\n]{8,300})[\"”]")
_SURE = 0.8
_DAYS = frozenset(
    """monday tuesday wednesday thursday friday saturday sunday january february march april may june july august
    september october november december""".split()  # noqa: SIM905
)
"""`It's Friday` is no name."""
_SPEAKS_OF = 0.5


def clauses(text: str) -> Iterator[str]:
    """The text cut after each clause, blanks kept: what can be spoken while the rest is made."""
    start = 0
    for found in _CLAUSE.finditer(text):
        yield text[start : found.end()]
        start = found.end()
    if start < len(text):
        yield text[start:]


class Embedded:
    """See the module."""

    name = "embedded"

    async def answer(self, ask: Ask) -> AsyncIterator[Understood | str | Answer]:
        if ask.media:
            raise no_model_sees(ask)
        ask = msgspec.structs.replace(ask, question=ask.question[:HEARD])
        if ask.schema:
            fields = _structured(ask)
            text = msgspec.json.encode(fields).decode()
            yield text
            yield Answer(output={**fields, "content": text, "responder": self.name})
            return
        intent, score = _meant(ask)
        slots, missing = _slots(intent, ask.question)
        yield Understood(intent=intent.intent if intent else "", slots=slots)
        output: dict[str, Any] = {"intent": intent.intent if intent else "", "slots": slots, "score": round(score, 2)}
        update: list[Row] = []
        if intent is None:
            answering = await _answering(ask)
            if answering:
                output["sourceDocuments"] = source_documents(answering)
            text = _from_passages(ask, answering) or render(ask.fallback, ask.lookup) or _from_prompts(ask)
        elif missing is not None:
            output["awaiting"] = {"intent": intent.intent, "slot": missing}
            asked = next(slot.ask for slot in intent.slots if slot.name == missing)
            text = render(asked, ask.lookup) or f"What is the {_words(missing)}, please?"
        else:
            text, update = render(intent.reply, ask.lookup), intent.update_state
        for clause in clauses(text):
            yield clause
            await asyncio.sleep(0)
        yield Answer(output={"content": text, "responder": self.name, **output}, update_state=update)

    async def choose(self, choice: Choice) -> int:
        return fitting(choice.question[:HEARD], choice.scenarios)


def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[_-]+", " ", name).lower()


def _meant(ask: Ask) -> tuple[Intent | None, float]:
    """The intent behind the words: the one whose detail was asked for, the one whose phrase was said, or the only one
    whose digits were said."""
    phrases = [[_words(intent.intent), *intent.examples] for intent in ask.intents]
    found = best(ask.question, phrases)
    awaited = ask.previous.get("awaiting")
    if isinstance(awaited, dict) and (found is None or found.score < _SURE):
        intent = next((item for item in ask.intents if item.intent == awaited.get("intent")), None)
        slot = next((item for item in intent.slots if item.name == awaited.get("slot")), None) if intent else None
        if slot and find_slot(slot.type, ask.question, least=slot.least, most=slot.most) is not None:
            return intent, 1.0
    if found is not None:
        return ask.intents[found.candidate], found.score
    by_digits = [
        intent
        for intent in ask.intents
        for slot in intent.slots[:1]
        if slot.type in ("digits", "number")
        and find_slot(slot.type, ask.question, least=max(slot.least, 2), most=slot.most) is not None
    ]
    if len(by_digits) == 1:
        return by_digits[0], 0.5
    at = spoken_of(ask.question, phrases)
    return (ask.intents[at], 0.4) if at is not None else (None, 0.0)


def _slots(intent: Intent | None, question: str) -> tuple[dict[str, Any], str | None]:
    """The details heard, and the first that is missing."""
    heard: dict[str, Any] = {}
    missing: str | None = None
    for slot in intent.slots if intent else ():
        value = find_slot(slot.type, question, least=slot.least, most=slot.most)
        if value is not None:
            heard[slot.name] = value
        elif missing is None:
            missing = slot.name
    return heard, missing


async def _answering(ask: Ask) -> list[Passage]:
    """What the node knows that speaks of most of the question, best first."""
    found = await ask.passages() if ask.passages is not None and ask.question.strip() else []
    return sorted((one for one in found if one.coverage >= _SPEAKS_OF), key=lambda one: -round(one.coverage, 1))


def _from_passages(ask: Ask, answering: list[Passage]) -> str:
    """The sentences that answer best, as they stand there; a reader is told where."""
    if not answering:
        return ""
    best = answering[0]
    text = best.snippet or best.text
    return text if ask.spoken or not best.source else f"{text}\n\nSource: {best.source}"


def _from_prompts(ask: Ask) -> str:
    """A reply of what is there: a sentence that the instructions quote, and digits read back; else what was heard."""
    quoted = [found[1] for prompt in ask.prompts for found in _QUOTED.finditer(prompt.content)]
    digits = digits_in(ask.question)
    name = find_slot("name", ask.question)
    said = [*([name] if name and name.casefold() not in _DAYS else []), *(spell(run) for run in digits)]
    noted = f"I noted {', '.join(said)}. " if said else ""
    if quoted:
        near = best(ask.question, [[text] for text in quoted])
        return noted + quoted[near.candidate if near else 0]
    # Of an instruction around the caller's words these alone are repeated.
    heard = (ask.words if ask.words and ask.words in ask.question else ask.question).strip()
    if not heard:
        return "I am listening."
    if ask.passages is not None:
        return f"{noted}I found nothing about that."
    return noted.strip() or f"I heard: {heard}"


def _structured(ask: Ask) -> dict[str, Any]:
    """A value of the right type for each declared field, taken from the words; what was not said is empty."""
    output: dict[str, Any] = {}
    for field in ask.schema:
        key, kind = str(field.get("key", "")), field.get("type")
        if kind == "number":
            output[key] = _number(ask.question)
        elif kind == "boolean":
            output[key] = verdict_of(ask.question) is True
        elif kind == "enum":
            values = [value.strip() for value in str(field.get("enum", "")).split(",") if value.strip()]
            output[key] = (
                values[fitting(ask.question, [Scenario(scenario=value) for value in values])] if values else ""
            )
        elif kind == "stringArray":
            output[key] = [ask.question] if ask.question else []
        elif kind == "jsonArray":
            output[key] = []
        elif key:
            output[key] = _detail(key, ask.question)
    return output


def _number(text: str) -> float | int:
    found = re.search(r"-?\d+(?:\.\d+)?", text)
    if found is not None:
        return float(found[0]) if "." in found[0] else int(found[0][:15])
    runs = digits_in(text)
    return int(runs[0][:15]) if runs else 0


def _detail(key: str, text: str) -> str:
    """A detail whose name says what it is (`customerName`, `orderDate`, `email`, `phone`), else the words."""
    named = set(_words(key).split())
    if named & {"email", "mail"}:
        found = re.search(r"[\w.+-]+@[\w-]+\.[\w.-]*\w", text)
        return found[0] if found else ""
    for words, kind in ((_NAMED, "name"), (_DATED, "date"), (_NUMBERED, "digits")):
        if named & words:
            return find_slot(kind, text) or ""
    return text


_NAMED = frozenset({"name", "firstname", "lastname", "fullname", "surname"})
_DATED = frozenset({"date", "day", "birthday", "deadline"})
_NUMBERED = frozenset({"phone", "number", "id", "code", "zip", "postcode", "order"})
