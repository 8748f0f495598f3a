"""The openai engine against the scripted server: real flow engine, real speech, audio pumped in real time, by frames.
Every event that the engine sends passes the types of the vendor's package."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr, ValidationError

from switchroom.compact import CompactGraph
from switchroom.compact.model import Node
from switchroom.engine import Engine, FlowStore
from switchroom.engine.custom_tool import CustomTool
from switchroom.engine.events import Event, NodeFinished, TurnInput
from switchroom.engine.responder import Responder
from switchroom.engine.session import Session
from switchroom.realtime.audio import RATE
from switchroom.realtime.client import load_audio
from switchroom.realtime.openai import OpenAiEngine
from switchroom.realtime.settings import MediaSettings
from switchroom.realtime.speaker import RunTurn
from switchroom.realtime.voice import Concluded, NodeDone, TurnDone, Used
from switchroom.store import Store

from .openai_server import CHARS_A_SECOND, KEY, RealtimeServer, Says, Script
from .test_local_engine import Line

EXAMPLES = Path(__file__).parents[2] / "examples"
VOICE = EXAMPLES / "caller-3-operator.wav"
INVOICE = EXAMPLES / "caller-1-invoice.wav"
GREETING = "Hello, this is the support line. I have your request T-17 here. How can I help you?"
ASKS = "Of course. Please tell me your order number, digit by digit."

Dial = Callable[..., Awaitable[tuple[Line, asyncio.Task[Concluded], RealtimeServer]]]


def settings_for(server: RealtimeServer, **more: Any) -> MediaSettings:
    given = {"openai_url": server.url, "openai_api_key": SecretStr(KEY), "openai_tries": 3, "hangover_ms": 500}
    return MediaSettings(engine="openai", **{**given, **more})


@pytest.fixture
async def dial(store: Store, canvas: dict[str, Any], short_canvas: dict[str, Any]) -> AsyncIterator[Dial]:
    flows = FlowStore(store)
    drawn = {"long": await flows.save(canvas, flow_id="long"), "short": await flows.save(short_canvas, flow_id="short")}
    tasks: list[asyncio.Task[Concluded]] = []
    servers: list[RealtimeServer] = []

    async def make(
        script: Script,
        *,
        flow: str | CompactGraph = "short",
        form: dict[str, Any] | None = None,
        tools: Sequence[CustomTool] = (),
        **settings: Any,
    ) -> Any:
        server = RealtimeServer(script, VOICE)
        await server.start()
        servers.append(server)

        def bind(responder: Responder) -> RunTurn:
            engine = Engine(flows, responder=responder)

            def run_turn(session: Session, given: TurnInput) -> AsyncIterator[Event]:
                return engine.run(graph, session, given, tools=tools)

            return run_turn

        graph = drawn[flow].graph if isinstance(flow, str) else flow
        session = Session(session_id="s", realtime=True, form={"ID": "1", "ticket": "T-17", **(form or {})}, state={})
        line = Line(OpenAiEngine(bind, session, settings_for(server, **settings)))
        tasks.append(asyncio.create_task(line.run()))
        return line, tasks[-1], server

    yield make
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for server in servers:
        await server.stop()
        assert server.faults == [] and server.refusals == []


def turns(line: Line) -> list[TurnDone]:
    return [event for event in line.events if isinstance(event, TurnDone)]


def nodes(line: Line) -> list[NodeFinished]:
    return [event.node for event in line.events if isinstance(event, NodeDone)]


async def speak(line: Line, wav: Path = INVOICE) -> None:
    """Less than a second of it: the script knows the words, the server only has to hear that somebody speaks."""
    samples = await asyncio.to_thread(load_audio, wav)
    loud = int(np.argmax(np.abs(samples) > 3000))
    line.speak(samples[loud : loud + RATE * 8 // 10])


async def test_the_graph_decides_what_the_model_called(dial: Dial) -> None:
    script = Script(
        hears=["My order number is four one seven two.", "I want to talk to an operator, please."],
        says=[
            Says(calls=[("ORDER_NUMBER", {"order": "4172"})]),
            Says(text="Thank you, I noted order number 4 1 7 2. Is there anything else?"),
            Says(calls=[("OPERATOR", {})]),
        ],
    )
    line, task, server = await dial(script)
    await line.until(lambda: len(turns(line)) == 1)
    assert line.said("agent")[0].text == "Hello."
    await speak(line, EXAMPLES / "caller-2-order-number.wav")
    await line.until(lambda: len(turns(line)) == 2)
    assert line.said("caller")[0].text == script.hears[0]
    assert line.said("agent")[1].text == script.says[1].text
    assert line.engine.session.state["order"] == "4172" and line.engine.session.state["topic"] == "ORDER_NUMBER"
    timing = turns(line)[1].timing
    assert timing.endpoint_ms is not None and 400 < timing.endpoint_ms < 3000  # the hangover is 500 ms
    assert timing.transcript_ms is not None and timing.first_token_ms is not None and timing.first_audio_ms is not None
    assert timing.endpoint_ms < timing.transcript_ms < timing.first_audio_ms < 20_000
    assert timing.transcript_ms < timing.first_token_ms

    await speak(line, EXAMPLES / "caller-3-operator.wav")
    async with asyncio.timeout(20):
        concluded = await task
    assert concluded.cause == "finished"
    assert line.said("agent")[2].text == "I am connecting you with an operator. One moment, please."
    assert [node.node_kind for node in nodes(line)][-3:] == ["agent", "condition", "directReply"]
    assert nodes(line)[-3].output["responder"] == "openai" and nodes(line)[-3].output["intent"] == "OPERATOR"

    (session,) = server.sessions
    assert session.model == "gpt-realtime-2.1"
    node = session.of_type("session.update")[-1]["session"]
    assert "a standard customer, and calls about the ticket T-17" in node["instructions"]
    assert [tool["name"] for tool in node["tools"]] == ["INVOICE", "ORDER_NUMBER", "OPERATOR", "GOODBYE"]
    outputs = [event["item"]["output"] for event in session.of_type("conversation.item.create")]
    assert "I noted order number 4 1 7 2" in outputs[0]  # the flow's own reply is what the model is to say
    used = [event.usage for event in line.events if isinstance(event, Used)][-1]
    assert used["responses"]["count"] == 5 and used["responses"]["total_tokens"] == 5 * 130
    assert used["responses"]["input_token_details"]["audio_tokens"] == 5 * 40
    assert used["transcriptions"] == {"count": 2, "seconds": 4.0}


async def test_barge_in_truncates_to_what_was_heard(dial: Dial) -> None:
    script = Script(hears=["I have a question about my invoice."], says=[Says(text=ASKS)], speed=3)
    line, _, server = await dial(script, flow="long")
    await line.until(lambda: len(line.heard_at) > 75)
    await speak(line)
    await line.until(lambda: line.said("caller"))
    await line.until(lambda: len(turns(line)) == 2)
    greeting, answer = line.said("agent")
    assert greeting.interrupted and GREETING.startswith(greeting.text) and 0 < len(greeting.text) < len(GREETING)
    assert answer.text == ASKS and not answer.interrupted
    assert [message.text for message in line.engine.session.messages] == [greeting.text, script.hears[0], ASKS]
    assert [event.timing.interrupted for event in turns(line)] == [True, False]
    (cut,) = server.sessions[0].of_type("conversation.item.truncate")
    spoken_ms = greeting.end_ms - greeting.start_ms
    assert abs(cut["audio_end_ms"] - spoken_ms) < 300
    words = greeting.text.split()
    assert len(words) / len(GREETING.split()) == pytest.approx(
        cut["audio_end_ms"] / (len(GREETING) / CHARS_A_SECOND * 1000), abs=0.15
    )


async def test_a_barge_in_while_the_model_still_speaks_cancels_it(dial: Dial) -> None:
    script = Script(hears=["I have a question about my invoice."], says=[Says(text=ASKS)], speed=0.9)
    line, _, server = await dial(script, flow="long")
    await line.until(lambda: len(line.heard_at) > 50)
    await speak(line)
    await line.until(lambda: len(turns(line)) == 2)
    (session,) = server.sessions
    cancelled = next(event for event in session.sent if event["type"] == "response.done")["response"]
    assert cancelled["status"] == "cancelled"
    assert len(session.of_type("response.cancel")) == 1 and len(session.of_type("conversation.item.truncate")) == 1
    assert line.said("agent")[1].text == ASKS


async def test_a_noise_is_no_interruption(dial: Dial) -> None:
    line, _, server = await dial(Script(hears=[""]), flow="long")
    await line.until(lambda: len(line.heard_at) > 25)
    line.speak((await asyncio.to_thread(load_audio, INVOICE))[: 48_000 // 2])
    await line.until(lambda: turns(line))
    assert [said.text for said in line.said("agent")] == [GREETING] and line.said("caller") == []
    assert server.sessions[0].of_type("conversation.item.truncate") == []


async def test_a_lost_connection_goes_on_where_it_broke_off(dial: Dial) -> None:
    script = Script(
        hears=["I have a question about my invoice."],
        says=[Says(text=ASKS), Says(text="digit by digit.")],
        drop={1: 1800},
    )
    line, _, server = await dial(script)
    await line.until(lambda: len(turns(line)) == 1)
    await speak(line)
    await line.until(lambda: len(turns(line)) == 2)
    first, second = server.sessions
    assert first.of_type("conversation.item.create") == []
    told = [event["item"] for event in second.of_type("conversation.item.create")]
    assert [(item["role"], item["content"][0]["text"]) for item in told[:2]] == [
        ("assistant", "Hello."),
        ("user", "I have a question about my invoice."),
    ]
    partly = told[2]["content"][0]["text"]  # what of the answer was heard before the break
    assert told[2]["role"] == "assistant" and ASKS.startswith(partly) and 0 < len(partly) < len(ASKS)
    (asked,) = second.of_type("response.create")
    assert partly in asked["response"]["instructions"]
    assert line.said("agent")[1].text == f"{partly} digit by digit."
    assert line.engine.session.messages[-1].text.replace("  ", " ").startswith(partly)
    assert len(second.of_type("session.update")) == 1
    assert second.of_type("session.update")[0]["session"]["audio"]["output"]["voice"] == "marin"


async def test_a_written_text_goes_on_with_its_rest(dial: Dial) -> None:
    line, _, server = await dial(Script(drop={0: 1000}), flow="long")
    await line.until(lambda: turns(line))
    assert line.said("agent")[0].text == GREETING
    (asked,) = server.sessions[1].of_type("response.create")
    rest = asked["response"]["instructions"].split("\n\n")[1]
    assert GREETING.endswith(rest) and rest != GREETING


async def test_words_that_a_broken_connection_swallowed_are_heard_again(dial: Dial) -> None:
    script = Script(hears=["I have a question about my invoice."], says=[Says(text=ASKS)])
    line, _, server = await dial(script)
    await line.until(lambda: len(turns(line)) == 1)
    await speak(line)
    await asyncio.sleep(1.2)  # in the middle of the caller's words
    server.sessions[0].drop()
    await line.until(lambda: len(turns(line)) == 2)
    assert [said.text for said in line.said("caller")] == script.hears
    assert server.sessions[1].heard_samples > 24_000


@pytest.mark.parametrize("script", [Script(refuse=[401]), Script(error="insufficient_quota")], ids=["http", "event"])
async def test_what_is_fatal_ends_the_call_with_its_cause(
    dial: Dial, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    code = script.error or "invalid_api_key"
    _, task, server = await dial(script)
    async with asyncio.timeout(30):
        concluded = await task
    assert concluded.cause == "failed" and code in concluded.detail
    assert KEY not in concluded.detail and KEY not in caplog.text and KEY not in repr(settings_for(server))
    assert len(server.sessions) <= 1  # it was not tried again
    server.refusals.clear()


async def test_a_service_that_stays_away_ends_the_call(dial: Dial) -> None:
    _, task, server = await dial(Script(refuse=[503] * 9), openai_tries=2)
    async with asyncio.timeout(30):
        concluded = await task
    assert concluded.cause == "failed" and "503" in concluded.detail
    assert len(server.script.refuse) == 9 - 3  # the first try and two more


async def test_an_expired_session_is_followed_by_another(dial: Dial) -> None:
    script = Script(error="session_expired")
    line, _, server = await dial(script)
    await line.until(lambda: server.sessions)
    script.error = ""
    await line.until(lambda: turns(line))
    assert line.said("agent")[0].text == "Hello." and len(server.sessions) == 2
    server.refusals.clear()


async def test_a_failed_response_is_asked_for_again_once(dial: Dial) -> None:
    says = [Says(fails="server_error"), Says(text=ASKS), Says(fails="server_error"), Says(fails="rate_limit_exceeded")]
    line, task, _ = await dial(Script(hears=["My invoice is wrong.", "My invoice!"], says=says))
    await line.until(lambda: len(turns(line)) == 1)
    await speak(line)
    await line.until(lambda: len(turns(line)) == 2)
    assert line.said("agent")[1].text == ASKS
    await speak(line)
    async with asyncio.timeout(20):
        concluded = await task
    assert concluded.cause == "failed" and "rate_limit_exceeded" in concluded.detail
    assert line.said("agent")[-1].text == MediaSettings().failure_text


async def test_a_response_that_never_comes_ends_the_call(dial: Dial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("switchroom.realtime.openai_link._STALL_S", 1.0)
    line, task, server = await dial(Script(hears=["My invoice is wrong."], says=[Says(hangs=True)]))
    await line.until(lambda: len(turns(line)) == 1)
    await speak(line)
    async with asyncio.timeout(20):
        concluded = await task
    assert concluded.cause == "failed" and "said nothing" in concluded.detail
    assert line.said("agent")[-1].text == MediaSettings().failure_text
    assert len(server.sessions[0].of_type("response.cancel")) == 1


def graph_of(middle: list[Node], edges: list[tuple[str, int, str]]) -> CompactGraph:
    return CompactGraph(v=1, kind="realtime", nodes=(*middle, Node(id="start", kind="start")), edges=tuple(edges))


async def test_a_condition_agent_and_fields_are_asked_for_aside(dial: Dial) -> None:
    scenarios = [{"scenario": "wants a refund"}, {"scenario": "anything else"}]
    schema = [{"key": "amount", "type": "number"}, {"key": "mood", "type": "enum", "enum": "calm, angry"}]
    nodes_ = [
        Node(id="ask", kind="directReply", inputs={"message": "Yes?"}),
        Node(id="route", kind="conditionAgent", inputs={"scenarios": scenarios, "input": "{{question}}"}),
        Node(id="other", kind="directReply", inputs={"message": "I cannot help."}),
        Node(id="fields", kind="llm", inputs={"schema": schema}),
        Node(id="told", kind="directReply", inputs={"message": "You get {{ fields.output.amount }} back."}),
        Node(id="again", kind="loop", inputs={"to": "route", "max": 3}),
    ]
    edges = [
        ("start", 0, "ask"),
        ("ask", 0, "route"),
        ("route", 0, "fields"),
        ("route", 1, "other"),
        ("other", 0, "again"),
        ("fields", 0, "told"),
    ]
    script = Script(
        hears=["The weather is nice.", "I want my twenty euros back!"],
        says=[
            Says(calls=[("choose", {"scenario": "anything else"})]),
            Says(calls=[("choose", {"scenario": "wants a refund"})]),
            Says(calls=[("fill", {"amount": 20, "mood": "angry"})]),
        ],
    )
    line, task, server = await dial(script, flow=graph_of(nodes_, edges))
    await line.until(lambda: len(turns(line)) == 1)
    await speak(line)
    await line.until(lambda: len(turns(line)) == 2)
    await speak(line)
    async with asyncio.timeout(20):
        assert (await task).cause == "finished"
    assert [said.text for said in line.said("agent")] == ["Yes?", "I cannot help.", "You get 20 back."]
    asked = [event["response"] for event in server.sessions[0].of_type("response.create")]
    aside = [response for response in asked if response.get("conversation") == "none"]
    assert [response["tool_choice"]["name"] for response in aside] == ["choose", "choose", "fill"]
    assert all(response["output_modalities"] == ["text"] for response in aside)
    assert line.engine.session.outputs["fields"]["mood"] == "angry"


async def test_written_words_and_the_models_own_keep_their_order(dial: Dial) -> None:
    nodes_ = [
        Node(id="a", kind="directReply", inputs={"message": "One moment, please."}),
        Node(id="b", kind="llm", inputs={"input": "What is the weather like?"}),
        Node(id="c", kind="directReply", inputs={"message": "That is all."}),
    ]
    edges = [("start", 0, "a"), ("a", 0, "b"), ("b", 0, "c")]
    line, _, server = await dial(Script(says=[Says(text="It rains.")]), flow=graph_of(nodes_, edges))
    await line.until(lambda: turns(line))
    assert line.said("agent")[0].text == "One moment, please. It rains. That is all."
    asked = [event["response"].get("instructions", "") for event in server.sessions[0].of_type("response.create")]
    assert [text.split("\n\n")[-1] for text in asked] == ["One moment, please.", "", "That is all."]
    instructions = server.sessions[0].of_type("session.update")[-1]["session"]["instructions"]
    assert "Answer this: What is the weather like?" in instructions


async def test_when_the_model_chooses_nothing_the_words_decide(dial: Dial) -> None:
    scenarios = [{"scenario": "wants a refund", "examples": ["my invoice is wrong"]}, {"scenario": "anything else"}]
    nodes_ = [
        Node(id="ask", kind="directReply", inputs={"message": "Yes?"}),
        Node(id="route", kind="conditionAgent", inputs={"scenarios": scenarios, "input": "{{question}}"}),
        Node(id="refund", kind="directReply", inputs={"message": "You get it back."}),
        Node(id="again", kind="loop", inputs={"to": "route", "max": 3}),
    ]
    edges = [("start", 0, "ask"), ("ask", 0, "route"), ("route", 0, "refund"), ("route", 1, "again")]
    script = Script(hears=["My invoice is wrong."], says=[Says(calls=[("choose", {"scenario": "no such"})])])
    line, task, _ = await dial(script, flow=graph_of(nodes_, edges))
    await line.until(lambda: len(turns(line)) == 1)
    await speak(line)
    async with asyncio.timeout(20):
        assert (await task).cause == "finished"
    assert line.said("agent")[-1].text == "You get it back."


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValidationError, match="openai_api_key"):
        MediaSettings(engine="openai")
    with pytest.raises(ValidationError, match="wss://"):
        MediaSettings(openai_url="https://api.openai.com/v1/realtime")
    assert MediaSettings(engine="openai", openai_url="ws://127.0.0.1:1/v1/realtime").openai_api_key is None


def told(session: Any, kind: str) -> list[dict[str, Any]]:
    """Items that a session was told of."""
    items = [event["item"] for event in session.of_type("conversation.item.create")]
    return [item for item in items if item["type"] == kind]


async def test_an_agents_tools_in_a_session_that_was_renewed(dial: Dial) -> None:
    stock = CustomTool(
        name="stock",
        schema={"type": "object", "properties": {"item": {"type": "string"}}},
        code="return $item + ': three left'",
    )
    graph = graph_of(
        [Node(id="desk", kind="agent", inputs={"greeting": "Yes?", "model": "any", "tools": [{"tool": "stock"}]})],
        [("start", 0, "desk")],
    )
    says = [Says(calls=[("stock", {"item": "lamps"})]), Says(text="We have three lamps.")]
    prices = {"audio_in": 32.0, "text_in": 4.0, "audio_out": 64.0, "text_out": 16.0, "minute": 0.6}
    line, task, server = await dial(
        Script(hears=["Do you have lamps?"], says=says),
        flow=graph,
        tools=[stock],
        openai_session_s=1.0,
        openai_prices=prices,
    )
    await line.until(lambda: len(server.sessions) == 2)  # before the service's cap, in a pause
    assert line.said("agent")[0].text == "Yes?" and not task.done()
    await speak(line)
    await line.until(lambda: len(turns(line)) == 2)
    assert line.said("agent")[1].text == "We have three lamps."
    outputs = [(at, item) for at, one in enumerate(server.sessions) for item in told(one, "function_call_output")]
    ((at, output),) = outputs
    assert at > 0 and output["output"] == "lamps: three left"
    later = server.sessions[at]
    assert told(later, "message")[0]["content"][0]["text"] == "Yes?"  # what was heard before
    first = server.sessions[1].of_type("session.update")[0]  # the opening: nobody was to answer yet
    assert first["session"]["tools"] == []
    assert [tool["name"] for tool in later.of_type("session.update")[-1]["session"]["tools"]] == ["stock"]
    answered = nodes(line)[-1].output
    used = {"tool": "stock", "toolInput": {"item": "lamps"}, "toolOutput": "lamps: three left"}
    assert answered["usedTools"] == [used] and answered["content"] == "We have three lamps."
    usage = [event.usage for event in line.events if isinstance(event, Used)][-1]
    assert usage["cost"]["currency"] == "USD"
    details = usage["responses"]["input_token_details"], usage["responses"]["output_token_details"]
    tokens = [details[at][f"{kind}_tokens"] for at in (0, 1) for kind in ("text", "audio")]
    expected = sum(count * price for count, price in zip(tokens, (4.0, 32.0, 16.0, 64.0), strict=True)) / 1e6
    assert usage["cost"]["amount"] == pytest.approx(expected + usage["transcriptions"]["seconds"] / 60 * 0.6)
