"""Parts of the served protocol without models: configuration, items, what a response says in which order, functions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from switchroom.engine.responder import Ask, Intent
from switchroom.realtime.served.config import Function, defaults, for_response, updated, values
from switchroom.realtime.served.items import Item, Items, from_client
from switchroom.realtime.served.protocol import WireError
from switchroom.realtime.served.response import Response
from switchroom.realtime.served.tools import Called, arguments, meant, sayable

STRICT: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
BEGUN = defaults("sess_1", "support", 0)


def update(session: dict[str, Any], base: dict[str, Any] = BEGUN) -> dict[str, Any]:
    return updated(base, {"type": "realtime", **session})[0]


# --- configuration -------------------------------------------------------------------------------------------------


def test_an_update_changes_what_it_names_and_null_clears() -> None:
    one = update({"audio": {"input": {"transcription": {"model": "x", "language": "de"}}}, "tools": [{"name": "a"}]})
    two = update({"audio": {"input": {"transcription": {"language": "en"}}}, "instructions": "Hi"}, one)
    assert two["audio"]["input"]["transcription"] == {"model": "x", "language": "en"}
    assert two["audio"]["input"]["turn_detection"] == BEGUN["audio"]["input"]["turn_detection"]
    assert two["tools"] == [{"name": "a"}] and two["instructions"] == "Hi" and one["instructions"] == ""
    three = update({"audio": {"input": {"turn_detection": None}}, "tools": []}, two)
    assert three["audio"]["input"]["turn_detection"] is None and three["tools"] == []
    four = update({"audio": {"input": {"turn_detection": {"type": "semantic_vad", "eagerness": "low"}}}}, three)
    detection = values(four).audio.input.turn_detection
    assert detection is not None and (detection.type, detection.eagerness) == ("semantic_vad", "low")
    assert detection.create_response and "threshold" not in four["audio"]["input"]["turn_detection"]
    five = update({"model": "another", "id": "x", "audio": {"output": {"format": {"type": "audio/pcma"}}}}, four)
    assert (five["model"], five["id"]) == ("support", "sess_1")
    assert values(five).audio.output.format.hz == 8000


@pytest.mark.parametrize(
    ("session", "param"),
    [
        ({"audio": {"input": {"format": {"type": "audio/pcm", "rate": 16000}}}}, "session.audio.input.format.rate"),
        ({"audio": {"input": {"turn_detection": {"threshold": 2}}}}, "session.audio.input.turn_detection.threshold"),
        ({"audio": {"output": {"speed": 3}}}, "session.audio.output.speed"),
        ({"audio": {"output": {"pitch": 3}}}, "session.audio.output.pitch"),
        ({"tools": [{"name": "a b"}]}, "session.tools[0].name"),
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, "session.tools[0].type"),
        ({"tools": [{"name": "a"}, {"name": "a"}]}, "session.tools"),
        ({"tool_choice": {"type": "function", "name": "nobody"}}, "session.tool_choice"),
        ({"max_output_tokens": 0}, "session.max_output_tokens"),
        ({"temperature": 0.8}, "session.temperature"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(session: dict[str, Any], param: str) -> None:
    with pytest.raises(WireError) as wrong:
        update(session)
    assert wrong.value.param == param


def test_a_voice_that_was_heard_stays() -> None:
    with pytest.raises(WireError, match="voice"):
        updated(BEGUN, {"type": "realtime", "audio": {"output": {"voice": "cedar"}}}, spoken=True)
    updated(BEGUN, {"type": "realtime", "audio": {"output": {"voice": "marin"}}}, spoken=True)


# --- items ---------------------------------------------------------------------------------------------------------


def message(role: str, text: str, **more: Any) -> Item:
    kind = "output_text" if role == "assistant" else "input_text"
    return from_client({"type": "message", "role": role, "content": [{"type": kind, "text": text}], **more})


def test_items_keep_their_places() -> None:
    items = Items()
    assert items.insert(message("user", "one", id="a"), None) is None
    assert items.insert(message("user", "two", id="b"), None) == "a"
    assert items.insert(message("system", "zero", id="c"), "root") is None
    assert items.insert(message("user", "middle", id="d"), "a") == "a"
    assert [item.id for item in items] == ["c", "a", "d", "b"]
    for previous, code in (("nobody", "item_create_invalid_previous_item_id"), (None, "item_create_duplicate_item_id")):
        with pytest.raises(WireError) as wrong:
            items.insert(message("user", "x", id="e" if previous else "a"), previous)
        assert wrong.value.code == code
    items.delete("d")
    assert [item.text() for item in items.unanswered()] == ["one", "two"] and items.standing() == ["zero"]
    items.insert(message("assistant", "answer"), None)
    items.insert(message("user", "three"), None)
    open_items = items.unanswered()
    assert [item.text() for item in open_items] == ["three"]
    assert [(said.role, said.text) for said in items.said(open_items)] == [
        ("caller", "one"),
        ("caller", "two"),
        ("agent", "answer"),
    ]


@settings(max_examples=60)
@given(some.lists(some.tuples(some.integers(1, 12), some.integers(480, 96_000)), min_size=1, max_size=5), some.data())
def test_a_cut_keeps_the_words_that_were_heard(clauses: list[tuple[int, int]], data: some.DataObject) -> None:
    item = message("assistant", "")
    item.wire["content"] = [{"type": "output_audio", "transcript": ""}]
    item.clauses = [
        (" ".join(f"w{at}-{n}" for n in range(count)), length) for at, (count, length) in enumerate(clauses)
    ]
    item.made = sum(length for _, length in clauses)
    words = " ".join(text for text, _ in item.clauses)
    assert item.heard_text(item.made) == words and item.heard_text(0) == ""
    less, more = sorted(data.draw(some.tuples(some.integers(0, item.made), some.integers(0, item.made))))
    assert words.startswith(item.heard_text(less)) and item.heard_text(more).startswith(item.heard_text(less))
    item.cut(less)
    assert item.text() == item.wire["content"][0]["transcript"] == item.heard_text(less)


# --- a response ----------------------------------------------------------------------------------------------------

steps = some.lists(some.one_of(some.just("call"), some.text("abc ", min_size=1, max_size=8)), max_size=8)


@settings(max_examples=60)
@given(steps, some.booleans(), some.booleans(), some.sampled_from(["completed", "cancelled", "failed", "incomplete"]))
def test_what_is_opened_is_closed_and_nothing_follows_the_end(
    said: list[str], speaks: bool, aside: bool, status: str
) -> None:
    told: list[dict[str, Any]] = []
    session = {**BEGUN, "output_modalities": ["audio" if speaks else "text"]}
    asked = {"metadata": {"a": "b"}}
    items = Items()
    response = Response(
        told.append, None if aside else items, for_response(session, asked), asked, "conv_1", audio=True
    )
    response.begin()
    for number, step in enumerate(said):
        if step == "call":
            response.call(Called(f"call_{number}", "look", "{}"))
        else:
            response.words(step)
            if speaks:
                response.sound("AAAA")
    reason = {"cancelled": "turn_detected", "incomplete": "max_output_tokens"}.get(status)
    response.finish(status, reason=reason)
    before = len(told)
    response.words("late")
    response.finish("completed")
    response.call(Called("call_late", "look", "{}"))
    assert len(told) == before  # one end, nothing after it

    for event in told:
        STRICT.validate_python({"event_id": "event_1", **event})
    kinds = [event["type"] for event in told]
    assert kinds[0] == "response.created" and kinds[-1] == "response.done" and kinds.count("response.done") == 1
    for what in ("response.output_item", "response.content_part", "conversation.item"):
        opened = [_name(event) for event in told if event["type"] == f"{what}.added"]
        closed = [_name(event) for event in told if event["type"] == f"{what}.done"]
        assert opened == closed and len(set(opened)) == len(opened)
    assert ("conversation.item.added" in kinds) == (bool(said) and not aside)
    done = told[-1]["response"]
    assert done["metadata"] == {"a": "b"} and len(done["output"]) == kinds.count("response.output_item.added")
    kind = "response.output_audio_transcript" if speaks else "response.output_text"
    deltas = "".join(event["delta"] for event in told if event["type"] == f"{kind}.delta")
    whole = "".join(event.get("transcript", event.get("text", "")) for event in told if event["type"] == f"{kind}.done")
    assert deltas == whole == "".join(step for step in said if step != "call")


def _name(event: dict[str, Any]) -> str:
    return str(event.get("item_id") or event["item"]["id"])


# --- functions -----------------------------------------------------------------------------------------------------

WEATHER = Function(
    name="get_weather",
    description="The weather in a city on a day",
    parameters={
        "type": "object",
        "properties": {
            "place": {"type": "string"},
            "day": {"type": "string"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            "count": {"type": "integer"},
        },
        "required": ["place"],
    },
)
ORDER = Function(
    name="find_order",
    description="Looks an order up",
    parameters={"type": "object", "properties": {"order_number": {"type": "string"}}, "required": ["order_number"]},
)


def test_arguments_are_what_was_said() -> None:
    said = "What is the weather tomorrow in Fahrenheit?"
    assert arguments(WEATHER, said) == {"place": said, "day": "tomorrow", "unit": "fahrenheit"}
    assert arguments(ORDER, "Where is my order four one seven two?") == {"order_number": "4172"}
    assert arguments(Function(name="f"), "anything") == {}


def test_words_choose_a_function_or_an_intent() -> None:
    def ask(question: str) -> Ask:
        intents = [Intent(intent="INVOICE", examples=["I have a question about my invoice"])]
        return Ask(
            question=question, prompts=[], history=[], intents=intents, fallback="", schema=[], previous={}, lookup=str
        )

    assert meant(ask("How is the weather?"), [WEATHER, ORDER], "auto") is WEATHER
    assert meant(ask("Please find my order."), [WEATHER, ORDER], "auto") is ORDER
    assert meant(ask("My invoice is wrong."), [WEATHER, ORDER], "auto") is None
    assert meant(ask("Good morning."), [WEATHER, ORDER], "auto") is None
    assert meant(ask("Good morning."), [WEATHER, ORDER], "required") is WEATHER


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("It rains.", "It rains."),
        ('{"answer": "It rains."}', "It rains."),
        ('{"open_from": 9, "until": 17}', "open from: 9. until: 17"),
        ("null", ""),
        ('["a", "b"]', "a, b"),
    ],
)
def test_an_output_is_said(output: str, words: str) -> None:
    assert sayable(output) == words
