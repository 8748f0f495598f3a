"""Model providers: streaming, tools, structure, usage, retries, fallbacks, time and cancelling."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from switchroom.compact import compact_canvas
from switchroom.engine import Engine, FlowStore, Session
from switchroom.engine.custom_tool import CustomTool
from switchroom.engine.events import HumanAnswer, Media, NodeFinished, Token, TurnEnded, TurnFailed, TurnInput
from switchroom.engine.providers import Models, ProviderSettings

from .conftest import draw
from .model_server import ModelServer, Say, Script

pytest.importorskip("openai")
START = ("startAgentflow", {})


def provider(server: ModelServer, **more: Any) -> ProviderSettings:
    return ProviderSettings(base_url=server.url, api_key="sk-test-key", **more)


@contextlib.asynccontextmanager
async def serving(script: Script, **more: Any) -> AsyncIterator[tuple[ModelServer, Models]]:
    async with ModelServer(script) as server:
        models = Models({"openai": provider(server, **more)})
        try:
            yield server, models
        finally:
            await models.close()


async def run(flows: FlowStore, models: Models, canvas: dict[str, Any], text: str, **more: Any) -> list[Any]:
    session = more.pop("session", None) or Session(session_id="s")
    engine = Engine(flows, responder=models)
    async with contextlib.aclosing(engine.run(compact_canvas(canvas), session, TurnInput(text=text), **more)) as events:
        return [event async for event in events]


def llm(**inputs: Any) -> tuple[str, dict[str, Any]]:
    return (
        "llmAgentflow",
        {"llmModel": "chatOpenAI", "llmModelConfig": {"modelName": "gpt-4o-mini", "temperature": 0.2}, **inputs},
    )


def agent(**inputs: Any) -> tuple[str, dict[str, Any]]:
    return ("agentAgentflow", {"agentModel": "chatOpenAI", "agentModelConfig": {"modelName": "gpt-4o-mini"}, **inputs})


def finished(events: list[Any], node_id: str) -> NodeFinished:
    return next(event for event in events if isinstance(event, NodeFinished) and event.node_id == node_id)


async def test_an_answer_streams_and_is_counted(flows: FlowStore) -> None:
    canvas = draw({"s": START, "a": llm(llmMessages=[{"role": "system", "content": "Be kind."}])}, [("s", "a")])
    async with serving(lambda body: Say("It is a fine day")) as (server, models):
        events = await run(flows, models, canvas, "How is it?")
    assert [event.text for event in events if isinstance(event, Token)] == ["It ", "is ", "a ", "fine ", "day"]
    assert events[-1] == TurnEnded(outcome="finished", text="It is a fine day")
    sent = server.requests[0]
    assert (sent["model"], sent["temperature"], sent["stream"]) == ("gpt-4o-mini", 0.2, True)
    assert [(m["role"], m["content"]) for m in sent["messages"]] == [("system", "Be kind."), ("user", "How is it?")]
    assert server.headers[0]["Authorization"] == "Bearer sk-test-key"
    done = finished(events, "a")
    assert done.usage == {"model": "gpt-4o-mini", "inputTokens": 5, "outputTokens": 5, "totalTokens": 10}
    assert (done.output["responder"], done.output["content"]) == ("openai", "It is a fine day")


async def test_memory_and_what_nodes_said_before(flows: FlowStore) -> None:
    """The second turn is told of the first; the second node of the first's answer."""
    canvas = draw(
        {"s": START, "a": llm(llmEnableMemory=True), "b": llm(llmEnableMemory=True, llmUserMessage="Shorter.")},
        [("s", "a"), ("a", "b")],
    )
    session = Session(session_id="s")
    async with serving(lambda body: Say(f"answer {len(body['messages'])}")) as (server, models):
        await run(flows, models, canvas, "One?", session=session)
        await run(flows, models, canvas, "Two?", session=session)
    told = [[m["content"] for m in request["messages"]] for request in server.requests]
    assert told == [
        ["One?"],
        ["One?", "answer 1", "Shorter."],
        ["One?", "answer 3", "Two?"],
        ["One?", "answer 3", "Two?", "answer 3", "Shorter."],
    ]


@pytest.mark.parametrize(
    ("kind", "kept"),
    [
        ({"llmMemoryType": "windowSize", "llmMemoryWindowSize": 1}, ["u3", "a3", "now"]),
        ({"llmMemoryType": "conversationSummary"}, ["The conversation so far:\nSUMMARY", "now"]),
        (
            {"llmMemoryType": "conversationSummaryBuffer", "llmMemoryMaxTokenLimit": 1},
            ["The conversation so far:\nSUMMARY", "u3", "a3", "now"],
        ),
    ],
)
async def test_memory_types(flows: FlowStore, kind: dict[str, Any], kept: list[str]) -> None:
    from switchroom.engine import Message

    session = Session(session_id="s", started=True)
    for at in range(1, 4):
        session.messages += [Message(role="caller", text=f"u{at}"), Message(role="agent", text=f"a{at}")]
    canvas = draw({"s": START, "a": llm(llmEnableMemory=True, **kind)}, [("s", "a")])

    def script(body: dict[str, Any]) -> Say:
        return Say("SUMMARY" if "Summarise" in body["messages"][0]["content"] else "ok")

    async with serving(script) as (server, models):
        await run(flows, models, canvas, "now", session=session)
    assert [m["content"] for m in server.requests[-1]["messages"]] == kept


async def test_a_structured_answer_fits_its_schema_or_is_asked_for_again(flows: FlowStore) -> None:
    rows = [
        {"key": "name", "type": "string", "description": "Who"},
        {"key": "size", "type": "enum", "enumValues": "small, large"},
        {"key": "parts", "type": "jsonArray", "jsonSchema": '{"sku": {"type": "string"}, "count": {"type": "number"}}'},
    ]
    canvas = draw({"s": START, "a": llm(llmStructuredOutput=rows)}, [("s", "a")])
    good = {"name": "Ana", "size": "large", "parts": [{"sku": "T-4", "count": 2}]}
    answers = iter(['{"name": "Ana", "size": "huge", "parts": []}', json.dumps(good)])
    async with serving(lambda body: Say(next(answers))) as (server, models):
        events = await run(flows, models, canvas, "Two large T-4 for Ana")
    assert server.requests[0]["response_format"]["json_schema"]["strict"] is True
    output = finished(events, "a").output
    assert {key: output[key] for key in good} == good
    async with serving(lambda body: Say("I'd rather not.")) as (server, models):
        events = await run(flows, models, canvas, "x")
    assert (events[-1].code, len(server.requests)) == ("model_bad_answer", 2)


async def test_an_agent_calls_its_tools_and_answers(flows: FlowStore) -> None:
    tools = [
        CustomTool(
            name="stock",
            description="How many are in stock.",
            schema={"type": "object", "properties": {"sku": {"type": "string"}}, "required": ["sku"]},
            code="return $sku === 'T-4' ? 7 : 0",
        )
    ]
    canvas = draw(
        {
            "s": START,
            "a": agent(agentTools=[{"agentSelectedTool": "stock"}, {"agentSelectedTool": "calculator"}]),
        },
        [("s", "a")],
    )

    def script(body: dict[str, Any]) -> Say:
        results = [m["content"] for m in body["messages"] if m["role"] == "tool"]
        if not results:
            return Say(calls=[("stock", {"sku": "T-4"}), ("calculator", {"input": "3 * (2 + 0.5)"})])
        return Say(f"We have {results[0]}; the sum is {results[1]}.")

    async with serving(script) as (_server, models):
        events = await run(flows, models, canvas, "How many?", tools=tools)
    assert events[-1].text == "We have 7; the sum is 7.5."
    used = finished(events, "a").output["usedTools"]
    assert [(one["tool"], one["toolOutput"]) for one in used] == [("stock", "7"), ("calculator", "7.5")]
    assert finished(events, "a").usage["totalTokens"] > 0


async def test_an_agent_does_not_call_tools_for_ever(flows: FlowStore) -> None:
    canvas = draw({"s": START, "a": agent(agentTools=[{"agentSelectedTool": "currentDateTime"}])}, [("s", "a")])

    def script(body: dict[str, Any]) -> Say:
        return Say(calls=[("current_date_time", {})]) if body.get("tools") else Say("Enough.")

    async with serving(script, max_tool_rounds=3) as (server, models):
        events = await run(flows, models, canvas, "Go")
    assert (events[-1].text, len(server.requests)) == ("Enough.", 4)


async def test_a_model_is_told_that_a_store_is_missing(flows: FlowStore) -> None:
    inputs = {"agentKnowledgeDocumentStores": [{"documentStore": "1:papers"}]}

    def script(body: dict[str, Any]) -> Say:
        done = body["messages"][-1]["role"] == "tool"
        return Say("Nothing there.") if done else Say(calls=[("search_papers", {"query": "tea"})])

    async with serving(script) as (_server, models):
        events = await run(flows, models, draw({"s": START, "a": agent(**inputs)}, [("s", "a")]), "Go")
    told = finished(events, "a").output["usedTools"][0]["toolOutput"]
    assert "searches the knowledge store `1:papers`, which is not here" in told


async def test_a_model_is_told_that_a_tool_is_missing(flows: FlowStore) -> None:
    """The flow goes on, and the trace says what was not there. Where no model answers, nobody asks for tools."""
    canvas = draw({"s": START, "a": agent(agentTools=[{"agentSelectedTool": "gmail"}])}, [("s", "a")])

    def script(body: dict[str, Any]) -> Say:
        done = body["messages"][-1]["role"] == "tool"
        return Say("I could not send it.") if done else Say(calls=[("gmail", {"input": "send it"})])

    async with serving(script) as (_server, models):
        events = await run(flows, models, canvas, "Send it")
    assert events[-1].text == "I could not send it."
    told = finished(events, "a").output["usedTools"][0]["toolOutput"]
    assert "uses the tool `gmail`, which this server does not have. It has: " in told
    events = await run(flows, Models({}), canvas, "Send it")
    assert isinstance(events[-1], TurnEnded)


async def test_a_flow_is_a_tool(flows: FlowStore) -> None:
    """Run in the same session, heard by nobody; a person who is asked inside is waited for."""
    inner = draw(
        {
            "s": START,
            "r": ("directReplyAgentflow", {"directReplyMessage": "Looking for {{ question }}."}),
            "h": ("humanInputAgentflow", {"humanInputDescription": "Look for {{ question }}?"}),
            "f": ("customFunctionAgentflow", {"customFunctionJavascriptFunction": "return 'shelf 4'"}),
        },
        [("s", "r"), ("r", "h"), ("h", "f", 0)],
    )
    await flows.save(inner, flow_id="finder")
    tool = {
        "agentSelectedTool": "agentAsTool",
        "agentSelectedToolConfig": {"selectedAgentflow": "finder", "name": "find it", "description": "Finds things."},
    }
    canvas = draw({"s": START, "a": agent(agentTools=[tool])}, [("s", "a")])

    def script(body: dict[str, Any]) -> Say:
        last = body["messages"][-1]
        return Say("On " + last["content"]) if last["role"] == "tool" else Say(calls=[("find_it", {"input": "tea"})])

    async with serving(script) as (server, models):
        session = Session(session_id="s")
        events = await run(flows, models, canvas, "Where is the tea?", session=session)
        assert (events[-1].outcome, events[-1].text) == ("stopped", "Look for tea?")
        assert events[-1].stop.position == "a/tool0.0>h"
        turn = TurnInput(human=HumanAnswer(type="proceed"))
        engine = Engine(flows, responder=models)
        events = [event async for event in engine.run(compact_canvas(canvas), session, turn)]
    assert (events[-1].outcome, events[-1].text, len(server.requests)) == ("finished", "On shelf 4", 2)
    assert server.requests[0]["tools"][0]["function"]["description"] == "Finds things."


async def test_a_busy_service_is_asked_again(flows: FlowStore) -> None:
    answers = iter([Say(status=429, retry_after="0"), Say(status=503), Say("Here I am")])
    canvas = draw({"s": START, "a": llm()}, [("s", "a")])
    async with serving(lambda body: next(answers), retries=2) as (server, models):
        events = await run(flows, models, canvas, "Hello?")
    assert (events[-1].text, len(server.requests)) == ("Here I am", 3)


@pytest.mark.parametrize(
    "broken",
    [Say(status=500), Say(status=401), Say("never", delay_s=20), Say("cut before", breaks_after=0, status=400)],
    ids=["error", "refused", "silent", "bad-request"],
)
async def test_a_fallback_answers(flows: FlowStore, broken: Say) -> None:
    canvas = draw({"s": START, "a": llm()}, [("s", "a")])
    async with ModelServer(lambda body: broken) as bad, ModelServer(lambda body: Say("Second here")) as good:
        models = Models(
            {
                "openai": provider(bad, retries=0, timeout_s=0.5, fallback=("spare",)),
                "spare": provider(good, models={"gpt-4o-mini": "small-local"}),
            }
        )
        events = await run(flows, models, canvas, "Hello?")
        await models.close()
    assert events[-1].text == "Second here"
    assert good.requests[0]["model"] == "small-local"
    assert finished(events, "a").output["responder"] == "spare"


async def test_a_stream_that_breaks_is_not_said_twice(flows: FlowStore) -> None:
    canvas = draw({"s": START, "a": llm()}, [("s", "a")])
    async with (
        ModelServer(lambda body: Say("one two three four", breaks_after=2)) as bad,
        ModelServer(lambda body: Say("never")) as good,
    ):
        models = Models({"openai": provider(bad, retries=0, fallback=("spare",)), "spare": provider(good)})
        events = await run(flows, models, canvas, "Hello?")
        await models.close()
    assert isinstance(events[-1], TurnFailed)
    assert (events[-1].code, events[-1].node_id, good.requests) == ("model_failed", "a", [])
    assert "sk-test" not in events[-1].detail


async def test_names_and_missing_providers(flows: FlowStore) -> None:
    canvas = draw({"s": START, "a": ("llmAgentflow", {"llmModel": "chatOllama"})}, [("s", "a")])
    async with serving(lambda body: Say("x")) as (_server, models):
        events = await run(flows, models, canvas, "Hello?")
    assert (events[-1].code, "`chatOllama`" in events[-1].detail) == ("model_not_configured", True)
    async with serving(lambda body: Say("any"), serves=("*",), default_model="m") as (_server, models):
        assert (await run(flows, models, canvas, "Hello?"))[-1].text == "any"
    events = await run(flows, Models({}), canvas, "Hello?")
    assert finished(events, "a").output["responder"] == "embedded"
    with pytest.raises(ValueError, match="fallback"):
        Models({"openai": ProviderSettings(fallback=("nobody",))})


async def test_azure(flows: FlowStore) -> None:
    canvas = draw(
        {"s": START, "a": ("llmAgentflow", {"llmModel": "azureChatOpenAI", "llmModelConfig": {"modelName": "d-1"}})},
        [("s", "a")],
    )
    async with ModelServer(lambda body: Say("From Azure")) as server:
        settings = ProviderSettings(base_url=server.root, api_key="k", api_version="2024-10-21")
        models = Models({"azure": settings})
        events = await run(flows, models, canvas, "Hello?")
        await models.close()
    assert events[-1].text == "From Azure"
    assert server.headers[0]["api-key"] == "k"


async def test_a_condition_agent_asks_the_model(flows: FlowStore) -> None:
    scenarios = [{"scenario": "Sales"}, {"scenario": "Support"}]
    router = (
        "conditionAgentAgentflow",
        {
            "conditionAgentModel": "chatOpenAI",
            "conditionAgentScenarios": scenarios,
            "conditionAgentInput": "{{question}}",
        },
    )
    reply = {key: ("directReplyAgentflow", {"directReplyMessage": key}) for key in ("x", "y")}
    canvas = draw({"s": START, "k": router, **reply}, [("s", "k"), ("k", "x", 0), ("k", "y", 1)])
    async with serving(lambda body: Say('{"output": "Support"}'), default_model="m") as (_server, models):
        events = await run(flows, models, canvas, "It is broken")
    assert (events[-1].text, finished(events, "k").branch) == ("y", "1")
    assert finished(events, "k").usage["model"] == "m"


async def test_cancelling_ends_the_request_at_once(flows: FlowStore) -> None:
    canvas = draw({"s": START, "a": llm()}, [("s", "a")])
    async with serving(lambda body: Say("word " * 500, piece_s=0.02)) as (server, models):
        engine = Engine(flows, responder=models)
        events = engine.run(compact_canvas(canvas), Session(session_id="s"), TurnInput(text="Go"))
        async for event in events:
            if isinstance(event, Token):
                break
        started = time.monotonic()
        await events.aclose()
        took_s = time.monotonic() - started
        for _ in range(100):
            if server.gone:
                break
            await asyncio.sleep(0.02)
    assert took_s < 3  # of ten
    assert server.gone == 1


PICTURE = Media(name="a.png", mime="image/png", data="iVBORw0KGgo=")
SOUND = Media(name="a.wav", mime="audio/wav", data="UklGRg==")


async def test_pictures_and_sounds_reach_the_models_that_take_them(flows: FlowStore) -> None:
    """Beside the words of the last message; not to a model that its canvas keeps them from."""
    blind = {"llmModelConfig": {"modelName": "m", "allowImageUploads": False}}
    canvas = draw(
        {"s": START, "a": llm(**blind), "b": llm(llmUserMessage="Describe it."), "c": agent()},
        [("s", "a"), ("a", "b"), ("b", "c")],
    )
    async with serving(lambda body: Say("A dot."), accepts=("image", "audio")) as (server, models):
        engine = Engine(flows, responder=models)
        turn = TurnInput(text="What is it?", media=[PICTURE, SOUND])
        events = [event async for event in engine.run(compact_canvas(canvas), Session(session_id="s"), turn)]
    assert isinstance(events[-1], TurnEnded), events[-1]
    first, second, third = (request["messages"][-1]["content"] for request in server.requests)
    assert first == "What is it?"
    assert second == [
        {"type": "text", "text": "Describe it."},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
    ]
    assert [part["type"] for part in third] == ["text", "image_url", "input_audio"]


@pytest.mark.parametrize(
    ("media", "inputs", "words"),
    [
        (SOUND, {}, "which no provider of it takes: name it in `accepts` of the provider `openai`"),
        (Media(name="a.webm", mime="audio/webm", data="AAAA"), {}, "no provider"),
        (PICTURE, {"llmModel": ""}, "no node of this flow has a model that could take it"),
    ],
    ids=["provider", "format", "no-model"],
)
async def test_an_upload_that_no_model_takes_is_refused(
    flows: FlowStore, media: Media, inputs: dict[str, Any], words: str
) -> None:
    canvas = draw({"s": START, "a": llm(**inputs)}, [("s", "a")])
    async with serving(lambda body: Say("x")) as (server, models):
        engine = Engine(flows, responder=models)
        turn = TurnInput(text="Look", media=[media])
        events = [event async for event in engine.run(compact_canvas(canvas), Session(session_id="s"), turn)]
    assert (events[-1].code, events[-1].status, server.requests) == ("upload_not_supported", 415, [])
    assert words in events[-1].detail
    events = [event async for event in Engine(flows).run(compact_canvas(canvas), Session(session_id="t"), turn)]
    assert events[-1].code == "upload_not_supported"


async def test_a_condition_agent_is_told_of_the_conversation(flows: FlowStore) -> None:
    router = (
        "conditionAgentAgentflow",
        {
            "conditionAgentModel": "chatOpenAI",
            "conditionAgentModelConfig": {"modelName": "m"},
            "conditionAgentScenarios": [{"scenario": "Sales"}, {"scenario": "Support"}],
            "conditionAgentEnableMemory": True,
        },
    )
    canvas = draw(
        {"s": START, "k": router, "r": ("directReplyAgentflow", {"directReplyMessage": "ok"})},
        [("s", "k"), ("k", "r", 0)],
    )
    session = Session(session_id="s")
    async with serving(lambda body: Say('{"output": "Sales"}')) as (server, models):
        await run(flows, models, canvas, "One?", session=session)
        await run(flows, models, canvas, "Two?", session=session)
    assert [m["content"] for m in server.requests[1]["messages"][1:3]] == ["One?", "ok"]


async def test_an_agent_answers_in_a_structure_after_its_tools(flows: FlowStore) -> None:
    tools = [CustomTool(name="stock", schema={"type": "object", "properties": {}}, code="return 7")]
    rows = [{"key": "count", "type": "number", "description": "How many"}]
    canvas = draw(
        {"s": START, "a": agent(agentTools=[{"agentSelectedTool": "stock"}], agentStructuredOutput=rows)}, [("s", "a")]
    )

    def script(body: dict[str, Any]) -> Say:
        return Say('{"count": 7}') if body["messages"][-1]["role"] == "tool" else Say(calls=[("stock", {})])

    async with serving(script) as (_server, models):
        events = await run(flows, models, canvas, "How many?", tools=tools)
    assert finished(events, "a").output["count"] == 7
