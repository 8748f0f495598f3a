"""Runs that wait for a person or for a time: tools that need consent, people asked inside of Iterations and calls,
waits that outlive their turn."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from switchroom.compact import compact_canvas
from switchroom.engine import Engine, FlowStore, Session
from switchroom.engine.consent import verdict_of
from switchroom.engine.custom_tool import CustomTool
from switchroom.engine.events import HumanAnswer, NodeFinished, TurnEnded, TurnInput
from switchroom.engine.runs import Given, Runs
from switchroom.engine.takeover import Takeover
from switchroom.records import Execution, Executions, ExecutionState
from switchroom.store import Blobs, Script, Store, keys

from .conftest import Talk, draw
from .model_server import ModelServer, Say

pytest.importorskip("openai")
START = ("startAgentflow", {})
YES, NO = HumanAnswer(type="proceed"), HumanAnswer(type="reject")
BOOK = CustomTool(
    name="book",
    schema={"type": "object", "properties": {"day": {"type": "string"}}},
    code="return `booked for ${$day}`",
)


def reply(text: str) -> tuple[str, dict[str, Any]]:
    return ("directReplyAgentflow", {"directReplyMessage": text})


def ask(text: str) -> tuple[str, dict[str, Any]]:
    return (
        "humanInputAgentflow",
        {"humanInputDescriptionType": "fixed", "humanInputDescription": text, "humanInputEnableFeedback": True},
    )


def count(key: str) -> tuple[str, dict[str, Any]]:
    """A function that counts its runs in the state."""
    inputs = {
        "customFunctionJavascriptFunction": f"return Number($flow.state.{key} || 0) + 1",
        "customFunctionUpdateState": [{"key": key, "value": "{{ output }}"}],
    }
    return ("customFunctionAgentflow", inputs)


def agent(**more: Any) -> tuple[str, dict[str, Any]]:
    return (
        "agentAgentflow",
        {
            "agentModel": "chatOpenAI",
            "agentModelConfig": {"modelName": "m"},
            "agentTools": [{"agentSelectedTool": "book", "agentSelectedToolRequiresHumanInput": True}],
            **more,
        },
    )


@contextlib.asynccontextmanager
async def modelled(flows: FlowStore, script: Callable[[dict[str, Any]], Say]) -> AsyncIterator[tuple[Engine, Any]]:
    from switchroom.engine.providers import Models, ProviderSettings

    async with ModelServer(script) as server:
        models = Models({"openai": ProviderSettings(base_url=server.url, api_key="k", retries=0)})
        try:
            yield Engine(flows, responder=models), server
        finally:
            await models.close()


async def turn(engine: Engine, canvas: dict[str, Any], session: Session, given: TurnInput, **more: Any) -> list[Any]:
    async with contextlib.aclosing(engine.run(compact_canvas(canvas), session, given, **more)) as events:
        return [event async for event in events]


def trace(events: list[Any]) -> list[str]:
    return [event.node_id for event in events if isinstance(event, NodeFinished) and not event.waits]


def elsewhere(session: Session) -> Session:
    """The session as another process reads it."""
    return msgspec.json.decode(msgspec.json.encode(session), type=Session)


def books(body: dict[str, Any]) -> Say:
    """Wants Monday, then Tuesday, then says what came of it."""
    results = [m["content"] for m in body["messages"] if m["role"] == "tool"]
    if len(results) < 2:
        return Say("I book it. ", calls=[("book", {"day": ("Monday", "Tuesday")[len(results)]})])
    return Say("Done: " + " / ".join(results))


@pytest.mark.parametrize(
    ("second", "result"),
    [
        (YES, "booked for Tuesday"),
        (
            HumanAnswer(type="reject", node_id="a", feedback="too late"),
            "Not called: a person did not allow it. They said: too late",
        ),
    ],
    ids=["proceed", "reject"],
)
async def test_a_tool_waits_for_consent(flows: FlowStore, second: HumanAnswer, result: str) -> None:
    canvas = draw(
        {"s": START, "f": count("runs"), "a": agent(), "r": reply("{{ a }}")}, [("s", "f"), ("f", "a"), ("a", "r")]
    )
    async with modelled(flows, books) as (engine, server):
        events = await turn(engine, canvas, session := Session(session_id="s"), TurnInput(text="go"), tools=[BOOK])
        assert (events[-1].outcome, events[-1].stop.position) == ("stopped", "a")
        assert events[-1].stop.calls == [{"tool": "book", "toolInput": {"day": "Monday"}}]
        assert "`book`" in events[-1].stop.question
        session = elsewhere(session)
        events = await turn(engine, canvas, session, TurnInput(human=YES), tools=[BOOK])
        assert events[-1].stop.calls == [{"tool": "book", "toolInput": {"day": "Tuesday"}}]
        session = elsewhere(session)
        events = await turn(engine, canvas, session, TurnInput(human=second), tools=[BOOK])
    assert (events[-1].outcome, trace(events)) == ("finished", ["a", "r"])
    assert events[-1].text == f"Done: booked for Monday / {result}"
    # Each exchange was had once, whatever was walked again; and so was the function before it.
    assert len(server.requests) == 3
    assert session.state == {"runs": "1"}
    assert session.paused is None


async def test_what_an_agent_said_before_it_asked_is_not_said_again(flows: FlowStore) -> None:
    canvas = draw({"s": START, "a": agent()}, [("s", "a")])
    async with modelled(flows, books) as (engine, _):
        events = await turn(engine, canvas, session := Session(session_id="s"), TurnInput(text="go"), tools=[BOOK])
        said = [events[-1].text]
        for _ in range(2):
            events = await turn(engine, canvas, session, TurnInput(human=YES), tools=[BOOK])
            said.append(events[-1].text)
    assert said == [
        'I book it. a wants to call `book` with `{"day":"Monday"}`. Proceed?',
        'I book it. a wants to call `book` with `{"day":"Tuesday"}`. Proceed?',
        "Done: booked for Monday / booked for Tuesday",
    ]


async def test_a_person_is_asked_for_each_item(flows: FlowStore) -> None:
    canvas = draw(
        {
            "s": START,
            "i": ("iterationAgentflow", {"iterationInput": '["a", "b"]'}),
            "f": count("items"),
            "h": ask("Keep {{ $iteration }}?"),
            "yes": reply("Kept {{ $iteration }}."),
            "no": reply("Dropped {{ $iteration }}."),
            "r": reply("All: {{ i }}"),
        },
        [("s", "i"), ("f", "h"), ("h", "yes", 0), ("h", "no", 1), ("i", "r")],
        f="i", h="i", yes="i", no="i",
    )  # fmt: skip
    session = Session(session_id="s")
    events = await turn(Engine(flows), canvas, session, TurnInput(text="go"))
    assert (events[-1].stop.position, events[-1].stop.question) == ("i#0/h", "Keep a?")
    events = await turn(Engine(flows), canvas, session := elsewhere(session), TurnInput(human=YES))
    assert (events[-1].text, events[-1].stop.position, trace(events)) == ("Kept a. Keep b?", "i#1/h", ["h", "yes", "f"])
    events = await turn(Engine(flows), canvas, session := elsewhere(session), TurnInput(human=NO))
    assert (events[-1].outcome, events[-1].text) == ("finished", "Dropped b. All: Kept a.\nDropped b.")
    assert session.state == {"items": "2"}


async def test_a_loop_that_asks_again_asks_in_another_place_of_the_run(flows: FlowStore) -> None:
    """What was answered stays answered, and the steps of the second round have keys of their own."""
    canvas = draw(
        {
            "s": START,
            "f": count("n"),
            "h": ask("Round {{ $flow.state.n }}?"),
            "l": ("loopAgentflow", {"loopBackToNode": "f", "maxLoopCount": 5}),
            "r": reply("Took {{ $flow.state.n }}."),
        },
        [("s", "f"), ("f", "h"), ("h", "r", 0), ("h", "l", 1)],
    )
    session = Session(session_id="s")
    events = await turn(Engine(flows), canvas, session, TurnInput(text="go"))
    for question in ("Round 2?", "Round 3?"):
        events = await turn(Engine(flows), canvas, session := elsewhere(session), TurnInput(human=NO))
        assert (events[-1].stop.question, events[-1].stop.position) == (question, "h")
    events = await turn(Engine(flows), canvas, elsewhere(session), TurnInput(human=YES))
    assert (events[-1].text, trace(events)) == ("Took 3.", ["h", "r"])


CALL_START = ("startRealtime", {})


async def test_a_caller_is_asked_aloud(talk: Callable[..., Talk]) -> None:
    canvas = draw(
        {
            "s": CALL_START,
            "a": ("agentRealtime", {"agentIntents": [{"intent": "CANCEL", "examples": ["cancel my order"]}]}),
            "h": ask("Shall I cancel order {{ $form.order }}?"),
            "yes": reply("It is cancelled."),
            "no": reply("It stays, since you said: {{ h.output.feedback }}"),
            "l": ("loopRealtime", {"loopBackToNode": "a", "maxLoopCount": 9}),
        },
        [("s", "a"), ("a", "h"), ("h", "yes", 0), ("h", "no", 1), ("yes", "l"), ("no", "l")],
    )
    call = talk(canvas, form={"order": "42"})
    await call.say()
    ended = await call.say("please cancel my order")
    assert (ended.outcome, ended.text) == ("await_input", "Shall I cancel order 42?")
    ended = await call.say("what will that cost")
    assert ended.text == "Please say yes or no. Shall I cancel order 42?"
    ended = await call.say("No, leave it.")
    assert (ended.outcome, ended.text) == ("await_input", "It stays, since you said: No, leave it.")
    await call.say("cancel my order")
    ended = await call.say("Yes, go ahead.")
    assert (ended.outcome, ended.text, call.trace[:2]) == ("await_input", "It is cancelled.", ["h", "yes"])
    assert call.session.paused is None
    assert [m.text for m in call.session.messages][-2:] == ["Yes, go ahead.", "It is cancelled."]
    await call.say("cancel my order")
    for _ in range(3):
        ended = await call.say("hmm")
    assert ended.text == "It stays, since you said: hmm"


async def test_a_caller_agrees_to_a_tool(flows: FlowStore) -> None:
    canvas = draw(
        {"s": CALL_START, "a": agent(), "l": ("loopRealtime", {"loopBackToNode": "a"})}, [("s", "a"), ("a", "l")]
    )
    async with modelled(flows, books) as (engine, server):
        session = Session(session_id="s", realtime=True)
        await turn(engine, canvas, session, TurnInput(kind="start"), tools=[BOOK])
        events = await turn(engine, canvas, session, TurnInput(text="book me in"), tools=[BOOK])
        assert (events[-1].outcome, events[-1].text) == (
            "await_input",
            "I book it. May I use book with day Monday?",
        )
        events = await turn(engine, canvas, session, TurnInput(text="yes please"), tools=[BOOK])
        assert events[-1].text == "I book it. May I use book with day Tuesday?"
        events = await turn(engine, canvas, session, TurnInput(text="no"), tools=[BOOK])
    assert events[-1].text == "Done: booked for Monday / Not called: a person did not allow it. They said: no"
    assert (events[-1].outcome, len(server.requests)) == ("await_input", 3)


@pytest.mark.parametrize(
    ("said", "agrees"),
    [
        ("Yes.", True),
        ("yeah, go ahead", True),
        ("no problem, do it", True),
        ("That's correct", True),
        ("No.", False),
        ("yes, but not now", False),
        ("don't do it", False),
        ("I'd rather you didn’t. Don’t.", False),
        ("no, don't go ahead", False),
        ("what does it cost?", None),
        ("", None),
    ],
)
def test_verdicts(said: str, agrees: bool | None) -> None:
    assert verdict_of(said) is agrees


_DUE = Script("redis.call('ZADD', KEYS[1], 1, ARGV[1]) return 1")


async def kept_turn(store: Store, engine: Engine, canvas: dict[str, Any], record: Execution, session: Session) -> Any:
    """A turn as the gateway runs it: locked, kept, recorded, its session saved."""
    place = keys.session_lock(record.flow_id, session.session_id)
    await store.call("SET", place, record.id, "NX", "PX", 60_000)
    async with Runs(store).keep(record.flow_id, record.id) as kept:
        kept.given = Given(
            graph=compact_canvas(canvas),
            turn=TurnInput(text="go", kind="start"),
            deadline_ms=int(time.time() * 1000) + 30_000,
            kept_s=600,
        )
        async with contextlib.aclosing(engine.run(kept.given.graph, session, kept.given.turn, journal=kept)) as events:
            async for event in events:
                if isinstance(event, NodeFinished):
                    record.nodes.append(msgspec.to_builtins(event))
        record.detail = event.detail
        await store.call("SET", keys.session(record.flow_id, session.session_id), msgspec.json.encode(session))
        await store.call("DEL", place)
    return event


LONG = draw(
    {
        "s": START,
        "f": count("n"),
        "w": ("waitAgentflow", {"waitAmount": 2, "waitUnit": "hours"}),
        "g": count("n"),
        "r": reply("Two hours later: {{ $flow.state.n }}."),
    },
    [("s", "f"), ("f", "w"), ("w", "g"), ("g", "r")],
)


async def test_a_wait_outlives_its_turn_and_its_process(store: Store, flows: FlowStore, data_dir: Path) -> None:
    executions = Executions(store, await asyncio.to_thread(Blobs, data_dir))
    record = Execution(id="00000000-0000-0000-0000-00000000000a", flow_id="f-1", session_id="s-1", kind="turn")
    await executions.begin(record)
    before = time.time()
    ended = await kept_turn(store, Engine(flows), LONG, record, Session(session_id="s-1"))
    await executions.finish(record, ExecutionState.STOPPED)
    assert isinstance(ended, TurnEnded) and (ended.outcome, ended.stop) == ("stopped", None)
    assert 7199 < ended.resumes_ms / 1000 - before < 7210
    assert record.detail.startswith("The run goes on by itself at 20")
    # Nobody takes it before its time; and its session is kept until then.
    takeover = Takeover(store, Engine(flows), executions)
    assert await takeover.once() == 0
    assert await store.call("TTL", keys.session("f-1", "s-1")) > 7200 + 500
    await store.run(_DUE, keys=[keys.runs("f-1")], args=[record.id])
    # Two hours pass.
    place = keys.session("f-1", "s-1")
    waiting = msgspec.json.decode(await store.call("GET", place), type=Session)
    assert waiting.paused is not None
    waiting.paused.notes["w@1/until"] -= 7300
    await store.call("SET", place, msgspec.json.encode(waiting))
    # The session is in use just then: the run waits for it.
    await store.call("SET", keys.session_lock("f-1", "s-1"), "another turn")
    assert await takeover.once() == 0
    await store.call("DEL", keys.session_lock("f-1", "s-1"))
    await store.run(_DUE, keys=[keys.runs("f-1")], args=[record.id])
    assert await takeover.once() == 1
    done = await executions.get(record.id)
    assert done is not None
    assert (done.state, done.final_state, done.detail) == (ExecutionState.FINISHED, {"n": "2"}, "")
    assert [node["node_id"] for node in done.nodes] == ["s", "f", "w", "g", "r"]
    saved = msgspec.json.decode(await store.call("GET", keys.session("f-1", "s-1")), type=Session)
    assert [message.text for message in saved.messages] == ["go", "Two hours later: 2."]
    assert saved.paused is None
    assert await store.call("EXISTS", keys.run("f-1", record.id), keys.session_lock("f-1", "s-1")) == 0


async def test_new_words_end_a_wait(store: Store, flows: FlowStore, data_dir: Path) -> None:
    executions = Executions(store, await asyncio.to_thread(Blobs, data_dir))
    record = Execution(id="00000000-0000-0000-0000-00000000000b", flow_id="f-1", session_id="s-1", kind="turn")
    await executions.begin(record)
    await kept_turn(store, Engine(flows), LONG, record, session := Session(session_id="s-1"))
    await executions.finish(record, ExecutionState.STOPPED)
    other = draw({"s": START, "r": reply("New.")}, [("s", "r")])
    await turn(Engine(flows), other, session, TurnInput(text="something else"))
    await store.call("SET", keys.session("f-1", "s-1"), msgspec.json.encode(session))
    await store.run(_DUE, keys=[keys.runs("f-1")], args=[record.id])
    assert await Takeover(store, Engine(flows), executions).once() == 0
    done = await executions.get(record.id)
    assert done is not None and (done.state, bool(done.detail)) == (ExecutionState.TERMINATED, True)
    assert await store.call("EXISTS", keys.run("f-1", record.id), keys.session_lock("f-1", "s-1")) == 0


async def test_a_call_does_not_wait_for_hours(talk: Callable[..., Talk]) -> None:
    canvas = draw({"s": CALL_START, "w": ("waitAgentflow", {"waitAmount": 2, "waitUnit": "hours"})}, [("s", "w")])
    assert (await talk(canvas).say("go")).code == "wait_too_long"
